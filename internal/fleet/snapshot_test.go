package fleet

import (
	"math"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

func TestSnapshotIsSorted(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, prefill, 2)
	register(f, loadMetrics, 10, 9, 1)
	register(f, generate, 7)
	poll(f, loaded(loadMetrics, static("a"), 10))
	wantShown(t, f,
		"backend/generate: 1 silent", "  7 down",
		"backend/load_metrics: 3 silent 1 unregistered mean 10", "  1 down", "  10 down", "  9 down", "  a up kv 10",
		"prefill/generate: 1 silent", "  2 down")
}

func TestSnapshotHoldsTheWholeRow(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 0x7d7ba2096ef23e30)
	r := loaded(generate, lease(0x7d7ba2096ef23e30), 10)
	r.Load.HitRate, r.Load.CacheUsage = Some(0.75), Some(0.1)
	poll(f, r)
	f.RecordHit(0x7d7ba2096ef23e30, 20, 5)
	after(f, 3*time.Second)
	testutil.Equal(t, "snapshot", f.Snapshot(), Snapshot{
		Endpoints: []EndpointState{{
			Endpoint: generate, Counted: true, Answering: 1, Rows: 1, HitEvents: 1, Blocks: Spread{N: 1, Mean: 10, Min: 10, Max: 10}, Usage: Spread{N: 1, Mean: 0.1, Min: 0.1, Max: 0.1},
		}},
		Workers: []WorkerState{{
			Endpoint: generate, ID: lease(0x7d7ba2096ef23e30), Label: "9041998838276177456", Service: "dynamo_backend",
			State: StateAnswering, Listed: true, Up: true, Load: Some(r.Load), LoadAge: 3 * time.Second,
			Hits: Some(Hits{ISLBlocks: 20, OverlapBlocks: 5, Events: 1}),
		}},
	})
}

func TestSnapshotListsUnregistered(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 2, 3)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, lease(2), 20))
	f.RecordHit(2, 20, 5)
	deregister(f, generate, 2)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, lease(2), 30), malformed(generate, lease(3)))
	wantShown(t, f, "backend/generate: 1 answering 1 unregistered 1 malformed 1 events mean 10", "  1 up kv 10", "  2 hits 5/20", "  3 up")
	s := f.Snapshot()
	var states []State
	for _, w := range s.Workers {
		states = append(states, w.State)
	}
	testutil.Equal(t, "states", states, []State{StateAnswering, 0, StateMalformed})
	testutil.Equal(t, "unregistered workers", s.Unregistered, []WorkerState{{
		Endpoint: generate, ID: lease(2), Label: "2", Service: "dynamo_backend", State: StateUnregistered, Listed: true, Up: true,
		Load: Some(withUsage(loaded(generate, lease(2), 30).Load, 0.3)),
	}})
	register(f, generate, 2)
	f.SnapshotInto(&s)
	testutil.Equal(t, "unregistered workers after one has registered again", len(s.Unregistered), 0)
}

func TestSnapshotBriefOmitsHistograms(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	f.RecordForwardPass(Origin{Endpoint: generate, Worker: 1}, Pass{Counter: 1, Seconds: 0.5, Running: 2, QueuedTokens: 9})
	f.RecordRequest(Request{Decode: Some[uint64](1), Duration: Some(3.0)})
	after(f, 3*time.Second)
	whole, brief := f.Snapshot(), Snapshot{Brief: true}
	f.SnapshotInto(&brief)
	testutil.Equal(t, "age of the last pass", whole.Workers[0].Passes.V.Age, 3*time.Second)
	whole.Brief = true
	whole.Workers[0].Passes.V.Seconds, whole.Endpoints[0].Requests = stats.Histogram{}, nil
	testutil.Equal(t, "everything else", brief, whole)
}

func TestSnapshotIsACopy(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	s := f.Snapshot()
	s.Workers[0].Load.V.KVActive.V = 99
	s.Endpoints[0].Answering = 99
	wantShown(t, f, "backend/generate: 1 answering mean 10", "  1 up kv 10")
}

func TestSnapshotLoadAge(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	age := func(want time.Duration) {
		t.Helper()
		testutil.Equal(t, "age", f.Snapshot().Workers[0].LoadAge, want)
	}
	age(0)
	after(f, 90*time.Second)
	age(90 * time.Second)
	f.RecordPollReply(loaded(generate, lease(1), 10))
	age(0)
	after(f, 89*time.Second) // two goroutines may advance the clock, one of them slightly late
	age(0)
}

