//go:build real

package survival

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
)

// bounded says that page and memory stay within what the limit of workers allows.
func bounded(limit, bytes int) rule {
	return func(_, now page) error {
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

// hundredThousand hits of that many ids that nobody has, and of the good worker's now and
// then.
func (f *lab) hundredThousand(good *worker) (ofGood uint64) {
	f.t.Helper()
	const n = 100_000
	for id := range uint64(n) {
		err := f.hit(1<<40+id, 3)
		if id%1000 == 0 && err == nil {
			err = f.hit(good.id, 2)
			ofGood += 2
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
	f.flush()
	return ofGood
}

func TestAHundredThousandForgedIds(t *testing.T) {
	const limit, forged, arrivals = 1000, 100_000, 500
	f := newLab(t)
	a, b := f.worker(1, 10), f.worker(2, 20)
	m := f.run("--max-workers", fmt.Sprint(limit))
	m.shows(merged(up, loads(a, b)))
	w := m.witnessed(always(loads(a, b)), always(page{queueFull: "0"}), countersOf(a, b), pairs(nil), bounded(limit, 150<<20))

	booked := f.hundredThousand(a)
	over := uint64(forged - (limit - 2))
	m.shows(merged(loads(a, b), page{
		messages(stats.HitRate): decimal(forged + booked/2),
		overLimit:               decimal(over),
		of(isl, a.id):           decimal(4 * booked),
		of(overlap, a.id):       decimal(booked),
		of(isl, 1<<40):          "12",
		of(isl, 1<<40+forged-1): "",
		`llm_kv_hit_rate_events_total{component="backend",endpoint="generate"}`: decimal(limit - 2 + booked/2),
	}))

	// Who registers pushes one of them out, and is counted as that.
	f.register(f.ec, sequence(10_000, arrivals)...)
	over += arrivals
	m.until(func(p page) error {
		if n := p.count(isl + "{"); n != limit-1-arrivals {
			return fmt.Errorf("hits of %d workers are shown, want %d", n, limit-1-arrivals)
		}
		return p.has(page{workers("silent"): fmt.Sprint(arrivals), overLimit: decimal(over)})
	})
	for _, id := range sequence(10_000, arrivals) {
		if err := f.hit(id, 5); err != nil {
			t.Fatal(err)
		}
	}
	m.shows(page{of(overlap, 10_000): "5", of(overlap, 10_000+arrivals-1): "5", overLimit: decimal(over)})

	// There is no room for anybody new, and the forged do not come back.
	again := f.hundredThousand(b)
	m.until(func(p page) error {
		if p.number(messages(stats.HitRate)) != float64(2*forged+arrivals+booked/2+again/2) {
			return errors.New("not all have come")
		}
		kept := uint64(limit - 2 - arrivals) // of the forged ids; whose second event is booked
		return p.has(page{overLimit: decimal(over + forged - kept), of(overlap, b.id): decimal(again)})
	})
	w.stop()
	m.Terminate()
}

// TestRegistrationsThatComeAndGo has more of them than there is room for, each with a
// load and hits.
func TestRegistrationsThatComeAndGo(t *testing.T) {
	t.Parallel()
	const limit, at = 300, 100
	f := newLab(t)
	f.interval = "0.2"
	a, b := f.worker(1, 10), f.worker(2, 20)
	m := f.run("--max-workers", fmt.Sprint(limit))
	m.shows(merged(up, loads(a, b)))
	r := f.route(a, b)
	w := m.witnessed(always(loads(b)), always(page{queueFull: "0"}), countersOf(a, b), pairs(nil), bounded(limit, 100<<20))
	for round := range uint64(10) { // bench soak goes on for longer
		ids := sequence(1<<40+round*at, at)
		f.register(f.ec, ids...)
		answers := f.answerAll(ids, 50)
		// Registrations and hits come by different ways: a hit that comes first finds no room.
		m.until(func(p page) error { return p.has(page{workers("answering"): fmt.Sprint(2 + at)}) })
		for _, id := range ids {
			if err := f.hit(id, 3); err != nil {
				t.Fatal(err)
			}
		}
		m.until(func(p page) error {
			return p.has(page{workers("answering"): fmt.Sprint(2 + at), of(overlap, ids[0]): "3", of(overlap, ids[at-1]): "3"})
		})
		f.deregister(f.ec, ids...)
		m.until(func(p page) error { return p.has(page{workers("answering"): "2", workers("silent"): "0"}) })
		answers()
		m.polls(3) // until those that answered without a key are forgotten
		m.until(func(p page) error {
			if n := p.count(active + "{"); n != 2 {
				return fmt.Errorf("%d loads are shown, want 2", n)
			}
			if n := p.count("llm_worker_"); n != 2*3 {
				return fmt.Errorf("%d series of workers, want 6", n)
			}
			return p.has(page{workers("unregistered"): "0"})
		})
	}
	r.settle(m)
	// What is left are counters of those that left last, and they go ten minutes later.
	left := func(want int) func(p page) error {
		return func(p page) error {
			if n := p.count(isl + "{"); n > want {
				return fmt.Errorf("hits of %d workers are shown, want %d", n, want)
			}
			return nil
		}
	}
	m.until(left(limit))
	if pick(false, true) {
		throughout(t, 10*time.Minute+5*time.Second, func() error { return m.hasStill(loads(b)) })
		m.until(left(2))
	}
	w.stop()
	m.Terminate()
}

// answerAll has all of them answer polls until they are told to stop.
func (f *lab) answerAll(ids []uint64, load uint64) (stop func()) {
	f.t.Helper()
	sub := f.answers(func(respond func([]byte)) {
		for _, id := range ids {
			respond(reply(id, flat(load)))
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
