package collect

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// TestDeadPagesDelayNoGoodOne, be they dead from the start, or from some time on, all at
// once, and whatever they do to those who ask.
func TestDeadPagesDelayNoGoodOne(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]manner{"swallows": swallows, "refuses": refuses, "accepts": accepts, "stalls": stalls} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			many, dead := 300, 200
			if how == swallows {
				many, dead = 1000, 600
			}
			inWeb(t, many, 5*time.Second, func(w *web) {
				ids := shuffled(many, uint64(how))
				w.take(answers, ids[dead:]...)
				w.take(how, ids[:dead]...)
				w.reads(21 * time.Second)
				w.take(answers, ids[:dead]...) // all come back
				w.reads(11 * time.Second)
				w.take(how, ids[many-dead:]...) // others die at once
				w.reads(21 * time.Second)
				for i := range dead { // and come back one by one, while others die
					w.take(answers, ids[many-dead+i])
					w.take(how, ids[i])
					if i%100 == 0 {
						w.reads(time.Second)
					}
				}
				w.reads(21 * time.Second)
				w.mu.Lock()
				if w.most > 108 {
					t.Errorf("%d are connected to at once, want at most 108", w.most)
				}
				w.mu.Unlock()
				for _, x := range w.fleet.Snapshot().Workers {
					if got := x.Load.OK; got != (w.of(x.ID.Lease) == answers) {
						t.Errorf("worker %d has a load: %v", x.ID.Lease, got)
					}
				}
			})
		})
	}
}

// TestManyDeadPagesOfALargeFleet, whose rounds are longer: within twice of those.
func TestManyDeadPagesOfALargeFleet(t *testing.T) {
	t.Parallel()
	const many, dead = 2000, 1800
	inWeb(t, many, many*time.Millisecond, func(w *web) {
		ids := shuffled(many, 3)
		w.take(answers, ids...)
		w.reads(4 * time.Second)
		w.take(swallows, ids[:dead]...)
		w.reads(12 * time.Second)
	})
}

// TestPagesThatTakeTheirTimeAreRead among dead ones, though not as soon.
func TestPagesThatTakeTheirTimeAreRead(t *testing.T) {
	t.Parallel()
	const many, slow, dead = 200, 20, 80
	inWeb(t, many, 5*time.Second, func(w *web) {
		ids := shuffled(many, 4)
		w.take(answers, ids[slow+dead:]...)
		w.take(slowly, ids[:slow]...)
		w.take(swallows, ids[slow:slow+dead]...)
		w.reads(20 * time.Second)
		for range 4 {
			w.reads(5 * time.Second)
			w.mu.Lock()
			for _, id := range ids[:slow] {
				if ago := time.Since(w.read[id]); ago > 10*time.Second {
					t.Errorf("a page that takes its time was read %s ago", ago)
				}
			}
			w.mu.Unlock()
		}
	})
}

// TestWhereThereAreNotPlacesEnoughRoundsAreLonger, and nothing is forgotten because of that.
func TestWhereThereAreNotPlacesEnoughRoundsAreLonger(t *testing.T) {
	t.Parallel()
	const many = 500 // of 0.3 s each: one and a half seconds of 100 places, where one is the interval
	inWeb(t, many, time.Second, func(w *web) {
		ids := shuffled(many, 5)
		w.take(slowly, ids...)
		time.Sleep(12 * time.Second)
		for range 8 {
			time.Sleep(time.Second)
			for _, x := range w.fleet.Snapshot().Workers {
				if !x.Load.OK {
					t.Fatalf("worker %d has no load any more", x.ID.Lease)
				}
			}
		}
		if n := w.fleet.Tally.Scrapes(fleet.ScrapeError); n > 0 {
			t.Errorf("%d scrapes failed", n)
		}
	})
}