func TestSnapshotOfEmptyFleet(t *testing.T) {
	f := newFleet(everything, largeLimit)
	wantShown(t, f)
	f = newFleet(Target(generate), largeLimit)
	poll(f)
	wantShown(t, f, "backend/generate:")
	testutil.Equal(t, "blocks", f.Snapshot().Endpoints[0].Blocks, Spread{})
}

func TestSnapshotSpread(t *testing.T) {
	for _, c := range []struct {
		name      string
		blocks    []uint64
		want      Spread
		imbalance Opt[float64]
	}{
		{"one worker", []uint64{7}, Spread{N: 1, Mean: 7, Min: 7, Max: 7}, Some(1.0)},
		{"the original's", []uint64{100, 10, 40}, Spread{N: 3, Mean: 50, Std: 37.416573867739416, Min: 10, Max: 100}, Some(2.0)},
		{"equal", []uint64{3, 3, 3}, Spread{N: 3, Mean: 3, Min: 3, Max: 3}, Some(1.0)},
		{"idle", []uint64{0, 0}, Spread{N: 2}, Opt[float64]{}},
		{"huge", []uint64{math.MaxUint64, math.MaxUint64}, Spread{N: 2, Mean: 1 << 64, Min: 1 << 64, Max: 1 << 64}, Some(1.0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFleet(everything, largeLimit)
			for i, blocks := range c.blocks {
				register(f, generate, uint64(i+1))
				f.RecordPollReply(loaded(generate, lease(uint64(i+1)), blocks))
			}
			got := f.Snapshot().Endpoints[0]
			testutil.Equal(t, "blocks", got.Blocks, c.want)
			testutil.Equal(t, "imbalance", got.Blocks.Imbalance(), c.imbalance)
		})
	}
}

func TestSnapshotSpreadOfShownPairs(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 2)
	partial := loaded(generate, lease(2), 90)
	partial.Load.KVTotal = Opt[uint64]{}
	partial.Load.ActiveSlots = Some[uint64](1)
	poll(f, loaded(generate, lease(1), 10), partial)
	wantShown(t, f, "backend/generate: 2 answering mean 10", "  1 up kv 10", "  2 up kv 90")
	w := f.Snapshot().Workers
	testutil.Equal(t, "worker 1 shows blocks", w[0].ShowsBlocks(), true)
	testutil.Equal(t, "worker 2 shows blocks", w[1].ShowsBlocks(), false)
	testutil.Equal(t, "worker 2 shows slots", w[1].ShowsSlots(), false)
	partial.Load.TotalSlots = Some[uint64](2)
	f.RecordPollReply(partial)
	testutil.Equal(t, "worker 2 shows slots, both known", f.Snapshot().Workers[1].ShowsSlots(), true)

	deregister(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 answering", "  2 up kv 90")
}

func TestSnapshotShowsEmptyEndpointTenMinutes(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	after(f, time.Hour)
	deregister(f, generate, 1)
	after(f, time.Hour+retention-time.Second)
	wantShown(t, f, "backend/generate:")
	after(f, time.Hour+retention)
	wantShown(t, f)
	testutil.Equal(t, "endpoints", len(f.endpoints), 0)
}

func TestSnapshotKeepsEndpointInUseAgain(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	f.RecordHit(1, 20, 5)
	deregister(f, generate, 1)
	after(f, retention-time.Second)
	register(f, generate, 2)
	after(f, time.Hour)
	wantShown(t, f, "backend/generate: 1 silent 1 events", "  2 down")
}

func TestSnapshotDropsEndpointWithoutData(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	poll(f, loadless(generate, lease(1)))
	deregister(f, generate, 1)
	wantShown(t, f)
	testutil.Equal(t, "endpoints", len(f.endpoints), 0)
}

func TestSnapshotAlwaysShowsNamedEndpoint(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	deregister(f, generate, 1)
	after(f, 24*time.Hour)
	wantShown(t, f, "backend/generate:")
}

func TestSnapshotUnknownEndpointExpires(t *testing.T) {
	f := newFleet(everything, largeLimit)
	f.RecordHit(977, 3, 1)
	after(f, retention)
	wantShown(t, f, "unknown/unknown: not counted 1 events")
	after(f, 2*retention)
	wantShown(t, f)
	testutil.Equal(t, "endpoints", len(f.endpoints), 0)
}

// withUsage returns the load with a cache usage.
func withUsage(l Load, usage float64) Load {
	l.CacheUsage = Some(usage)
	return l
}
