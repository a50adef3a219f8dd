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

// TestSchedulerDeadWorkersDelayNoOthers sets up workers that do not respond, from the start or
// later, at once or one by one, and in different ways.
func TestSchedulerDeadWorkersDelayNoOthers(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]behavior{"drops packets": dropsPackets, "refuses": refuses, "hangs": hangs, "stalls": stalls} {
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
				w.setBehavior(responds, ids[:dead]...) // all recover
				w.checkReads(11 * time.Second)
				w.setBehavior(how, ids[many-dead:]...) // others fail at once
				w.checkReads(21 * time.Second)
				for i := range dead { // they recover one by one, while others fail
					w.setBehavior(responds, ids[many-dead+i])
					w.setBehavior(how, ids[i])
					if i%100 == 0 {
						w.checkReads(time.Second)
					}
				}
				w.checkReads(21 * time.Second)
				w.mu.Lock()
				if w.maxDialing > 108 {
					t.Errorf("%d connections are dialed at the same time, want at most 108", w.maxDialing)
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

// TestSchedulerDeadWorkersInLargeFleet sets up a fleet whose rounds are longer than the interval.
// Each worker must be read every two rounds.
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

// TestSchedulerReadsSlowWorkers sets up slow workers among dead ones. They are read, and delay no
// others, whatever the timeout is.
func TestSchedulerReadsSlowWorkers(t *testing.T) {
	t.Parallel()
	const many, slow, dead = 160, 20, 80
	for _, timeout := range []time.Duration{100 * time.Millisecond, 2 * time.Second, 20 * time.Second, time.Minute} {
		for name, how := range map[string]behavior{"drops packets": dropsPackets, "hangs": hangs} {
			t.Run(fmt.Sprint(timeout, " ", name), func(t *testing.T) {
				t.Parallel()
				runMetricsNetworkWith(t, many, 5*time.Second, func(s *Scraper) { s.Timeout = timeout }, func(w *metricsNetwork) {
					ids := shuffled(many, 4)
					w.setBehavior(responds, ids[slow+dead:]...)
					w.setBehavior(respondsSlowly, ids[:slow]...)
					w.setBehavior(how, ids[slow:slow+dead]...)
					w.checkReads(20 * time.Second)
					w.setBehavior(how, ids[many-dead/2:]...) // others fail at once
					w.checkReads(30 * time.Second)
					for range 8 {
						w.checkReads(5 * time.Second)
						w.mu.Lock()
						for _, id := range ids[:slow] {
							if ago := time.Since(w.lastRead[id]); ago > 10*time.Second && timeout > 300*time.Millisecond {
								w.t.Errorf("a slow worker was last read %s ago", ago)
							}
						}
						w.mu.Unlock()
					}
				})
			})
		}
	}
}

// TestSchedulerReadsVerySlowWorkersAmongDead sets up workers that were readable before, but take
// 12 s.
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
				if ago := time.Since(w.readTime(id)); ago > 25*time.Second { // twice its duration
					w.t.Fatalf("a very slow worker was last read %s ago", ago)
				}
			}
		}
	})
}

// TestSchedulerBoundsLongScrapes checks how many scrapes run for longer than two seconds, of
// workers that were never readable.
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
				if time.Since(began) > 2200*time.Millisecond { // two seconds after the 0.1 s in a quick slot
					old += n
				}
			}
			w.mu.Unlock()
			if old != 4 { // the other long slots are for readable workers
				w.t.Fatalf("%d scrapes have run for longer than 2 s, want 4", old)
			}
		}
	})
}

// TestSchedulerBoundsSlowScrapes schedules many slow workers that were readable before.
func TestSchedulerBoundsSlowScrapes(t *testing.T) {
	t.Parallel()
	runHangingScheduler(t, time.Minute, target{readable: true, duration: 3 * time.Second}, 50, func(_ context.Context, _ *scheduler, _, running *atomic.Int64) {
		synctest.Wait()
		if n := running.Load(); n != 8 {
			t.Errorf("%d slow scrapes are running, want 8", n)
		}
	})
}

// TestSchedulerPrunesRemovedTargets removes workers whose targets wait for a slot.
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
		t.Errorf("%d targets wait, want 1", left)
	}
	r.refreshTargets()
	if left := r.queues[slowQueue].waiting[1]; len(left) > 0 {
		t.Error("a target waits that no worker has")
	}
}

// TestSchedulerStretchesRoundsWithoutForgetting sets up more slow workers than slots. Rounds get
// longer, and no load expires because of that.
func TestSchedulerStretchesRoundsWithoutForgetting(t *testing.T) {
	t.Parallel()
	const many = 500 // 0.3 s each: 1.5 s for 100 slots, longer than the interval
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

// TestSchedulerReadsSlowWorkerOncePerRound checks that a slow worker gets no second request.
func TestSchedulerReadsSlowWorkerOncePerRound(t *testing.T) {
	t.Parallel()
	runMetricsNetwork(t, 10, 5*time.Second, func(w *metricsNetwork) {
		w.setBehavior(respondsSlowly, 1)
		time.Sleep(52 * time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.requests > 110 {
			t.Errorf("%d requests in 10 rounds with 10 workers", w.requests)
		}
	})
}

// TestScraperRecordsSharedMetricsOnce sets up 20,000 workers with the same URL. It would take too
// long if the metrics were searched once for each worker.
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
	values := []wire.WorkerMetrics{{ScrapedValues: fleet.ScrapedValues{Load: fleet.Load{Waiting: fleet.Some[uint64](9)}}}} // names no worker
	for id := range uint64(many) {
		own := wire.WorkerMetrics{Worker: fleet.Some(1 + id), ScrapedValues: fleet.ScrapedValues{Load: fleet.Load{Waiting: fleet.Some(1 + id)}}}
		other := own
		other.Namespace, other.Load.Waiting = "other", fleet.Some[uint64](7)
		values = append(values, other, own)
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

// TestSchedulerBoundsScrapes checks how long scrapes take at most, and how many connections are
// kept.
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
			t.Errorf("a dial takes %s, want half a second", w.longestDial)
		}
		w.mu.Unlock()
		w.setBehavior(hangs, ids...)
		time.Sleep(12 * time.Second)
		w.mu.Lock()
		if w.longestWait != 2*time.Second {
			t.Errorf("a response takes %s, want 2 s", w.longestWait)
		}
		w.mu.Unlock()
	})
}

