package fleet

import (
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// The tests in this file have the numbers of SECURITY.md instead of the names of constants,
// so that they fail if a constant differs from the documentation.

// numberedEndpoint returns a different endpoint for each number.
func numberedEndpoint(n int) Endpoint {
	return Endpoint{Component: fmt.Sprint("c", n), Name: "generate"}
}

func wantRefused(t *testing.T, f *Fleet, want map[stats.Limit]uint64) {
	t.Helper()
	checkInvariants(t, f)
	for _, l := range stats.Limits() {
		testutil.Equal(t, "refused by the limit "+l.String(), f.Stats.Refused(l), want[l])
	}
}

// registerAndLeave registers n workers with a load, each at its own endpoint, and deregisters
// each before the next.
func registerAndLeave(f *Fleet, first, n int) {
	for i := first; i < first+n; i++ {
		registerPublishing(f, numberedEndpoint(i), uint64(i+1))
		publishAt(f, numberedEndpoint(i), uint64(i+1), 5)
		deregister(f, numberedEndpoint(i), uint64(i+1))
	}
}

func TestLimitsEmptyEndpoints(t *testing.T) {
	f := newFleet(Target(generate), 1) // the target's endpoint does not count against the limit
	f.target = everything
	registerAndLeave(f, 0, 3000)
	testutil.Equal(t, "endpoints", len(f.endpoints), 1024+1)
	wantRefused(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 3000 - 1024})
	testutil.Equal(t, "the first of the last 1,024 endpoints is kept", f.endpoints[numberedEndpoint(3000-1024)] != nil, true)
	testutil.Equal(t, "the endpoint before it is kept", f.endpoints[numberedEndpoint(3000-1025)] != nil, false)
	after(f, 10*time.Minute-time.Second)
	testutil.Equal(t, "endpoints", len(f.endpoints), 1024+1)
	after(f, 10*time.Minute)
	testutil.Equal(t, "endpoints after ten minutes", len(f.endpoints), 1)
}

func TestLimitsEmptyEndpointsOfLargeFleet(t *testing.T) {
	f := newFleet(everything, 10_000)
	registerAndLeave(f, 0, 3000)
	testutil.Equal(t, "endpoints", len(f.endpoints), 3000)
	after(f, time.Second)
	testutil.Equal(t, "endpoints a second later", len(f.endpoints), 1024)
	wantRefused(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 3000 - 1024})
}

func TestLimitsEndpointsToNumberOfWorkers(t *testing.T) {
	f := newFleet(everything, 1500)
	for i := range 1500 {
		register(f, numberedEndpoint(i), uint64(i+1))
	}
	wantRefused(t, f, nil)
	register(f, generate, 1)
	wantRefused(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 1})
	testutil.Equal(t, "needs sync while full", f.NeedsSync(), false)
	deregister(f, numberedEndpoint(7), 8)
	testutil.Equal(t, "needs sync with room", f.NeedsSync(), true)
	register(f, generate, 1)
	wantRefused(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 1})
}

func TestLimitsEvictEmptyThenUnregisteredEndpoints(t *testing.T) {
	f := newFleet(everything, 2000)
	f.bounds.endpoints = 4
	registerAndLeave(f, 0, 1)
	register(f, numberedEndpoint(1), 2)
	publishAt(f, numberedEndpoint(1), 99, 5) // of a worker that is not registered
	deregister(f, numberedEndpoint(1), 2)
	f.RecordPollReply(loaded(numberedEndpoint(2), static("a"), 5))
	register(f, numberedEndpoint(3), 4)
	wantRefused(t, f, nil)
	wantShown(t, f, "c0/generate:", "c1/generate: 1 unregistered", "c2/generate: 1 unregistered mean 5", "  a up kv 5", "c3/generate: 1 silent", "  4 down")
	register(f, numberedEndpoint(4), 5) // evicts the endpoint without workers
	register(f, numberedEndpoint(5), 6) // evicts the endpoint that has only an event
	wantRefused(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 2})
	wantShown(t, f, "c2/generate: 1 unregistered mean 5", "  a up kv 5", "c3/generate: 1 silent", "  4 down", "c4/generate: 1 silent", "  5 down", "c5/generate: 1 silent", "  6 down")
	register(f, numberedEndpoint(6), 7) // does not evict a static worker's endpoint
	wantRefused(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 3})
	testutil.Equal(t, "endpoints", len(f.endpoints), 4)
	f.RecordPollReply(loaded(numberedEndpoint(7), static("b"), 5))
	wantRefused(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 4})
}

