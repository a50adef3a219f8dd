//go:build real

package survival

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
)

// boundSamples checks that the number of series and the memory are within what the limit of
// workers allows.
func boundSamples(limit, bytes int) rule {
	return func(_, now samples) error {
		if n := now.count(isl); n > limit {
			return fmt.Errorf("hits of %d workers are shown, at a limit of %d", n, limit)
		}
		if n := now.count(active); n > limit {
			return fmt.Errorf("loads of %d workers are shown, at a limit of %d", n, limit)
		}
		if now.number(resident) > float64(bytes) {
			return fmt.Errorf("%s bytes resident, want at most %d", now[resident], bytes)
		}
		return nil
	}
}

func sequence(from, n uint64) (ids []uint64) {
	for id := from; id < from+n; id++ {
		ids = append(ids, id)
	}
	return ids
}

// publishForgedHits publishes a hit of each of a hundred thousand ids that are not
// registered, with hits of the control worker in between.
func (f *environment) publishForgedHits(control *worker) (ofControl uint64) {
	f.t.Helper()
	const n = 100_000
	for id := range uint64(n) {
		err := f.hit(1<<40+id, 3)
		if id%1000 == 0 && err == nil {
			err = f.hit(control.id, 2)
			ofControl += 2
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
	f.flush()
	return ofControl
}

func TestForgedIDsHundredThousand(t *testing.T) {
	const limit, forged, arrivals = 1000, 100_000, 500
	f := newEnvironment(t)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	m := f.startMetrics("--max-workers", fmt.Sprint(limit))
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	w := m.startSampler(always(samplesOf(a, b)), always(samples{queueFull: "0"}), monotonicCounters(a, b), pairedHits(nil), boundSamples(limit, 150<<20))

	counted := f.publishForgedHits(a)
	over := uint64(forged - (limit - 2))
	m.waitForSamples(merged(samplesOf(a, b), samples{
		messagesSeries(stats.HitRate):     decimal(forged + counted/2),
		overLimit:                         decimal(over),
		workerSeries(isl, a.id):           decimal(4 * counted),
		workerSeries(overlap, a.id):       decimal(counted),
		workerSeries(isl, 1<<40):          "12",
		workerSeries(isl, 1<<40+forged-1): "",
		`llm_kv_hit_rate_events_total{component="backend",endpoint="generate"}`: decimal(limit - 2 + counted/2),
	}))

	// A worker that registers evicts one of the forged ids, and this is counted.
	f.register(f.ec, sequence(10_000, arrivals)...)
	over += arrivals
	m.waitFor(func(p samples) error {
		if n := p.count(isl + "{"); n != limit-1-arrivals {
			return fmt.Errorf("hits of %d workers are shown, want %d", n, limit-1-arrivals)
		}
		return p.match(samples{workersSeries("silent"): fmt.Sprint(arrivals), overLimit: decimal(over)})
	})
	for _, id := range sequence(10_000, arrivals) {
		if err := f.hit(id, 5); err != nil {
			t.Fatal(err)
		}
	}
	m.waitForSamples(samples{workerSeries(overlap, 10_000): "5", workerSeries(overlap, 10_000+arrivals-1): "5", overLimit: decimal(over)})

	// There is no room for a new worker, and forged ids do not come back.
	again := f.publishForgedHits(b)
	m.waitFor(func(p samples) error {
		if p.number(messagesSeries(stats.HitRate)) != float64(2*forged+arrivals+counted/2+again/2) {
			return errors.New("not all workers are registered")
		}
		kept := uint64(limit - 2 - arrivals) // of the forged ids, whose second event counts
		return p.match(samples{overLimit: decimal(over + forged - kept), workerSeries(overlap, b.id): decimal(again)})
	})
	w.stop()
	m.Terminate()
}

// TestForgedIDsRegisteredAndRemoved registers and deregisters more workers than the limit,
// each with a load and hits.
func TestForgedIDsRegisteredAndRemoved(t *testing.T) {
	t.Parallel()
	const limit, at = 300, 100
	f := newEnvironment(t)
	f.interval = "0.2"
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	m := f.startMetrics("--max-workers", fmt.Sprint(limit))
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	r := f.startRouter(a, b)
	w := m.startSampler(always(samplesOf(b)), always(samples{queueFull: "0"}), monotonicCounters(a, b), pairedHits(nil), boundSamples(limit, 100<<20))
	for round := range uint64(10) { // bench soak does so for longer
		ids := sequence(1<<40+round*at, at)
		f.register(f.ec, ids...)
		answers := f.answerPollsFor(ids, 50)
		// Registrations and hits arrive over different connections. A hit that arrives
		// before its worker's registration is over the limit.
		m.waitFor(func(p samples) error { return p.match(samples{workersSeries("answering"): fmt.Sprint(2 + at)}) })
		for _, id := range ids {
			if err := f.hit(id, 3); err != nil {
				t.Fatal(err)
			}
		}
		m.waitFor(func(p samples) error {
			return p.match(samples{workersSeries("answering"): fmt.Sprint(2 + at), workerSeries(overlap, ids[0]): "3", workerSeries(overlap, ids[at-1]): "3"})
		})
		f.deregister(f.ec, ids...)
		m.waitFor(func(p samples) error {
			return p.match(samples{workersSeries("answering"): "2", workersSeries("silent"): "0"})
		})
		answers()
		m.waitForPolls(3) // until the program forgets workers that replied after their keys were deleted
		m.waitFor(func(p samples) error {
			if n := p.count(active + "{"); n != 2 {
				return fmt.Errorf("%d loads are shown, want 2", n)
			}
			if n := p.count("llm_worker_"); n != 2*3 {
				return fmt.Errorf("%d series of workers, want 6", n)
			}
			return p.match(samples{workersSeries("unregistered"): "0"})
		})
	}
	r.stopAndCheck(m)
	// The counters of the workers that left last stay, and expire ten minutes later.
	left := func(want int) func(p samples) error {
		return func(p samples) error {
			if n := p.count(isl + "{"); n > want {
				return fmt.Errorf("hits of %d workers are shown, want %d", n, want)
			}
			return nil
		}
	}
	m.waitFor(left(limit))
	if shortOr(false, true) {
		checkThroughout(t, 10*time.Minute+5*time.Second, func() error { return m.matchKept(samplesOf(b)) })
		m.waitFor(left(2))
	}
	w.stop()
	m.Terminate()
}

// answerPollsFor answers polls for all of these ids until stop.
func (f *environment) answerPollsFor(ids []uint64, load uint64) (stop func()) {
	f.t.Helper()
	sub := f.answerPollsWith(func(respond func([]byte)) {
		for _, id := range ids {
			respond(statsReply(id, flatLoad(load)))
		}
	})
	return func() {
		f.t.Helper()
		if err := sub.Unsubscribe(); err != nil {
			f.t.Fatal(err)
		}
		f.flush()
	}
}
