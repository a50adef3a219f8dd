package fleet

import (
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// registerPublishing registers workers of a release that publishes its load.
func registerPublishing(f *Fleet, e Endpoint, ids ...uint64) {
	for _, id := range ids {
		f.Register(keyOf(Instance{Endpoint: e, ID: id}), Instance{Endpoint: e, ID: id}, Registration{Publishes: true})
	}
}

func setCard(f *Fleet, e Endpoint, id uint64) {
	f.SetCard(keyOf(Instance{Endpoint: e, ID: id}), Instance{Endpoint: e, ID: id}, Card{Model: "m", KVTotal: Some[uint64](100), MaxSeqs: Some[uint64](8)})
}

// publishUnattributed records a load event of this many KV blocks in use without an endpoint.
func publishUnattributed(f *Fleet, id, blocks uint64) { publishAt(f, Endpoint{}, id, blocks) }

func publishAt(f *Fleet, e Endpoint, id, blocks uint64) {
	f.RecordLoad(Origin{Endpoint: e, Worker: id}, FromActiveLoad, Load{KVActive: Some(blocks)})
}

func TestEventsLoadLivesUntilDeregistered(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	publishAt(f, generate, 1, 40)
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40")
	after(f, 24*time.Hour) // the load does not change
	for range 5 {
		poll(f)
	}
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40")
	testutil.Equal(t, "age", f.Snapshot().Workers[0].LoadAge, 24*time.Hour)
	deregister(f, generate, 1)
	wantShown(t, f, "backend/generate:")
}

func TestEventsRestartDropsLoadKeepsHits(t *testing.T) {
	for name, at := range map[string]Endpoint{"named": generate, "not named": {}} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(everything, largeLimit)
			process := func(transport string) {
				f.Register(keyOf(Instance{Endpoint: generate, ID: 1}), Instance{Endpoint: generate, ID: 1}, Registration{Publishes: true, Transport: transport})
			}
			process("192.0.2.2:1000/1/lab/backend/generate")
			f.RecordHit(1, 8, 4)
			publishAt(f, at, 1, 40)
			process("192.0.2.2:1000/1/lab/backend/generate")
			wantShown(t, f, "backend/generate: 1 answering 1 events", "  1 up kv 40 hits 4/8")
			process("192.0.2.2:2000/1/lab/backend/generate")
			wantShown(t, f, "backend/generate: 1 silent 1 events", "  1 down hits 4/8")
			publishAt(f, at, 1, 5)
			wantShown(t, f, "backend/generate: 1 answering 1 events", "  1 up kv 5 hits 4/8")
		})
	}
}

func TestEventsLoadWaitsForRegistration(t *testing.T) {
	for name, at := range map[string]Endpoint{"named": generate, "of a component": {Component: "backend"}, "not named": {}} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(everything, largeLimit)
			publishAt(f, at, 1, 40)
			after(f, retention-time.Second)
			registerPublishing(f, generate, 1)
			wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40")
		})
	}
}