func TestLimitsKeepHitsOfEvictedEndpoint(t *testing.T) {
	f := newFleet(everything, 2000)
	f.bounds.endpoints = 1
	register(f, numberedEndpoint(0), 1)
	f.RecordHit(1, 20, 5)
	deregister(f, numberedEndpoint(0), 1)
	wantShown(t, f, "c0/generate: 1 events", "  1 hits 5/20")
	register(f, numberedEndpoint(1), 2)
	wantShown(t, f, "c1/generate: 1 silent", "  2 down", "unknown/unknown: not counted", "  1 hits 5/20")
}

func TestLimitsEndpointsOfStaticWorkers(t *testing.T) {
	for registry, want := range map[bool]int{true: 1024, false: 2000} {
		f := New(everything, 2000, registry)
		f.Advance(start)
		for i := range 2001 {
			f.RecordPollReply(loaded(numberedEndpoint(i), static(fmt.Sprint("a", i/64)), 5))
		}
		testutil.Equal(t, fmt.Sprint("endpoints, with a registry: ", registry), len(f.endpoints), want)
		if registry {
			wantRefused(t, f, map[stats.Limit]uint64{stats.EndpointLimit: uint64(2001 - want)})
			register(f, generate, 1)
			testutil.Equal(t, "endpoints with a registered one", len(f.endpoints), want+1)
			continue
		}
		wantRefused(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 1})
		f.RecordLoad(Origin{Endpoint: generate, Worker: 7}, FromActiveLoad, Load{KVActive: Some[uint64](5)})
		wantRefused(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 2})
	}
}

func TestLimitsUnregisteredEndpoints(t *testing.T) {
	f := newFleet(everything, 10_000)
	for i := range 2000 {
		registerPublishing(f, numberedEndpoint(i), uint64(i+1))
		publishAt(f, numberedEndpoint(i), uint64(1_000_000+i), 5) // of another worker
		deregister(f, numberedEndpoint(i), uint64(i+1))
	}
	testutil.Equal(t, "endpoints", f.statusCounts[statusUnregistered], 2000)
	after(f, time.Second)
	testutil.Equal(t, "endpoints a second later", f.statusCounts[statusUnregistered], 1024)
	wantRefused(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 2000 - 1024})
}

func TestLimitsModelCards(t *testing.T) {
	f := newFleet(everything, 1500)
	for i := range 20_000 {
		setCard(f, numberedEndpoint(i), uint64(i%469))
	}
	testutil.Equal(t, "endpoints", len(f.endpoints), 1500)
	wantRefused(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 20_000 - 1500})
	register(f, numberedEndpoint(0), 1_000_000)
	testutil.Equal(t, "workers", f.workers.len(), 470)
	for i := range 20_000 {
		f.DropCard(keyOf(Instance{numberedEndpoint(i), uint64(i % 469)}), Instance{numberedEndpoint(i), uint64(i % 469)})
	}
	checkInvariants(t, f)
	testutil.Equal(t, "endpoints", len(f.endpoints), 1)
}

func TestLimitsAttachmentsToEightPerWorker(t *testing.T) {
	f := newFleet(everything, 4)
	for i := range 32 {
		register(f, numberedEndpoint(i), uint64(1+i%2))
	}
	wantRefused(t, f, nil)
	register(f, numberedEndpoint(32), 1)
	wantRefused(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 1})
	testutil.Equal(t, "attachments", f.footprint.attachments, 32)
	testutil.Equal(t, "needs sync while full", f.NeedsSync(), false)
	deregister(f, numberedEndpoint(0), 1)
	testutil.Equal(t, "needs sync with room", f.NeedsSync(), true)
}

