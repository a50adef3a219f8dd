package fleet

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
)

// TestConcurrentUseOfEveryMethod does everything that the program does with a Fleet at the
// same time. It is for the race detector.
func TestConcurrentUseOfEveryMethod(t *testing.T) {
	f := newFleet(backend, 100)
	const rounds = 500
	var g sync.WaitGroup
	work := func(do func(r *rand.Rand, round int)) {
		seed := rand.Uint64()
		g.Go(func() {
			r := rand.New(rand.NewPCG(seed, 0))
			for round := range rounds {
				do(r, round)
			}
		})
	}
	id := func(r *rand.Rand) uint64 { return 1 + r.Uint64N(150) }
	work(func(r *rand.Rand, _ int) { register(f, testEndpoints[r.IntN(len(testEndpoints))], id(r)) })
	work(func(r *rand.Rand, _ int) { deregister(f, testEndpoints[r.IntN(len(testEndpoints))], id(r)) })
	work(func(r *rand.Rand, round int) {
		if round%100 == 0 {
			f.Sync(listing([]Instance{{generate, id(r)}, {prefill, id(r)}}...))
		}
	})
	for range 2 {
		work(func(r *rand.Rand, _ int) {
			f.RecordPollReply(loaded(testEndpoints[r.IntN(len(testEndpoints))], lease(id(r)), 10))
		})
		work(func(r *rand.Rand, _ int) { f.RecordHit(id(r), 20, 5) })
	}
	work(func(_ *rand.Rand, round int) {
		f.BeginPoll()
		f.PollAnswered()
		f.EndPoll(round%3 > 0)
	})
	work(func(_ *rand.Rand, round int) { after(f, time.Duration(round)*10*time.Second) })
	work(func(_ *rand.Rand, round int) {
		if round%20 == 0 {
			checkSnapshot(t, f.Snapshot())
		}
	})
	work(func(r *rand.Rand, _ int) {
		f.IsRegistered(Instance{generate, id(r)})
		f.RegisteredEndpoints()
		f.AppendPresent(nil)
		f.TargetWorkers()
		f.Stats.RecordPoll(stats.PollOK, time.Millisecond)
		f.Stats.PollDurations()
	})
	g.Wait()
	checkInvariants(t, f)
}

// TestConcurrentHitsAreAllCounted counts events from several goroutines.
func TestConcurrentHitsAreAllCounted(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	register(f, generate, 1, 2, 3)
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for i := range uint64(3000) {
				f.RecordHit(1+i%3, 2, 1)
			}
		})
	}
	g.Wait()
	wantShown(t, f, "backend/generate: 3 silent 24000 events",
		"  1 down hits 8000/16000", "  2 down hits 8000/16000", "  3 down hits 8000/16000")
}

// TestConcurrentSnapshotSeesWholeReplies checks that no Snapshot has half of a reply for
// several endpoints.
func TestConcurrentSnapshotSeesWholeReplies(t *testing.T) {
	f := newFleet(backend, largeLimit)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	f.RecordPollReply(loaded(generate, lease(1), 0), loaded(loadMetrics, lease(1), 0))
	var g sync.WaitGroup
	g.Go(func() {
		for blocks := range uint64(2000) {
			f.RecordPollReply(loaded(generate, lease(1), blocks), loaded(loadMetrics, lease(1), blocks))
		}
	})
	for range 500 {
		w := f.Snapshot().Workers
		if a, b := w[0].Load.V.KVActive.V, w[1].Load.V.KVActive.V; a != b {
			t.Errorf("the snapshot shows %d blocks at one endpoint and %d at the other", a, b)
			break
		}
	}
	g.Wait()
}
