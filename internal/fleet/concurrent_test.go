package fleet

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
)

// TestEverybodyAtOnce is for the race detector: all that the program does with a
// Fleet, at the same time.
func TestEverybodyAtOnce(t *testing.T) {
	f := fleetAt(backend, 100)
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
	work(func(r *rand.Rand, _ int) { register(f, places[r.IntN(len(places))], id(r)) })
	work(func(r *rand.Rand, _ int) { deregister(f, places[r.IntN(len(places))], id(r)) })
	work(func(r *rand.Rand, round int) {
		if round%100 == 0 {
			f.Sync(listing([]Instance{{generate, id(r)}, {prefill, id(r)}}...))
		}
	})
	for range 2 {
		work(func(r *rand.Rand, _ int) { f.Report(loaded(places[r.IntN(len(places))], lease(id(r)), 10)) })
		work(func(r *rand.Rand, _ int) { f.Hit(id(r), 20, 5) })
	}
	work(func(_ *rand.Rand, round int) {
		f.BeginPoll()
		f.PollAnswered()
		f.EndPoll(round%3 > 0)
	})
	work(func(_ *rand.Rand, round int) { after(f, time.Duration(round)*10*time.Second) })
	work(func(_ *rand.Rand, round int) {
		if round%20 == 0 {
			auditSnapshot(t, f.Snapshot())
		}
	})
	work(func(r *rand.Rand, _ int) {
		f.IsRegistered(Instance{generate, id(r)})
		f.Registered()
		f.Present(nil)
		f.Targeted()
		f.Tally.Polled(stats.PollOK, time.Millisecond)
		f.Tally.PollDurations()
	})
	g.Wait()
	audit(t, f)
}

// TestEveryEventIsBooked counts events that arrive at once from many connections.
func TestEveryEventIsBooked(t *testing.T) {
	f := fleetAt(Target(generate), plenty)
	register(f, generate, 1, 2, 3)
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for i := range uint64(3000) {
				f.Hit(1+i%3, 2, 1)
			}
		})
	}
	g.Wait()
	shows(t, f, "backend/generate: 3 silent 24000 events",
		"  1 down hits 8000/16000", "  2 down hits 8000/16000", "  3 down hits 8000/16000")
}

// TestAnAnswerIsAppliedAtOnce, be it of several endpoints: no page and no poll sees half of it.
func TestAnAnswerIsAppliedAtOnce(t *testing.T) {
	f := fleetAt(backend, plenty)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	f.Report(loaded(generate, lease(1), 0), loaded(loadMetrics, lease(1), 0))
	var g sync.WaitGroup
	g.Go(func() {
		for blocks := range uint64(2000) {
			f.Report(loaded(generate, lease(1), blocks), loaded(loadMetrics, lease(1), blocks))
		}
	})
	for range 500 {
		w := f.Snapshot().Workers
		if a, b := w[0].Load.V.KVActive.V, w[1].Load.V.KVActive.V; a != b {
			t.Errorf("the page shows %d blocks at one endpoint and %d at the other", a, b)
			break
		}
	}
	g.Wait()
}