func TestLimitsUnregisteredAttachments(t *testing.T) {
	f := newFleet(everything, 4)
	for i := range 20 {
		register(f, numberedEndpoint(i), 1)
	}
	for i := range 6 { // of another worker
		publishAt(f, numberedEndpoint(i), 2, 5)
	}
	wantRefused(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 2})
	for i := range 8 {
		register(f, numberedEndpoint(20+i), 1)
	}
	testutil.Equal(t, "attachments", f.footprint.attachments, 32)
	register(f, numberedEndpoint(28), 1) // evicts the attachments of worker 2
	wantRefused(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 3})
	testutil.Equal(t, "attachments", []int32{f.footprint.attachments, f.footprint.unregisteredAttachments, f.footprint.unregisteredRanks}, []int32{29, 0, 0})
	testutil.Equal(t, "workers", f.workers.len(), 1)
}

func TestLimitsUnregisteredWorkersToAQuarter(t *testing.T) {
	for limit, want := range map[int]int{100: 100, 10_000: 4096, 65_536: 16_384} {
		f := newFleet(everything, limit)
		for id := range limit + 1 {
			f.RecordHit(uint64(1+id), 1, 0)
		}
		testutil.Equal(t, fmt.Sprint("tracked of ", limit), f.workers.len(), want)
		wantRefused(t, f, map[stats.Limit]uint64{stats.WorkerLimit: uint64(limit + 1 - want)})
		register(f, generate, 1_000_000) // there is room for it
		testutil.Equal(t, "registered", f.IsRegistered(Instance{generate, 1_000_000}), true)
	}
	f := New(everything, 10_000, false)
	for id := range 10_000 {
		f.RecordHit(uint64(1+id), 1, 0)
	}
	testutil.Equal(t, "tracked without a registry", f.workers.len(), 10_000)
}

func TestLimitsStaticWorkersToASixteenth(t *testing.T) {
	for _, c := range []struct {
		registry    bool
		limit, want int
	}{{true, 10_000, 1024}, {true, 65_536, 4096}, {false, 10_000, 10_000}} {
		f := New(Target(generate), c.limit, c.registry)
		for i := range c.limit + 1 {
			f.RecordPollReply(loaded(generate, static(fmt.Sprint("s", i)), 5))
		}
		testutil.Equal(t, "static workers", f.workers.len(), c.want)
		testutil.Equal(t, "refused", f.Stats.Refused(stats.WorkerLimit), uint64(c.limit+1-c.want))
	}
}

func TestLimitsRanksOfOneWorker(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	for rank := range uint32(300) {
		f.RecordLoad(Origin{Endpoint: generate, Worker: 1, Rank: rank}, FromActiveLoad, Load{KVActive: Some[uint64](1)})
	}
	testutil.Equal(t, "ranks", len(f.Snapshot().Workers[0].Ranks), 256)
	wantRefused(t, f, map[stats.Limit]uint64{stats.RankLimit: 300 - 256})
}

// publishRanks publishes a load of each rank of each worker.
func publishRanks(f *Fleet, e Endpoint, workers, ranks int) {
	for id := range workers {
		for rank := range ranks {
			f.RecordLoad(Origin{Endpoint: e, Worker: uint64(1 + id), Rank: uint32(rank)}, FromActiveLoad, Load{KVActive: Some[uint64](1)})
		}
	}
}

func TestLimitsExtraRanks(t *testing.T) {
	for limit, want := range map[int]int{100: 8192, 65_536: 16_384} {
		f := newFleet(everything, limit)
		for id := range 80 {
			registerPublishing(f, generate, uint64(1+id))
		}
		publishRanks(f, generate, 80, 256)
		testutil.Equal(t, "ranks", f.footprint.ranks, int32(80+want))
		wantRefused(t, f, map[stats.Limit]uint64{stats.RankLimit: uint64(80*255 - want)})
		registerPublishing(f, generate, 999) // the first rank of a worker always has room
		publishAt(f, generate, 999, 5)
		wantRefused(t, f, map[stats.Limit]uint64{stats.RankLimit: uint64(80*255 - want)})
	}
}

