package fleet

import (
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// The numbers here are those of SECURITY.md, and no names of constants: a change of
// one of these is a change of what was promised.

// at is another endpoint for each number.
func at(n int) Endpoint { return Endpoint{Component: fmt.Sprint("c", n), Name: "generate"} }

func turnedAway(t *testing.T, f *Fleet, want map[stats.Limit]uint64) {
	t.Helper()
	audit(t, f)
	for _, l := range stats.Limits() {
		testutil.Equal(t, "turned away at the limit of "+l.String(), f.Tally.TurnedAway(l), want[l])
	}
}

// comeAndGo has so many workers register, one after the other, each at another endpoint,
// where it has a load.
func comeAndGo(f *Fleet, first, n int) {
	for i := first; i < first+n; i++ {
		publishing(f, at(i), uint64(i+1))
		publishedAt(f, at(i), uint64(i+1), 5)
		deregister(f, at(i), uint64(i+1))
	}
}

func TestEndpointsThatComeAndGoAreBounded(t *testing.T) {
	f := fleetAt(Target(generate), 1) // the one of the flags is beside them
	f.target = everything
	comeAndGo(f, 0, 3000)
	testutil.Equal(t, "endpoints", len(f.endpoints), 1024+1)
	turnedAway(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 3000 - 1024})
	testutil.Equal(t, "the last but 1,023 is remembered", f.endpoints[at(3000-1024)] != nil, true)
	testutil.Equal(t, "the one before is", f.endpoints[at(3000-1025)] != nil, false)
	after(f, 10*time.Minute-time.Second)
	testutil.Equal(t, "endpoints", len(f.endpoints), 1024+1)
	after(f, 10*time.Minute)
	testutil.Equal(t, "endpoints after ten minutes", len(f.endpoints), 1)
}

func TestRememberedEndpointsAreBoundedHoweverManyThereMayBe(t *testing.T) {
	f := fleetAt(everything, 10_000)
	comeAndGo(f, 0, 3000)
	testutil.Equal(t, "endpoints", len(f.endpoints), 3000)
	after(f, time.Second)
	testutil.Equal(t, "endpoints a second later", len(f.endpoints), 1024)
	turnedAway(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 3000 - 1024})
}

func TestThereAreAsManyEndpointsAsWorkers(t *testing.T) {
	f := fleetAt(everything, 1500)
	for i := range 1500 {
		register(f, at(i), uint64(i+1))
	}
	turnedAway(t, f, nil)
	register(f, generate, 1)
	turnedAway(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 1})
	testutil.Equal(t, "listed anew while full", f.WantsSync(), false)
	deregister(f, at(7), 8)
	testutil.Equal(t, "listed anew with room", f.WantsSync(), true)
	register(f, generate, 1)
	turnedAway(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 1})
}

func TestWhatRegistersPushesOutWhatIsLeftAndThenWhatIsUnregistered(t *testing.T) {
	f := fleetAt(everything, 2000)
	f.bounds.endpoints = 4
	comeAndGo(f, 0, 1)
	register(f, at(1), 2)
	publishedAt(f, at(1), 99, 5) // though it is not registered
	deregister(f, at(1), 2)
	f.Report(loaded(at(2), static("a"), 5))
	register(f, at(3), 4)
	turnedAway(t, f, nil)
	shows(t, f, "c0/generate:", "c1/generate: 1 unregistered", "c2/generate: 1 unregistered mean 5", "  a up kv 5", "c3/generate: 1 silent", "  4 down")
	register(f, at(4), 5) // for the one that was left
	register(f, at(5), 6) // for the one that only an event keeps
	turnedAway(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 2})
	shows(t, f, "c2/generate: 1 unregistered mean 5", "  a up kv 5", "c3/generate: 1 silent", "  4 down", "c4/generate: 1 silent", "  5 down", "c5/generate: 1 silent", "  6 down")
	register(f, at(6), 7) // not for one that answers, and registers nowhere
	turnedAway(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 3})
	testutil.Equal(t, "endpoints", len(f.endpoints), 4)
	f.Report(loaded(at(7), static("b"), 5))
	turnedAway(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 4})
}