// TestSchedulerBoundsQuickScrapes schedules many workers that do not respond. A tenth of a second
// later, others get the quick slots.
func TestSchedulerBoundsQuickScrapes(t *testing.T) {
	t.Parallel()
	runHangingScheduler(t, 0, target{}, 500, func(ctx context.Context, r *scheduler, started, running *atomic.Int64) {
		for at, want := range []int64{100, 200} {
			synctest.Wait()
			now := int64(100 + min(at, 1)*8) // eight of the first ones continue in slow slots
			if started.Load() != want || running.Load() != now {
				t.Errorf("after %d tenths of a second %d scrapes were started and %d are running, want %d and %d", at, started.Load(), running.Load(), want, now)
			}
			r.runUntil(ctx, time.Now().Add(100*time.Millisecond+time.Millisecond))
		}
	})
}

// TestSchedulerRoundsGrowWithTargets checks that rounds grow with the number of targets, and up
// to sixteen times where there are not enough slots.
func TestSchedulerRoundsGrowWithTargets(t *testing.T) {
	s := &Scraper{Fleet: fleet.New(fleet.Target{}, 10, true), Interval: 5 * time.Second}
	r := newScheduler(s, 1, 1, 1)
	length := func(targets int, want time.Duration) {
		t.Helper()
		if got := r.nextRoundLength(targets); got != want {
			t.Errorf("a round of %d targets takes %s, want %s", targets, got, want)
		}
	}
	length(1000, 5*time.Second)
	length(10_000, 10*time.Second)
	x := &target{url: "a", readable: true}
	r.enqueue(x, quickQueue) // a readable target waits
	for _, stretch := range []time.Duration{2, 4, 8, 16, 16, 16} {
		length(1000, stretch*5*time.Second)
	}
	x.due[quickQueue] = false
	for _, stretch := range []time.Duration{8, 4, 2, 1, 1} {
		length(1000, stretch*5*time.Second)
	}
	r.enqueue(&target{url: "b"}, quickQueue) // a target that is not readable
	length(1000, 5*time.Second)
}

// TestSchedulerQuickTimeoutFollowsDurations checks that the timeout is three times the median of
// the last round, within its bounds.
func TestSchedulerQuickTimeoutFollowsDurations(t *testing.T) {
	s := &Scraper{Fleet: fleet.New(fleet.Target{}, 10, true)}
	r := newScheduler(s, 1, 1, 1)
	const ms = time.Millisecond
	for _, c := range []struct{ interval, timeout, usual, want time.Duration }{
		{5000 * ms, 0, ms, 100 * ms}, {5000 * ms, 0, 60 * ms, 180 * ms}, {5000 * ms, 0, 900 * ms, 1000 * ms},
		{5000 * ms, 100 * ms, 60 * ms, 100 * ms}, // not longer than the timeout
		{5000 * ms, 4000 * ms, 900 * ms, 2000 * ms},
		{5000 * ms, time.Minute, 9000 * ms, 2500 * ms}, // at most half of the interval
		{1000 * ms, time.Minute, 9000 * ms, 1000 * ms}, // but at least a second
	} {
		s.Interval, s.Timeout = c.interval, c.timeout
		r.durations = []time.Duration{time.Minute, c.usual, 0}
		r.nextRoundLength(1)
		if r.quickTimeout != c.want {
			t.Errorf("interval %s, timeout %s, usual duration %s: the quick timeout is %s, want %s", c.interval, c.timeout, c.usual, r.quickTimeout, c.want)
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

// runHangingScheduler schedules copies of a target, and runs test while every dial hangs until its
// attempt is cancelled. started and running count the dials.
func runHangingScheduler(t *testing.T, timeout time.Duration, template target, targets int, test func(ctx context.Context, r *scheduler, started, running *atomic.Int64)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var started, running atomic.Int64
		s := &Scraper{Fleet: fleet.New(fleet.Target{}, 1000, true), Interval: time.Second, Timeout: timeout, Log: slog.New(slog.DiscardHandler)}
		s.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			started.Add(1)
			running.Add(1)
			defer running.Add(-1)
			<-ctx.Value(dialStateKey{}).(context.Context).Done()
			return nil, ctx.Err()
		}}}
		s.readers.New = func() any { return new(metricsReader) }
		ctx, stop := context.WithCancel(t.Context())
		quick, slow, long, _ := scrapeLimits(0)
		r := newScheduler(s, quick, slow, long)
		for i := range targets {
			x := template
			x.url = fmt.Sprintf("http://%d/", i)
			r.byURL[x.url] = &x
			r.schedule(ctx, &x)
		}
		test(ctx, r, &started, &running)
		stop()
		r.running.Wait()
		s.client.CloseIdleConnections()
		time.Sleep(time.Minute)
	})
}
