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
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// TestSchedulerDeadWorkersDelayNoOthers, be they dead from the start, or from some time on, all at
// once, and whatever they do to those who ask.
func TestSchedulerDeadWorkersDelayNoOthers(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]behavior{"swallows": dropsPackets, "refuses": refuses, "accepts": hangs, "stalls": stalls} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			many, dead := 300, 200
			if how == dropsPackets {
				many, dead = 1000, 600
			}
			runMetricsNetwork(t, many, 5*time.Second, func(w *metricsNetwork) {
				ids := shuffled(many, uint64(how))
				w.setBehavior(responds, ids[dead:]...)
				w.setBehavior(how, ids[:dead]...)
				w.checkReads(21 * time.Second)
				w.setBehavior(responds, ids[:dead]...) // all come back
				w.checkReads(11 * time.Second)
				w.setBehavior(how, ids[many-dead:]...) // others die at once
				w.checkReads(21 * time.Second)
				for i := range dead { // and come back one by one, while others die
					w.setBehavior(responds, ids[many-dead+i])
					w.setBehavior(how, ids[i])
					if i%100 == 0 {
						w.checkReads(time.Second)
					}
				}
				w.checkReads(21 * time.Second)
				w.mu.Lock()
				if w.maxDialing > 108 {
					t.Errorf("%d are connected to at once, want at most 108", w.maxDialing)
				}
				w.mu.Unlock()
				for _, x := range w.fleet.Snapshot().Workers {
					if got := x.Load.OK; got != (w.behaviorOf(x.ID.Lease) == responds) {
						t.Errorf("worker %d has a load: %v", x.ID.Lease, got)
					}
				}
			})
		})
	}
}

// TestSchedulerDeadWorkersInLargeFleet, whose rounds are longer: within twice of those.
func TestSchedulerDeadWorkersInLargeFleet(t *testing.T) {
	t.Parallel()
	const many, dead = 2000, 1800
	runMetricsNetwork(t, many, many*time.Millisecond, func(w *metricsNetwork) {
		ids := shuffled(many, 3)
		w.setBehavior(responds, ids...)
		w.checkReads(4 * time.Second)
		w.setBehavior(dropsPackets, ids[:dead]...)
		w.checkReads(12 * time.Second)
	})
}

// TestSchedulerReadsSlowWorkers among dead ones, and delay no other, however long a page
// may take.
func TestSchedulerReadsSlowWorkers(t *testing.T) {
	t.Parallel()
	const many, slow, dead = 160, 20, 80
	for _, timeout := range []time.Duration{100 * time.Millisecond, 2 * time.Second, 20 * time.Second, time.Minute} {
		for name, how := range map[string]behavior{"swallows": dropsPackets, "accepts": hangs} {
			t.Run(fmt.Sprint(timeout, " ", name), func(t *testing.T) {
				t.Parallel()
				runMetricsNetworkWith(t, many, 5*time.Second, func(s *Scraper) { s.Timeout = timeout }, func(w *metricsNetwork) {
					ids := shuffled(many, 4)
					w.setBehavior(responds, ids[slow+dead:]...)
					w.setBehavior(respondsSlowly, ids[:slow]...)
					w.setBehavior(how, ids[slow:slow+dead]...)
					w.checkReads(20 * time.Second)
					w.setBehavior(how, ids[many-dead/2:]...) // others die at once
					w.checkReads(30 * time.Second)
					for range 8 {
						w.checkReads(5 * time.Second)
						w.mu.Lock()
						for _, id := range ids[:slow] {
							if ago := time.Since(w.lastRead[id]); ago > 10*time.Second && timeout > 300*time.Millisecond {
								w.t.Errorf("a page that takes its time was read %s ago", ago)
							}
						}
						w.mu.Unlock()
					}
				})
			})
		}
	}
}