func TestHitsOfAnEndpointThatIsPushedOutAreKept(t *testing.T) {
	f := fleetAt(everything, 2000)
	f.bounds.endpoints = 1
	register(f, at(0), 1)
	f.Hit(1, 20, 5)
	deregister(f, at(0), 1)
	shows(t, f, "c0/generate: 1 events", "  1 hits 5/20")
	register(f, at(1), 2)
	shows(t, f, "c1/generate: 1 silent", "  2 down", "unknown/unknown: not counted", "  1 hits 5/20")
}

func TestStaticWorkersMakeAThousandEndpoints(t *testing.T) {
	for registry, want := range map[bool]int{true: 1024, false: 2000} {
		f := New(everything, 2000, registry)
		f.Advance(start)
		for i := range 2001 {
			f.Report(loaded(at(i), static(fmt.Sprint("a", i/64)), 5))
		}
		testutil.Equal(t, fmt.Sprint("endpoints, with a registry: ", registry), len(f.endpoints), want)
		if registry {
			turnedAway(t, f, map[stats.Limit]uint64{stats.EndpointLimit: uint64(2001 - want)})
			register(f, generate, 1)
			testutil.Equal(t, "endpoints with one that is registered", len(f.endpoints), want+1)
			continue
		}
		turnedAway(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 1})
		f.Publish(Origin{Endpoint: generate, Worker: 7}, FromActiveLoad, Load{KVActive: Some[uint64](5)})
		turnedAway(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 2})
	}
}

func TestEndpointsThatTheRegistryHasNoMoreAreBounded(t *testing.T) {
	f := fleetAt(everything, 10_000)
	for i := range 2000 {
		publishing(f, at(i), uint64(i+1))
		publishedAt(f, at(i), uint64(1_000_000+i), 5) // of another
		deregister(f, at(i), uint64(i+1))
	}
	testutil.Equal(t, "endpoints", f.standing[unregistered], 2000)
	after(f, time.Second)
	testutil.Equal(t, "endpoints a second later", f.standing[unregistered], 1024)
	turnedAway(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 2000 - 1024})
}

func TestModelCardsAreBounded(t *testing.T) {
	f := fleetAt(everything, 1500)
	for i := range 20_000 {
		card(f, at(i), uint64(i%469))
	}
	testutil.Equal(t, "endpoints", len(f.endpoints), 1500)
	turnedAway(t, f, map[stats.Limit]uint64{stats.EndpointLimit: 20_000 - 1500})
	register(f, at(0), 1_000_000)
	testutil.Equal(t, "workers", f.workers.len(), 470)
	for i := range 20_000 {
		f.DropCard(keyOf(Instance{at(i), uint64(i % 469)}), Instance{at(i), uint64(i % 469)})
	}
	audit(t, f)
	testutil.Equal(t, "endpoints", len(f.endpoints), 1)
}

func TestThereAreEightAttachmentsForEachWorkerThatMayBe(t *testing.T) {
	f := fleetAt(everything, 4)
	for i := range 32 {
		register(f, at(i), uint64(1+i%2))
	}
	turnedAway(t, f, nil)
	register(f, at(32), 1)
	turnedAway(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 1})
	testutil.Equal(t, "attachments", f.held.attachments, 32)
	testutil.Equal(t, "listed anew while full", f.WantsSync(), false)
	deregister(f, at(0), 1)
	testutil.Equal(t, "listed anew with room", f.WantsSync(), true)
}

func TestUnregisteredAttachmentsAreAsManyAsWorkersAndGiveWay(t *testing.T) {
	f := fleetAt(everything, 4)
	for i := range 20 {
		register(f, at(i), 1)
	}
	for i := range 6 { // as of another worker
		publishedAt(f, at(i), 2, 5)
	}
	turnedAway(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 2})
	for i := range 8 {
		register(f, at(20+i), 1)
	}
	testutil.Equal(t, "attachments", f.held.attachments, 32)
	register(f, at(28), 1) // pushes them out
	turnedAway(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 3})
	testutil.Equal(t, "attachments", []int32{f.held.attachments, f.held.unregistered, f.held.strays}, []int32{29, 0, 0})
	testutil.Equal(t, "workers", f.workers.len(), 1)
}