// TestOneSlowPageIsAskedOnce a round, and not twice because it is slow.
func TestOneSlowPageIsAskedOnce(t *testing.T) {
	t.Parallel()
	inWeb(t, 10, 5*time.Second, func(w *web) {
		w.take(slowly, 1)
		time.Sleep(52 * time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.asked > 110 {
			t.Errorf("%d requests in 10 rounds of 10 pages", w.asked)
		}
	})
}

// TestAPageOfManyWorkersIsBookedOnce through, and not once more for each of them.
func TestAPageOfManyWorkersIsBookedOnce(t *testing.T) {
	const many = 20_000
	f := fleet.New(fleet.Target{}, many, true)
	all := fleet.Listing{Instances: make(map[string]fleet.InstanceEntry)}
	for id := range uint64(many) {
		in := fleet.Instance{Endpoint: ofBackend, ID: 1 + id}
		all.Instances[fmt.Sprint(id)] = fleet.InstanceEntry{Instance: in, Registration: fleet.Registration{Publishes: true}}
	}
	f.Sync(all)
	s := &Scraper{Fleet: f, Namespaces: "dynamo", Log: slog.New(slog.DiscardHandler)}
	values := []wire.PageValues{{Scraped: fleet.Scraped{Load: fleet.Load{Waiting: fleet.Some[uint64](9)}}}} // no worker's
	for id := range uint64(many) {
		of := wire.PageValues{Worker: fleet.Some(1 + id), Scraped: fleet.Scraped{Load: fleet.Load{Waiting: fleet.Some(1 + id)}}}
		other := of
		other.Namespace, other.Load.Waiting = "other", fleet.Some[uint64](7)
		values = append(values, other, of)
	}
	if got := s.book(f.WorkerPages(true), values); got != fleet.ScrapeOK {
		t.Errorf("the scrape was %s", got)
	}
	for _, w := range f.Snapshot().Workers {
		if w.Load.V.Waiting != fleet.Some(w.ID.Lease) {
			t.Fatalf("worker %d has %+v", w.ID.Lease, w.Load)
		}
	}
}

// TestScrapesAreBounded: in how many there are at once, how long they take, and how many
// connections are kept.
func TestScrapesAreBounded(t *testing.T) {
	t.Parallel()
	inWeb(t, 300, 5*time.Second, func(w *web) {
		ids := shuffled(300, 6)
		w.take(answers, ids...)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		w.mu.Lock()
		if n := len(w.idle); n != 256 {
			t.Errorf("%d connections are kept, want 256", n)
		}
		w.mu.Unlock()
		w.take(swallows, ids...)
		time.Sleep(12 * time.Second)
		w.mu.Lock()
		if w.longest != 500*time.Millisecond {
			t.Errorf("a connection is tried for %s, want half a second", w.longest)
		}
		w.mu.Unlock()
		w.take(accepts, ids...)
		time.Sleep(12 * time.Second)
		w.mu.Lock()
		if w.answered != 2*time.Second {
			t.Errorf("an answer is waited for for %s, want 2 s", w.answered)
		}
		w.mu.Unlock()
	})
	synctest.Test(t, func(t *testing.T) { // all at once
		dialling := make(chan struct{}, 1000)
		var waiting atomic.Int64
		s := &Scraper{Fleet: fleet.New(fleet.Target{}, 1000, true), Interval: time.Second, Log: slog.New(slog.DiscardHandler)}
		s.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dialling <- struct{}{}
			waiting.Add(1)
			defer waiting.Add(-1)
			<-ctx.Value(attempt{}).(context.Context).Done()
			return nil, ctx.Err()
		}}}
		s.readers.New = func() any { return new(pageReader) }
		ctx, stop := context.WithCancel(t.Context())
		quick, slow, _ := scrapePlaces(0)
		r := newRounds(s, quick, slow)
		for i := range 500 {
			x := &target{url: fmt.Sprintf("http://%d/", i)}
			r.known[x.url] = x
			r.admit(ctx, x)
		}
		for at, want := range []int{100, 200} {
			synctest.Wait()
			now := 100 + min(at, 1)*8 // of those before eight go on among the slow ones
			if n := len(dialling); n != want || int(waiting.Load()) != now {
				t.Errorf("after %d tenths of a second %d pages were asked for, and %d are waited for, want %d and %d", at, n, waiting.Load(), want, now)
			}
			r.until(ctx, time.Now().Add(100*time.Millisecond+time.Millisecond))
		}
		stop()
		r.running.Wait()
		s.client.CloseIdleConnections()
		time.Sleep(time.Minute)
	})
}

// TestRoundsGrowWithThePages, and where there are not places enough, up to sixteen times.
func TestRoundsGrowWithThePages(t *testing.T) {
	s := &Scraper{Fleet: fleet.New(fleet.Target{}, 10, true), Interval: 5 * time.Second}
	r := newRounds(s, 1, 1)
	length := func(pages int, want time.Duration) {
		t.Helper()
		if got := r.nextLength(pages); got != want {
			t.Errorf("a round of %d pages has %s, want %s", pages, got, want)
		}
	}
	length(1000, 5*time.Second)
	length(10_000, 10*time.Second)
	x := &target{url: "a", readable: true}
	r.queue(x, quickLane) // one that could be read waits
	for _, stretch := range []time.Duration{2, 4, 8, 16, 16, 16} {
		length(1000, stretch*5*time.Second)
	}
	x.wants[quickLane] = false
	for _, stretch := range []time.Duration{8, 4, 2, 1, 1} {
		length(1000, stretch*5*time.Second)
	}
	r.queue(&target{url: "b"}, quickLane) // one that could not
	length(1000, 5*time.Second)
	for usual, want := range map[time.Duration]time.Duration{
		time.Millisecond: 100 * time.Millisecond, 60 * time.Millisecond: 180 * time.Millisecond, 900 * time.Millisecond: time.Second,
	} {
		r.took = []time.Duration{time.Minute, usual, 0}
		r.nextLength(1)
		if r.patience != want {
			t.Errorf("where a page takes %s it has its place for %s, want %s", usual, r.patience, want)
		}
	}
}

func TestScrapesTakeAQuarterOfTheFileDescriptors(t *testing.T) {
	for _, c := range []struct{ descriptors, quick, slow, idle int }{
		{0, 100, 8, 256}, {1 << 20, 100, 8, 256}, {1024, 85, 8, 163}, {256, 21, 8, 35}, {48, 4, 1, 7}, {8, 1, 1, 1},
	} {
		if quick, slow, idle := scrapePlaces(c.descriptors); quick != c.quick || slow != c.slow || idle != c.idle {
			t.Errorf("of %d file descriptors: %d, %d and %d, want %d, %d and %d", c.descriptors, quick, slow, idle, c.quick, c.slow, c.idle)
		}
	}
}