func TestLimitsUnregisteredRanks(t *testing.T) {
	for limit, want := range map[int]int{2000: 1024, 65_536: 16_384} {
		for name, e := range map[string]Endpoint{"unknown endpoint": numberedEndpoint(0), "known endpoint": generate, "no endpoint": {}, "component only": {Component: "c"}} {
			f := newFleet(everything, limit)
			registerPublishing(f, generate, 1_000_000)
			publishRanks(f, e, 100, 200)
			testutil.Equal(t, "ranks, "+name, f.footprint.unregisteredRanks, int32(want))
			wantRefused(t, f, map[stats.Limit]uint64{stats.RankLimit: uint64(100*200 - want)})
		}
	}
}

func TestLimitsTrimRanksOnRegistration(t *testing.T) {
	f := newFleet(everything, 65_536)
	f.bounds.extraRanks = 100
	publishRanks(f, generate, 1, 80)
	publishRanks(f, Endpoint{}, 1, 70)
	registerPublishing(f, generate, 1)
	testutil.Equal(t, "ranks", f.footprint.ranks, 101)
	wantRefused(t, f, map[stats.Limit]uint64{stats.RankLimit: 49})
}

func TestLimitsKeysOfOneRegistration(t *testing.T) {
	f := newFleet(everything, largeLimit)
	in := Instance{generate, 1}
	for i := range 20 {
		f.Register(fmt.Sprint(i), in, Registration{NATS: true})
		f.SetCard(fmt.Sprint(i), in, Card{})
	}
	wantRefused(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 8})
	for i := range 16 {
		testutil.Equal(t, "registered", f.IsRegistered(in), true)
		f.Deregister(fmt.Sprint(i), in)
		f.DropCard(fmt.Sprint(i), in)
	}
	testutil.Equal(t, "registered after the accepted keys are deleted", f.IsRegistered(in), false)
	wantShown(t, f)
}

func TestLimitsGaps(t *testing.T) {
	var d Diagnostics
	for i := range uint64(20) {
		d.AddGap(Gap{After: i})
	}
	gaps := d.Gaps()
	testutil.Equal(t, "gaps", len(gaps), 8)
	testutil.Equal(t, "the oldest", gaps[0].After, 12)
}

func TestLimitsForwardPassCounterGap(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	from := Origin{Endpoint: generate, Worker: 1}
	f.RecordForwardPass(from, Pass{Counter: 1})
	f.RecordForwardPass(from, Pass{Counter: 1 + 4_294_967_296})
	testutil.Equal(t, "missed", f.Snapshot().Workers[0].Passes.V.Missed, 4_294_967_295)
	f.RecordForwardPass(from, Pass{Counter: 1 + 2*4_294_967_296 + 1})
	testutil.Equal(t, "missed", f.Snapshot().Workers[0].Passes.V.Missed, 4_294_967_295)
}

func TestLimitsTimesAreDocumented(t *testing.T) {
	t.Run("counters are kept for ten minutes after the last event", func(t *testing.T) {
		f := newFleet(Target(generate), largeLimit)
		f.RecordHit(1, 20, 5)
		after(f, 10*time.Minute-time.Second)
		wantShown(t, f, "backend/generate: 1 events", "  1 hits 5/20")
		after(f, 10*time.Minute)
		wantShown(t, f, "backend/generate: 1 events")
	})
	t.Run("an id is active for ten seconds after its last event", func(t *testing.T) {
		f := newFleet(Target(generate), largeLimit)
		publishAt(f, generate, 1, 5)
		after(f, 10*time.Second-time.Millisecond)
		wantShown(t, f, "backend/generate: 1 unregistered")
		after(f, 10*time.Second)
		wantShown(t, f, "backend/generate:")
	})
	t.Run("without a registry a worker is kept for a minute after its last event", func(t *testing.T) {
		f := New(Target(generate), largeLimit, false)
		f.Advance(start)
		publishAt(f, generate, 1, 40)
		after(f, time.Minute)
		wantShown(t, f, "backend/generate: 1 unregistered", "  1 up kv 40")
		after(f, time.Minute+time.Second)
		wantShown(t, f, "backend/generate:")
	})
}