func TestIdsThatTheRegistryDoesNotHaveAreAQuarter(t *testing.T) {
	for limit, want := range map[int]int{100: 100, 10_000: 4096, 65_536: 16_384} {
		f := fleetAt(everything, limit)
		for id := range limit + 1 {
			f.Hit(uint64(1+id), 1, 0)
		}
		testutil.Equal(t, fmt.Sprint("tracked of ", limit), f.workers.len(), want)
		turnedAway(t, f, map[stats.Limit]uint64{stats.WorkerLimit: uint64(limit + 1 - want)})
		register(f, generate, 1_000_000) // there is room for it
		testutil.Equal(t, "registered", f.IsRegistered(Instance{generate, 1_000_000}), true)
	}
	f := New(everything, 10_000, false)
	for id := range 10_000 {
		f.Hit(uint64(1+id), 1, 0)
	}
	testutil.Equal(t, "tracked without a registry", f.workers.len(), 10_000)
}

func TestStaticWorkersAreASixteenthWhereThereIsARegistry(t *testing.T) {
	for _, c := range []struct {
		registry    bool
		limit, want int
	}{{true, 10_000, 1024}, {true, 65_536, 4096}, {false, 10_000, 10_000}} {
		f := New(Target(generate), c.limit, c.registry)
		for i := range c.limit + 1 {
			f.Report(loaded(generate, static(fmt.Sprint("s", i)), 5))
		}
		testutil.Equal(t, "static workers", f.workers.len(), c.want)
		testutil.Equal(t, "turned away", f.Tally.TurnedAway(stats.WorkerLimit), uint64(c.limit+1-c.want))
	}
}

func TestTheRanksOfOneWorkerAreBounded(t *testing.T) {
	f := fleetAt(everything, plenty)
	publishing(f, generate, 1)
	for rank := range uint32(300) {
		f.Publish(Origin{Endpoint: generate, Worker: 1, Rank: rank}, FromActiveLoad, Load{KVActive: Some[uint64](1)})
	}
	testutil.Equal(t, "ranks", len(f.Snapshot().Workers[0].Ranks), 256)
	turnedAway(t, f, map[stats.Limit]uint64{stats.RankLimit: 300 - 256})
}

// manyRanks has workers publish a load of each of so many ranks.
func manyRanks(f *Fleet, e Endpoint, workers, ranks int) {
	for id := range workers {
		for rank := range ranks {
			f.Publish(Origin{Endpoint: e, Worker: uint64(1 + id), Rank: uint32(rank)}, FromActiveLoad, Load{KVActive: Some[uint64](1)})
		}
	}
}

func TestRanksBesideTheFirstOfAllWorkersAreBounded(t *testing.T) {
	for limit, want := range map[int]int{100: 8192, 65_536: 16_384} {
		f := fleetAt(everything, limit)
		for id := range 80 {
			publishing(f, generate, uint64(1+id))
		}
		manyRanks(f, generate, 80, 256)
		testutil.Equal(t, "ranks", f.held.ranks, int32(80+want))
		turnedAway(t, f, map[stats.Limit]uint64{stats.RankLimit: uint64(80*255 - want)})
		publishing(f, generate, 999) // the first rank of each always has room
		publishedAt(f, generate, 999, 5)
		turnedAway(t, f, map[stats.Limit]uint64{stats.RankLimit: uint64(80*255 - want)})
	}
}

func TestRanksOfWorkersThatAreNotRegisteredAreBounded(t *testing.T) {
	for limit, want := range map[int]int{2000: 1024, 65_536: 16_384} {
		for name, e := range map[string]Endpoint{"nowhere": at(0), "somewhere": generate, "unsaid": {}, "of a component": {Component: "c"}} {
			f := fleetAt(everything, limit)
			publishing(f, generate, 1_000_000)
			manyRanks(f, e, 100, 200)
			testutil.Equal(t, "ranks "+name, f.held.strays, int32(want))
			turnedAway(t, f, map[stats.Limit]uint64{stats.RankLimit: uint64(100*200 - want)})
		}
	}
}