// TestSchedulerReadsVerySlowWorkersAmongDead, and delay no other: those that were read before.
func TestSchedulerReadsVerySlowWorkersAmongDead(t *testing.T) {
	t.Parallel()
	const many, dead = 130, 100
	runMetricsNetworkWith(t, many, 5*time.Second, func(s *Scraper) { s.Timeout = time.Minute }, func(w *metricsNetwork) {
		ids := shuffled(many, 9)
		w.setBehavior(responds, ids[4:]...)
		w.setBehavior(respondsLate, ids[:4]...)
		w.checkReads(30 * time.Second)
		w.setBehavior(hangs, ids[many-dead:]...)
		for range 60 {
			w.checkReads(5 * time.Second)
			for _, id := range ids[:4] {
				if ago := time.Since(w.readTime(id)); ago > 25*time.Second { // twice what it takes
					w.t.Fatalf("a page that takes long was read %s ago", ago)
				}
			}
		}
	})
}

// TestSchedulerBoundsLongScrapes: those that go on when two seconds have passed.
func TestSchedulerBoundsLongScrapes(t *testing.T) {
	t.Parallel()
	runMetricsNetworkWith(t, 100, 5*time.Second, func(s *Scraper) { s.Timeout = time.Minute }, func(w *metricsNetwork) {
		w.setBehavior(hangs, shuffled(100, 1)...)
		time.Sleep(30 * time.Second)
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			w.mu.Lock()
			old := 0
			for began, n := range w.waiting {
				if time.Since(began) > 2200*time.Millisecond { // with the tenth of a second before
					old += n
				}
			}
			w.mu.Unlock()
			if old != 4 { // the other places are for pages that were read before
				w.t.Fatalf("%d answers are waited for for longer than 2 s, want 4", old)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) { // of pages that were
		s := &Scraper{Fleet: fleet.New(fleet.Target{}, 1000, true), Interval: time.Second, Timeout: time.Minute, Log: slog.New(slog.DiscardHandler)}
		waiting := hangDials(s, func() {})
		ctx, stop := context.WithCancel(t.Context())
		quick, slow, long, _ := scrapeLimits(0)
		r := newScheduler(s, quick, slow, long)
		for i := range 50 {
			x := &target{url: fmt.Sprintf("http://%d/", i), readable: true, duration: 3 * time.Second}
			r.byURL[x.url] = x
			r.schedule(ctx, x)
		}
		synctest.Wait()
		if n := waiting.Load(); n != 8 {
			t.Errorf("%d pages that take long are waited for, want 8", n)
		}
		stop()
		r.running.Wait()
		s.client.CloseIdleConnections()
		time.Sleep(time.Minute)
	})
}

// TestSchedulerPrunesRemovedTargets, however long it takes until places become free.
func TestSchedulerPrunesRemovedTargets(t *testing.T) {
	r := newScheduler(&Scraper{Fleet: fleet.New(fleet.Target{}, 10, true)}, 1, 1, 1)
	stays := &target{url: "stays"}
	for i := range 100 {
		x := &target{url: fmt.Sprint(i), readable: i%2 == 0}
		r.enqueue(x, quickQueue)
		r.enqueue(x, slowQueue)
	}
	r.enqueue(stays, slowQueue)
	r.byURL[stays.url] = stays
	r.pruneQueues()
	left := 0
	for _, l := range r.queues {
		for _, q := range l.waiting {
			left += len(q)
		}
	}
	if left != 1 {
		t.Errorf("%d pages wait, want 1", left)
	}
	r.refreshTargets()
	if left := r.queues[slowQueue].waiting[1]; len(left) > 0 {
		t.Error("a page waits that no worker has")
	}
}

// TestSchedulerStretchesRoundsWithoutForgetting, and nothing is forgotten because of that.
func TestSchedulerStretchesRoundsWithoutForgetting(t *testing.T) {
	t.Parallel()
	const many = 500 // of 0.3 s each: one and a half seconds of 100 places, where one is the interval
	runMetricsNetwork(t, many, time.Second, func(w *metricsNetwork) {
		ids := shuffled(many, 5)
		w.setBehavior(respondsSlowly, ids...)
		time.Sleep(12 * time.Second)
		for range 8 {
			time.Sleep(time.Second)
			for _, x := range w.fleet.Snapshot().Workers {
				if !x.Load.OK {
					t.Fatalf("worker %d has no load any more", x.ID.Lease)
				}
			}
		}
		if n := w.fleet.Stats.Scrapes(stats.ScrapeError); n > 0 {
			t.Errorf("%d scrapes failed", n)
		}
	})
}

// TestSchedulerReadsSlowWorkerOncePerRound a round, and not twice because it is slow.
func TestSchedulerReadsSlowWorkerOncePerRound(t *testing.T) {
	t.Parallel()
	runMetricsNetwork(t, 10, 5*time.Second, func(w *metricsNetwork) {
		w.setBehavior(respondsSlowly, 1)
		time.Sleep(52 * time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.requests > 110 {
			t.Errorf("%d requests in 10 rounds of 10 pages", w.requests)
		}
	})
}

// TestScraperRecordsSharedMetricsOnce through, and not once more for each of them.
func TestScraperRecordsSharedMetricsOnce(t *testing.T) {
	const many = 20_000
	f := fleet.New(fleet.Target{}, many, true)
	all := fleet.Listing{Instances: make(map[string]fleet.InstanceEntry)}
	for id := range uint64(many) {
		in := fleet.Instance{Endpoint: backendEndpoint, ID: 1 + id}
		all.Instances[fmt.Sprint(id)] = fleet.InstanceEntry{Instance: in, Registration: fleet.Registration{Publishes: true}}
	}
	f.Sync(all)
	s := &Scraper{Fleet: f, Namespaces: "dynamo", Log: slog.New(slog.DiscardHandler)}
	values := []wire.WorkerMetrics{{ScrapedValues: fleet.ScrapedValues{Load: fleet.Load{Waiting: fleet.Some[uint64](9)}}}} // no worker's
	for id := range uint64(many) {
		of := wire.WorkerMetrics{Worker: fleet.Some(1 + id), ScrapedValues: fleet.ScrapedValues{Load: fleet.Load{Waiting: fleet.Some(1 + id)}}}
		other := of
		other.Namespace, other.Load.Waiting = "other", fleet.Some[uint64](7)
		values = append(values, other, of)
	}
	if got := s.record(f.ScrapeTargets(true), values); got != stats.ScrapeOK {
		t.Errorf("the scrape was %s", got)
	}
	for _, w := range f.Snapshot().Workers {
		if w.Load.V.Waiting != fleet.Some(w.ID.Lease) {
			t.Fatalf("worker %d has %+v", w.ID.Lease, w.Load)
		}
	}
}

// TestSchedulerBoundsScrapes: in how many there are at once, how long they take, and how many
// connections are kept.
func TestSchedulerBoundsScrapes(t *testing.T) {
	t.Parallel()
	runMetricsNetwork(t, 300, 5*time.Second, func(w *metricsNetwork) {
		ids := shuffled(300, 6)
		w.setBehavior(responds, ids...)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		w.mu.Lock()
		if n := len(w.idle); n != 256 {
			t.Errorf("%d connections are kept, want 256", n)
		}
		w.mu.Unlock()
		w.setBehavior(dropsPackets, ids...)
		time.Sleep(12 * time.Second)
		w.mu.Lock()
		if w.longestDial != 500*time.Millisecond {
			t.Errorf("a connection is tried for %s, want half a second", w.longestDial)
		}
		w.mu.Unlock()
		w.setBehavior(hangs, ids...)
		time.Sleep(12 * time.Second)
		w.mu.Lock()
		if w.longestWait != 2*time.Second {
			t.Errorf("an answer is waited for for %s, want 2 s", w.longestWait)
		}
		w.mu.Unlock()
	})
	synctest.Test(t, func(t *testing.T) { // all at once
		dialling := make(chan struct{}, 1000)
		s := &Scraper{Fleet: fleet.New(fleet.Target{}, 1000, true), Interval: time.Second, Log: slog.New(slog.DiscardHandler)}
		waiting := hangDials(s, func() { dialling <- struct{}{} })
		ctx, stop := context.WithCancel(t.Context())
		quick, slow, long, _ := scrapeLimits(0)
		r := newScheduler(s, quick, slow, long)
		for i := range 500 {
			x := &target{url: fmt.Sprintf("http://%d/", i)}
			r.byURL[x.url] = x
			r.schedule(ctx, x)
		}
		for at, want := range []int{100, 200} {
			synctest.Wait()
			now := 100 + min(at, 1)*8 // of those before eight go on among the slow ones
			if n := len(dialling); n != want || int(waiting.Load()) != now {
				t.Errorf("after %d tenths of a second %d pages were asked for, and %d are waited for, want %d and %d", at, n, waiting.Load(), want, now)
			}
			r.runUntil(ctx, time.Now().Add(100*time.Millisecond+time.Millisecond))
		}
		stop()
		r.running.Wait()
		s.client.CloseIdleConnections()
		time.Sleep(time.Minute)
	})
}

// TestSchedulerRoundsGrowWithTargets, and where there are not places enough, up to sixteen times.
func TestSchedulerRoundsGrowWithTargets(t *testing.T) {
	s := &Scraper{Fleet: fleet.New(fleet.Target{}, 10, true), Interval: 5 * time.Second}
	r := newScheduler(s, 1, 1, 1)
	length := func(pages int, want time.Duration) {
		t.Helper()
		if got := r.nextRoundLength(pages); got != want {
			t.Errorf("a round of %d pages has %s, want %s", pages, got, want)
		}
	}
	length(1000, 5*time.Second)
	length(10_000, 10*time.Second)
	x := &target{url: "a", readable: true}
	r.enqueue(x, quickQueue) // one that could be read waits
	for _, stretch := range []time.Duration{2, 4, 8, 16, 16, 16} {
		length(1000, stretch*5*time.Second)
	}
	x.due[quickQueue] = false
	for _, stretch := range []time.Duration{8, 4, 2, 1, 1} {
		length(1000, stretch*5*time.Second)
	}
	r.enqueue(&target{url: "b"}, quickQueue) // one that could not
	length(1000, 5*time.Second)
	const ms = time.Millisecond
	for _, c := range []struct{ interval, timeout, usual, want time.Duration }{
		{5000 * ms, 0, ms, 100 * ms}, {5000 * ms, 0, 60 * ms, 180 * ms}, {5000 * ms, 0, 900 * ms, 1000 * ms},
		{5000 * ms, 100 * ms, 60 * ms, 100 * ms}, // as long as it may take at all
		{5000 * ms, 4000 * ms, 900 * ms, 2000 * ms},
		{5000 * ms, time.Minute, 9000 * ms, 2500 * ms}, // half of the interval, however long it may take
		{1000 * ms, time.Minute, 9000 * ms, 1000 * ms}, // but a second
	} {
		s.Interval, s.Timeout = c.interval, c.timeout
		r.durations = []time.Duration{time.Minute, c.usual, 0}
		r.nextRoundLength(1)
		if r.quickTimeout != c.want {
			t.Errorf("each %s, with a timeout of %s: where a page takes %s it has its place for %s, want %s", c.interval, c.timeout, c.usual, r.quickTimeout, c.want)
		}
	}
}

func TestScrapeLimitsTakeQuarterOfDescriptors(t *testing.T) {
	for _, c := range []struct{ descriptors, quick, slow, long, idle int }{
		{0, 100, 8, 8, 256}, {1 << 20, 100, 8, 8, 256}, {1024, 85, 8, 8, 155}, {256, 21, 8, 8, 27}, {48, 4, 1, 1, 6}, {8, 1, 1, 1, 1},
	} {
		quick, slow, long, idle := scrapeLimits(c.descriptors)
		if quick != c.quick || slow != c.slow || long != c.long || idle != c.idle {
			t.Errorf("of %d file descriptors: %d, %d, %d and %d, want %d, %d, %d and %d", c.descriptors, quick, slow, long, idle, c.quick, c.slow, c.long, c.idle)
		}
	}
}

// hangs has every connection of the Scraper hang until its attempt is given up. It returns how
// many do; dials is called for each.
func hangDials(s *Scraper, dials func()) *atomic.Int64 {
	waiting := new(atomic.Int64)
	s.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		dials()
		waiting.Add(1)
		defer waiting.Add(-1)
		<-ctx.Value(dialStateKey{}).(context.Context).Done()
		return nil, ctx.Err()
	}}}
	s.readers.New = func() any { return new(metricsReader) }
	return waiting
}
