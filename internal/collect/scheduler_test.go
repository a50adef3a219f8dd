package collect

import (
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
)

func TestScrapedLoadOutlivesTwoFailures(t *testing.T) {
	t.Parallel()
	runMetricsNetwork(t, 1, 5*time.Second, func(w *metricsNetwork) {
		worker := func() fleet.WorkerState { return w.fleet.Snapshot().Workers[0] }
		w.setBehavior(responds, 1)
		time.Sleep(11 * time.Second)
		if got := worker().Load.V; got != blocksLoad(1) {
			t.Fatalf("the worker has %+v", got)
		}
		w.setBehavior(refuses, 1)
		for worker().Load.OK {
			time.Sleep(100 * time.Millisecond)
		}
		if errs := w.fleet.Stats.Scrapes(stats.ScrapeError); errs != 2 {
			t.Errorf("the load is gone after %d counted failures, want 2", errs)
		}
		if x := worker(); x.Up || !x.Listed {
			t.Errorf("the worker is %+v, want silent", x)
		}
		w.setBehavior(responds, 1)
		time.Sleep(10 * time.Second)
		if got := worker().Load.V; got != blocksLoad(1) {
			t.Errorf("the worker has %+v after it has recovered", got)
		}
	})
}

// TestScrapedLoadStaysForTwoRounds checks that the load of a worker that cannot be scraped any
// more is kept for two rounds, and for three at most, whenever in a round it is read.
func TestScrapedLoadStaysForTwoRounds(t *testing.T) {
	t.Parallel()
	for _, interval := range []time.Duration{time.Second, 5 * time.Second, time.Minute} {
		for name, how := range map[string]behavior{"refuses": refuses, "hangs": hangs, "drops packets": dropsPackets} {
			t.Run(fmt.Sprint(interval, " ", name), func(t *testing.T) {
				t.Parallel()
				runMetricsNetwork(t, 20, interval, func(w *metricsNetwork) {
					ids, read, gone := shuffled(20, 1), make(map[uint64]time.Time), make(map[uint64]time.Duration)
					w.setBehavior(responds, ids...)
					time.Sleep(2*interval + interval/3)
					for _, id := range ids {
						read[id] = w.readTime(id)
					}
					w.setBehavior(how, ids...)
					const tick = 100 * time.Millisecond // the step of the Fleet's clock
					step := interval / 20
					for range 4 * 20 {
						for _, x := range w.fleet.Snapshot().Workers {
							if id := x.ID.Lease; !x.Load.OK && gone[id] == 0 {
								gone[id] = time.Since(read[id])
							}
						}
						time.Sleep(step)
					}
					for _, id := range ids {
						if gone[id] < 2*interval-tick || gone[id] > 3*interval+2*step+tick {
							t.Errorf("the load of worker %d is gone after %s, want two or three times %s", id, gone[id], interval)
						}
					}
				})
			})
		}
	}
}

func TestScraperStopsWhenWorkerLeaves(t *testing.T) {
	t.Parallel()
	runMetricsNetwork(t, 20, 5*time.Second, func(w *metricsNetwork) {
		ids := shuffled(20, 2)
		leave, stay := ids[:10], ids[10:]
		w.setBehavior(responds, ids...)
		time.Sleep(12 * time.Second)
		for _, id := range leave {
			w.fleet.Deregister(fmt.Sprint(id-1), fleet.Instance{Endpoint: backendEndpoint, ID: id})
		}
		time.Sleep(5 * time.Second)     // the round in which they left is over
		w.setBehavior(responds, ids...) // resets the read times
		time.Sleep(10 * time.Second)
		for _, id := range leave {
			if at := w.readTime(id); !at.IsZero() {
				t.Errorf("worker %d, which has left, was scraped %s ago", id, time.Since(at))
			}
		}
		for _, id := range stay {
			if w.readTime(id).IsZero() {
				t.Errorf("worker %d is not scraped any more", id)
			}
		}
		if n := len(w.fleet.Snapshot().Workers); n != len(stay) {
			t.Errorf("%d workers, want %d", n, len(stay))
		}
	})
}

func TestScraperWaitsForRegistry(t *testing.T) {
	t.Parallel()
	f := newMetricsServer(t)
	f.fleet = fleet.New(fleet.Target{}, 1000, true)
	f.scrape(nil)
	f.register(1, blocksHandler(40))
	f.waitLoads(nil)
	f.fleet.Sync(fleet.Listing{Instances: map[string]fleet.InstanceEntry{
		"": {Instance: fleet.Instance{Endpoint: backendEndpoint, ID: 1}, Registration: fleet.Registration{Publishes: true}},
	}})
	f.waitRequests(1, 1)
	f.waitLoads(map[uint64]fleet.Load{1: blocksLoad(40)})
}

func TestScrapePhaseIsUniform(t *testing.T) {
	t.Parallel()
	const tenths = 10
	var counts [tenths]int
	for i := range 10_000 {
		counts[int(scrapePhase(fmt.Sprintf("http://192.0.2.%d:%d/metrics", i%250, 9000+i/250))*tenths)]++
	}
	for i, n := range counts {
		if n < 850 || n > 1150 {
			t.Errorf("%d of 10,000 workers are scraped in tenth %d of a round", n, i)
		}
	}
}