func TestRanksThatBecomeTooManyByARegistrationAreTrimmed(t *testing.T) {
	f := fleetAt(everything, 65_536)
	f.bounds.furtherRanks = 100
	manyRanks(f, generate, 1, 80)
	manyRanks(f, Endpoint{}, 1, 70)
	publishing(f, generate, 1)
	testutil.Equal(t, "ranks", f.held.ranks, 101)
	turnedAway(t, f, map[stats.Limit]uint64{stats.RankLimit: 49})
}

func TestTheKeysOfOneRegistrationAreBounded(t *testing.T) {
	f := fleetAt(everything, plenty)
	in := Instance{generate, 1}
	for i := range 20 {
		f.Register(fmt.Sprint(i), in, Registration{NATS: true})
		f.SetCard(fmt.Sprint(i), in, Card{})
	}
	turnedAway(t, f, map[stats.Limit]uint64{stats.AttachmentLimit: 8})
	for i := range 16 {
		testutil.Equal(t, "registered", f.IsRegistered(in), true)
		f.Deregister(fmt.Sprint(i), in)
		f.DropCard(fmt.Sprint(i), in)
	}
	testutil.Equal(t, "registered when the keys are gone that had room", f.IsRegistered(in), false)
	shows(t, f)
}

func TestTheLastGapsAreKept(t *testing.T) {
	var n Notes
	for i := range uint64(20) {
		n.Missed(Gap{After: i})
	}
	gaps := n.Gaps()
	testutil.Equal(t, "gaps", len(gaps), 8)
	testutil.Equal(t, "the oldest", gaps[0].After, 12)
}

func TestACounterThatSkipsTooFarBeganAnew(t *testing.T) {
	f := fleetAt(everything, plenty)
	publishing(f, generate, 1)
	from := Origin{Endpoint: generate, Worker: 1}
	f.Pass(from, Pass{Counter: 1})
	f.Pass(from, Pass{Counter: 1 + 4_294_967_296})
	testutil.Equal(t, "missed", f.Snapshot().Workers[0].Passes.V.Missed, 4_294_967_295)
	f.Pass(from, Pass{Counter: 1 + 2*4_294_967_296 + 1})
	testutil.Equal(t, "missed", f.Snapshot().Workers[0].Passes.V.Missed, 4_294_967_295)
}

func TestTimesAreThoseOfTheREADME(t *testing.T) {
	t.Run("ten minutes after the last event counters go", func(t *testing.T) {
		f := fleetAt(Target(generate), plenty)
		f.Hit(1, 20, 5)
		after(f, 10*time.Minute-time.Second)
		shows(t, f, "backend/generate: 1 events", "  1 hits 5/20")
		after(f, 10*time.Minute)
		shows(t, f, "backend/generate: 1 events")
	})
	t.Run("ten seconds after its last event an id does not speak", func(t *testing.T) {
		f := fleetAt(Target(generate), plenty)
		publishedAt(f, generate, 1, 5)
		after(f, 10*time.Second-time.Millisecond)
		shows(t, f, "backend/generate: 1 unregistered")
		after(f, 10*time.Second)
		shows(t, f, "backend/generate:")
	})
	t.Run("a minute after its last event a worker goes where there is no registry", func(t *testing.T) {
		f := New(Target(generate), plenty, false)
		f.Advance(start)
		publishedAt(f, generate, 1, 40)
		after(f, time.Minute)
		shows(t, f, "backend/generate: 1 unregistered", "  1 up kv 40")
		after(f, time.Minute+time.Second)
		shows(t, f, "backend/generate:")
	})
}

// TestAHistogramIsBounded whatever the durations are: 2 kB, and 3 with what else there is of
// a rank.
func TestAHistogramIsBounded(t *testing.T) {
	h := stats.NewHistogram(stats.PassBounds)
	for _, seconds := range []float64{0, 1e-9, 1e-6, 1.001e-6, 1e-3, 1, 8191, 8193, 1e9, 1e300} {
		h.Observe(seconds)
	}
	testutil.Equal(t, "native buckets", len(h.Fine), 264)
	testutil.Equal(t, "as good as nothing", h.Zero, 3)
	testutil.Equal(t, "in the last one", h.Fine[263], 4)
}