func TestEventsAfterDeregistrationShowNoWorker(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	publishAt(f, generate, 1, 40)
	deregister(f, generate, 1)
	publishAt(f, generate, 1, 41)
	wantShown(t, f, "backend/generate: 1 unregistered")
	after(f, activeAfterEvent)
	wantShown(t, f, "backend/generate:")
	registerPublishing(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 41")
	deregister(f, generate, 1)
	registerPublishing(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down") // its load was deleted with its key
}

func TestEventsWithoutEndpointFollowTheLoad(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	registerPublishing(f, loadMetrics, 1)
	publishUnattributed(f, 1, 40)
	f.RecordHit(1, 20, 5)
	// It is unknown at which endpoint its load is, so the first one by name counts.
	wantShown(t, f, "backend/generate: 1 answering 1 events", "  1 up kv 40 hits 5/20")
	setCard(f, loadMetrics, 1)
	wantShown(t, f, "backend/generate: not counted 1 events", "backend/load_metrics: 1 answering mean 40", "  1 up kv 40 hits 5/20")
	// After a poll reply this is certain.
	f.BeginPoll()
	f.RecordPollReply(loaded(generate, lease(1), 50))
	wantShown(t, f, "backend/generate: 1 answering 1 events mean 50", "  1 up kv 50 hits 5/20", "backend/load_metrics: 1 silent", "  1 down")
}

// TestEventsPolledLoadTakesPrecedence checks workers that both publish and answer polls
// (0.4.1 to 0.5.1). Their load is that of the poll as long as they answer.
func TestEventsPolledLoadTakesPrecedence(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	poll(f, loadless(generate, lease(1)), loaded(loadMetrics, lease(1), 10))
	load := loaded(loadMetrics, lease(1), 11).Load
	source := func(want string) {
		t.Helper()
		testutil.Equal(t, "source", f.Snapshot().Workers[0].Source.String(), want)
	}
	for n := range uint64(10) {
		f.RecordLoad(Origin{Worker: 1}, FromLoadEvent, load)
		source("stats")
		poll(f, loadless(generate, lease(1)), loaded(loadMetrics, lease(1), 12+n))
		source("stats")
		wantShown(t, f, fmt.Sprintf("backend/load_metrics: 1 answering mean %d", 12+n), fmt.Sprintf("  1 up kv %d", 12+n))
		after(f, time.Duration(n)*time.Second)
	}
	after(f, 38*time.Second)
	f.RecordLoad(Origin{Worker: 1}, FromLoadEvent, load)
	source("stats")
	after(f, 39*time.Second)
	f.RecordLoad(Origin{Worker: 1}, FromLoadEvent, load) // half a minute after the last reply
	source("load_event")
	wantShown(t, f, "backend/load_metrics: 1 answering mean 11", "  1 up kv 11")
	poll(f, loadless(generate, lease(1)), loaded(loadMetrics, lease(1), 12))
	source("stats")
	f.RecordLoad(Origin{Worker: 1}, FromLoadEvent, load)
	poll(f)
	poll(f) // the worker is dead: its next reply would have a load
	wantShown(t, f, "backend/load_metrics: 1 silent", "  1 down")
}

func TestEventsReplyWithoutLoadKeepsPublishedLoad(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	poll(f, loadless(generate, lease(1)))
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	publishUnattributed(f, 1, 40)
	poll(f, loadless(generate, lease(1)))
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40")
	poll(f)
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40")
	poll(f) // the worker was killed: its key stays until its lease expires
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	poll(f, loadless(generate, lease(1))) // it was only slow: it does not repeat its load
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40")
	poll(f)
	poll(f)
	publishUnattributed(f, 1, 41)
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 41")
}

func TestEventsPublishingWorkerIsNotAwaited(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	register(f, generate, 2)
	f.BeginPoll()
	f.RecordPollReply(loaded(generate, lease(2), 5))
	testutil.Equal(t, "answered", f.PollAnswered(), true)
}

func TestEventsTotalsComeFromModelCard(t *testing.T) {
	f := newFleet(everything, largeLimit)
	setCard(f, generate, 1) // before the registration
	wantShown(t, f, "backend/generate:")
	registerPublishing(f, generate, 1)
	registerPublishing(f, generate2, 1) // has no card, so no load is expected
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	publishAt(f, generate, 1, 40)
	wantShown(t, f, "backend/generate: 1 answering mean 40", "  1 up kv 40")
	w := f.Snapshot().Workers[0]
	testutil.Equal(t, "load", w.Load.V, Load{KVActive: Some[uint64](40), KVTotal: Some[uint64](100), TotalSlots: Some[uint64](8), CacheUsage: Some(0.4)})
	testutil.Equal(t, "model", w.Model, "m")
	f.DropCard(keyOf(Instance{Endpoint: generate, ID: 1}), Instance{Endpoint: generate, ID: 1})
	testutil.Equal(t, "load", f.Snapshot().Workers[0].Load.V, Load{KVActive: Some[uint64](40)})
	setCard(f, generate, 1)
	deregister(f, generate, 1)
	deregister(f, generate2, 1)
	wantShown(t, f, "backend/generate:")
	f.DropCard(keyOf(Instance{Endpoint: generate, ID: 1}), Instance{Endpoint: generate, ID: 1})
	wantShown(t, f, "backend/generate:")
	testutil.Equal(t, "workers", f.workers.len(), 0)
}

func TestEventsRanksAreSummed(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	setCard(f, generate, 1)
	for rank := range uint32(2) {
		f.RecordLoad(Origin{Endpoint: generate, Worker: 1, Rank: rank}, FromLoadEvent, Load{
			KVActive: Some(uint64(10 + rank)), KVTotal: Some[uint64](50), ActiveSlots: Some(uint64(rank)), Waiting: Some[uint64](3),
			CacheUsage: Some(0.2 + 0.2*float64(rank)), HitRate: Some(0.5),
		})
	}
	w := f.Snapshot().Workers[0]
	rank := func(number uint32) RankState { // TotalSlots is from the card
		return RankState{Number: number, Source: FromLoadEvent, Load: Load{
			KVActive: Some(10 + uint64(number)), KVTotal: Some[uint64](50), ActiveSlots: Some(uint64(number)), TotalSlots: Some[uint64](8),
			Waiting: Some[uint64](3), CacheUsage: Some(0.2 + 0.2*float64(number)), HitRate: Some(0.5),
		}}
	}
	testutil.Equal(t, "ranks", w.Ranks, []RankState{rank(0), rank(1)})
	w.Load.V.CacheUsage.V = float64(float32(w.Load.V.CacheUsage.V))
	testutil.Equal(t, "load", w.Load.V, Load{
		KVActive: Some[uint64](21), KVTotal: Some[uint64](100), ActiveSlots: Some[uint64](1), TotalSlots: Some[uint64](16), Waiting: Some[uint64](6),
		CacheUsage: Some(float64(float32(0.3))), HitRate: Some(0.5),
	})
	for rank := range uint32(2 * maxRanks) {
		f.RecordLoad(Origin{Endpoint: generate, Worker: 1, Rank: rank}, FromActiveLoad, Load{KVActive: Some[uint64](1)})
	}
	testutil.Equal(t, "ranks", len(f.Snapshot().Workers[0].Ranks), maxRanks)
	testutil.Equal(t, "over the limit", f.Stats.AllRefused(), uint64(maxRanks))
}

func TestEventsForwardPassesCountRequestsAndGaps(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	setCard(f, generate, 1)
	from := Origin{Endpoint: generate, Worker: 1}
	for _, p := range []Pass{
		{Counter: 7, Seconds: 0.5, Running: 2, Waiting: 1, PrefillTokens: 100, DecodeTokens: 1},
		{Counter: 8, Running: 2},     // idle: not a pass
		{Counter: 12, Seconds: 0.25}, // 9, 10 and 11 are missing
		{Counter: 3, Seconds: 0.25},  // the counter restarted
		{Counter: 4, Seconds: 0.25},
		{Counter: 0, Seconds: 0.25},                                             // the engine does not count
		{Counter: 2, Seconds: 0.25, OutOfOrder: true, Running: 99},              // reports an earlier time
		{Counter: 1 << 63, Running: 5},                                          // the gap is too large to count
		{Counter: 1<<63 + 2, Running: 6, QueuedTokens: 9, ScheduledKVTokens: 8}, // one is missing
	} {
		f.RecordForwardPass(from, p)
	}
	w := f.Snapshot().Workers[0]
	testutil.Equal(t, "load", w.Load.V, Load{ActiveSlots: Some[uint64](6), Waiting: Some[uint64](0), TotalSlots: Some[uint64](8), KVTotal: Some[uint64](100)})
	testutil.Equal(t, "source", w.Source.String(), "fpm")
	testutil.Equal(t, "up", w.Up, true)
	seconds := w.Passes.V.Seconds
	testutil.Equal(t, "durations", []float64{float64(seconds.Count), seconds.Sum}, []float64{6, 1.75})
	w.Passes.V.Seconds = stats.Histogram{}
	testutil.Equal(t, "passes", w.Passes.V, Passes{Count: 6, Missed: 4, PrefillTokens: 100, DecodeTokens: 1, QueuedTokens: 9, ScheduledKVTokens: 8})
}

func TestEventsOfUnwatchedEndpointsAreDropped(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	registerPublishing(f, generate2, 1)
	registerPublishing(f, prefill, 2)
	for _, e := range []Endpoint{generate2, prefill, {Component: "prefill"}} {
		publishAt(f, e, 9, 40)
		f.RecordForwardPass(Origin{Endpoint: e, Worker: 9}, Pass{Running: 1})
	}
	wantShown(t, f, "backend/generate:")
	testutil.Equal(t, "workers", f.workers.len(), 2)
	found, elsewhere := f.FindPublishers()
	testutil.Equal(t, "publishing", found, false)
	testutil.Equal(t, "elsewhere", elsewhere, nil)
	registerPublishing(f, generate, 1)
	setCard(f, generate2, 1)
	found, elsewhere = f.FindPublishers()
	testutil.Equal(t, "publishing", found, true)
	testutil.Equal(t, "elsewhere", elsewhere, []string{"generate2"})
}

func TestEventsWithoutRegistryExpireAfterAMinute(t *testing.T) {
	f := New(backend, largeLimit, false)
	f.Advance(start)
	publishAt(f, generate, 1, 40)
	wantShown(t, f, "backend/generate: 1 unregistered", "  1 up kv 40")
	after(f, unconfirmedRetention+time.Second)
	wantShown(t, f) // an event alone does not prove that the endpoint exists
}

func TestEventsDoNotExpireDuringRegistryOutage(t *testing.T) {
	f := newFleet(everything, largeLimit)
	f.Stats.Etcd.MarkUsed()
	publishAt(f, generate, 1, 40)
	after(f, 2*retention)
	testutil.Equal(t, "workers", f.workers.len(), 1)
	f.Stats.Etcd.SetConnected(true)
	after(f, 2*retention+time.Second)
	testutil.Equal(t, "workers", f.workers.len(), 0)
}

func TestEventsRequestsCountForTheirWorkers(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, prefill, 1)
	registerPublishing(f, generate, 2)
	some := Some[uint64]
	f.RecordRequest(Request{Prefill: some(1), Decode: some(2), ISLBlocks: some(20), OverlapBlocks: some(5), FirstToken: Some(0.5), InterToken: Some(0.02), Duration: Some(3.0)})
	f.RecordRequest(Request{Prefill: some(1), FirstToken: Some(0.25)})
	f.RecordRequest(Request{Prefill: some(9), Decode: some(9), ISLBlocks: some(20), OverlapBlocks: some(5)})
	wantShown(t, f, "backend/generate: 1 silent", "  2 down", "prefill/generate: 1 silent 1 events", "  1 down hits 5/20")
	testutil.Equal(t, "foreign events", f.Stats.ForeignEvents.Load(), uint64(1))
	s := f.Snapshot()
	testutil.Equal(t, "decode", s.Workers[0].Timings, Timings{InterToken: Timing{1, 0.02}, Duration: Timing{1, 3}})
	testutil.Equal(t, "prefill", s.Workers[1].Timings, Timings{FirstToken: Timing{2, 0.75}})
	testutil.Equal(t, "requests", s.Endpoints[0].Requests.Duration.Count, 1)
	testutil.Equal(t, "requests", s.Endpoints[1].Requests.FirstToken.Count, 2)
	deregister(f, prefill, 1)
	f.RecordRequest(Request{Prefill: some(1), FirstToken: Some(0.25)})
	testutil.Equal(t, "foreign events", f.Stats.ForeignEvents.Load(), uint64(2))
}
