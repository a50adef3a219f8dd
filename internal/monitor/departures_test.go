package monitor

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

const lostProblemID = "lost:backend/generate"

// deregister deregisters workers of backend/generate, one after the other.
func (h *harness) deregister(ids ...uint64) {
	for _, id := range ids {
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: id})
		h.tick()
	}
}

func TestLostNamesWorkerWithTwoRanksOnce(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPublishing(generate, 1, 2)
		for rank := range uint32(2) {
			h.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 1, Rank: rank}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		}
		h.ticks(20 * time.Second)
		h.deregister(1)
		h.expectWithin(5, lostProblemID, true)
		testutil.Equal(h.t, "title", h.problem(lostProblemID).Title, "1 worker of backend/generate is gone")
		testutil.Equal(h.t, "detail", h.problem(lostProblemID).Detail, "backend/generate: of 2 workers in the last 10 min 1 is left. It is not known whether these deregistered: 1.")
	})
}

func TestLostForgetsReturnedWorker(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2, 3, 4)
		h.ticks(20 * time.Second)
		h.deregister(2, 3)
		h.expectWithin(4, lostProblemID, true)
		testutil.Equal(h.t, "detail", h.problem(lostProblemID).Detail, "backend/generate: of 4 workers in the last 10 min 2 are left. It is not known whether these deregistered: 3 and 2.")
		h.registerPolled(generate, 2)
		h.tick()
		testutil.Equal(h.t, "detail after one returned", h.problem(lostProblemID).Detail, "backend/generate: of 4 workers in the last 10 min 3 are left. It is not known whether these deregistered: 3.")
		h.deregister(2) // for the second time
		testutil.Equal(h.t, "detail after one left twice", h.problem(lostProblemID).Detail, "backend/generate: of 4 workers in the last 10 min 2 are left. It is not known whether these deregistered: 2 and 3.")
		h.registerPolled(generate, 2, 3)
		h.expectWithin(1, lostProblemID, false)
		testutil.Equal(h.t, "departures", h.monitor.departureCount, 0)
	})
}

func TestLostIgnoresMovedWorker(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2, 3, 4)
		h.ticks(20 * time.Second)
		h.registerPolled(prefill, 1)
		h.tick()
		h.deregister(1)
		h.expectStays(20*time.Second, lostProblemID, false)
	})
}

func TestLostOmitsReplacedWorkerFromNames(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2, 3, 4)
		h.ticks(20 * time.Second)
		h.registerPolled(generate, 5)
		h.deregister(2)
		h.expectStays(20*time.Second, lostProblemID, false)
		h.deregister(3)
		h.expectWithin(5, lostProblemID, true)
		testutil.Equal(h.t, "detail", h.problem(lostProblemID).Detail, "backend/generate: of 4 workers in the last 10 min 3 are left. It is not known whether these deregistered: 3.")
	})
}

func TestLostNamesWorkerOfTwoEndpointsOnce(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2)
		h.registerPolled(prefill, 1, 2)
		h.ticks(20 * time.Second)
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 1})
		h.fleet.Deregister("", fleet.Instance{Endpoint: prefill, ID: 1})
		h.ticks(10 * time.Second)
		named := 0
		for _, p := range h.snapshot().Problems {
			if p.Kind == "lost" {
				named++
			}
		}
		testutil.Equal(h.t, "problems", named, 1)
	})
}

func TestLostIgnoresNeverCountedWorker(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPublishing(generate, 1)
		h.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 1}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		h.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 2}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)}) // it is not registered
		h.tick()
		testutil.Equal(h.t, "unregistered", h.snapshot().Fleet.States.Unregistered, 1)
		h.expectStays(2*time.Minute, lostProblemID, false)
	})
}

func TestLostWaitsForReportingWorker(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2)
		h.setReplies(pollReply(generate, 1, 1, 0), pollReply(generate, 2, 1, 0))
		h.ticks(20 * time.Second)
		h.deregister(2) // but it still answers polls
		h.expectStays(30*time.Second, lostProblemID, false)
		h.setReplies(pollReply(generate, 1, 1, 0))
		h.expectWithin(7, lostProblemID, true)
		testutil.Equal(h.t, "detail", h.problem(lostProblemID).Detail, "backend/generate: of 2 workers in the last 10 min 1 is left. These deregistered, and reported until then: 2.")
	})
}

func TestLostIgnoresEndpointWithoutLoad(t *testing.T) {
	inBubble(t, func(h *harness) {
		other := fleet.Endpoint{Component: "backend", Name: "other"}
		h.registerPolled(generate, 1, 2)
		h.registerPolled(other, 1, 2, 3)
		h.ticks(20 * time.Second)
		h.fleet.SetCard("1", fleet.Instance{Endpoint: generate, ID: 1}, fleet.Card{})
		h.fleet.SetCard("2", fleet.Instance{Endpoint: generate, ID: 2}, fleet.Card{})
		h.tick()
		testutil.Equal(h.t, "silent", h.snapshot().Fleet.States.Silent, 3)
		h.expectStays(time.Minute, "lost:backend/other", false)
		h.expectStays(time.Minute, lostProblemID, false)
	})
}

func TestLostIgnoresRouters(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2)
		routers := fleet.Endpoint{Component: "backend", Name: "router-discovery"}
		for id := range uint64(3) {
			in := fleet.Instance{Endpoint: routers, ID: 10 + id}
			h.fleet.Register("", in, fleet.Registration{Role: fleet.RouterRole, Publishes: true})
		}
		h.ticks(20 * time.Second)
		before := h.raised()
		h.fleet.Deregister("", fleet.Instance{Endpoint: routers, ID: 11})
		h.ticks(time.Minute)
		testutil.Equal(h.t, "problems", h.raised(), before)
		testutil.Equal(h.t, "workers", h.snapshot().Fleet.States.Silent, 2)
	})
}

func TestLostDeparturesAreBounded(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2, 3)
		h.ticks(20 * time.Second)
		h.monitor.departureCount = maxDepartures - 1
		h.deregister(1, 2) // there is room for one: the other is counted, but not named
		h.expectWithin(4, lostProblemID, true)
		testutil.Equal(h.t, "detail", h.problem(lostProblemID).Detail, "backend/generate: of 3 workers in the last 10 min 1 is left. It is not known whether these deregistered: 1.")
		testutil.Equal(h.t, "departures", h.monitor.departureCount, maxDepartures)
	})
}

// departureTest describes a worker that leaves while another stays.
type departureTest struct {
	register func(h *harness, ids ...uint64)
	alive    func(h *harness, id uint64) // called each second; nil: the worker answers polls
	silent   time.Duration               // how long it is silent before its registration is gone
	before   func(*harness)              // called just before that
	after    bool                        // it reports after that
	want     string                      // end of the detail
}

const (
	stoppedReporting = " These stopped reporting while they were registered, so they ended without deregistering: 1."
	notKnown         = " It is not known whether these deregistered: 1."
	reportedUntilEnd = " These deregistered, and reported until then: 1."
)

func publishLoad(h *harness, id uint64) {
	h.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: id}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
}

// recordPass records a forward pass of two ranks.
func recordPass(h *harness, id uint64) {
	for rank := range uint32(2) {
		h.fleet.RecordForwardPass(fleet.Origin{Endpoint: generate, Worker: id, Rank: rank}, fleet.Pass{Counter: uint64(time.Now().Unix())})
	}
}

// recordScrape records a scrape of the worker's own metrics.
func recordScrape(h *harness, id uint64) {
	in := fleet.Instance{Endpoint: generate, ID: id}
	h.fleet.RecordScrape(fleet.ScrapeTarget{Instance: in, Metrics: "10.0.4.19:9090"}, []fleet.ScrapedValues{{Load: fleet.Load{KVTotal: u(1000), CacheUsage: fleet.Some(0.25)}}})
}

func registerGenerate(h *harness, ids ...uint64) { h.registerPublishing(generate, ids...) }

var departureTests = map[string]departureTest{
	"polled, reports until then":     {want: reportedUntilEnd},
	"polled, reports after it":       {after: true, want: reportedUntilEnd},
	"polled, killed, short lease":    {silent: 6 * time.Second, want: stoppedReporting},
	"polled, killed, long lease":     {silent: 30 * time.Second, want: stoppedReporting},
	"polled, registry not connected": {silent: 10 * time.Second, before: func(h *harness) { h.fleet.Stats.Etcd.SetConnected(false); h.tick() }, want: notKnown},
	"polled, NATS not connected":     {silent: 10 * time.Second, before: func(h *harness) { h.fleet.Stats.NATS.SetConnected(false); h.tick() }, want: notKnown},
	"polled, no publisher connected": {silent: 10 * time.Second, before: func(h *harness) { h.fleet.Stats.ZMQ.MarkUsed(); h.tick() }, want: stoppedReporting},
	"forward passes, no publisher connected": {register: registerGenerate, alive: recordPass, silent: 20 * time.Second,
		before: func(h *harness) { h.fleet.Stats.ZMQ.MarkUsed(); h.tick() }, want: notKnown},
	"polled, never reported":             {alive: func(*harness, uint64) {}, want: notKnown},
	"publishing, reported just before":   {register: registerGenerate, alive: publishLoad, want: reportedUntilEnd},
	"publishing, silent as if idle":      {register: registerGenerate, alive: publishLoad, silent: 10 * time.Second, want: notKnown},
	"forward passes, reports until then": {register: registerGenerate, alive: recordPass, want: reportedUntilEnd},
	"forward passes, killed":             {register: registerGenerate, alive: recordPass, silent: 20 * time.Second, want: stoppedReporting},
	"scraped until then":                 {register: registerGenerate, alive: recordScrape, want: reportedUntilEnd},
	"scraped, killed":                    {register: registerGenerate, alive: recordScrape, silent: 26 * time.Second, want: stoppedReporting},
	"scraped, scrapes fail": {register: registerGenerate, alive: recordScrape, silent: 6 * time.Second,
		before: func(h *harness) { h.setFailedScrapes(generate, 1, stats.ScrapeNotConnected, 1); h.tick() }, want: stoppedReporting},
	"in Kubernetes, reports until then": {register: registerGenerate, alive: recordPass,
		before: func(h *harness) { h.fleet.Stats.Kubernetes.MarkUsed(); h.fleet.Stats.Kubernetes.SetConnected(true) }, want: notKnown},
	"in Kubernetes, killed": {register: registerGenerate, alive: recordPass, silent: 20 * time.Second,
		before: func(h *harness) { h.fleet.Stats.Kubernetes.MarkUsed(); h.fleet.Stats.Kubernetes.SetConnected(true) }, want: stoppedReporting},
}

// second lets a second pass in which these workers report.
func (c *departureTest) second(h *harness, ids ...uint64) {
	if c.alive == nil {
		h.replies = nil
	}
	for _, id := range ids {
		if c.alive == nil {
			h.replies = append(h.replies, pollReply(generate, id, 1, 0))
		} else {
			c.alive(h, id)
		}
	}
	h.tick()
}

// run lets worker 1 leave while worker 2 stays.
func (c *departureTest) run(h *harness) {
	h.monitor.options.Poll, h.monitor.options.Scrape = 2*time.Second, 5*time.Second
	if c.register == nil {
		h.registerPolled(generate, 1, 2)
	} else {
		c.register(h, 1, 2)
	}
	for range 20 {
		c.second(h, 1, 2)
	}
	for range c.silent / time.Second {
		c.second(h, 2)
	}
	if c.before != nil {
		c.before(h)
	}
	h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 1})
	if c.after {
		for range 5 {
			c.second(h, 1, 2)
		}
	}
	for range 10 {
		c.second(h, 2)
	}
}

// TestLostClassifiesDepartures tries workers with each source of loads.
func TestLostClassifiesDepartures(t *testing.T) {
	for name, c := range departureTests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(h *harness) {
				c.run(h)
				const start = "backend/generate: of 2 workers in the last 10 min 1 is left."
				testutil.Equal(t, "detail", h.problem(lostProblemID).Detail, start+c.want)
			})
		})
	}
}

// TestLostSeverityGrowsWithShare also checks that a loss is never reported only as
// deregistrations.
func TestLostSeverityGrowsWithShare(t *testing.T) {
	for _, c := range []struct {
		all, killed, deregistered, unsure int
		severity, title                   string
	}{
		{44, 1, 0, 0, "warn", "1 worker of backend/generate was lost"},
		{44, 4, 0, 0, "warn", "4 workers of backend/generate were lost"}, // 9 %
		{28, 4, 0, 0, "bad", "4 workers of backend/generate were lost"},
		{40, 4, 0, 0, "bad", "4 workers of backend/generate were lost"}, // 10 %
		{2, 1, 0, 0, "bad", "1 worker of backend/generate was lost"},
		{44, 0, 1, 0, "info", "1 worker of backend/generate has deregistered"},
		{44, 0, 40, 0, "info", "40 workers of backend/generate have deregistered"},
		{44, 1, 40, 0, "warn", "1 worker of backend/generate was lost"},
		{44, 0, 0, 10, "warn", "10 workers of backend/generate are gone"},
		{44, 0, 0, 22, "bad", "22 workers of backend/generate are gone"},
		{44, 1, 2, 1, "warn", "2 workers of backend/generate are gone"},
		{4, 4, 0, 0, "bad", "No worker of backend/generate is left"},
		{4, 0, 4, 0, "bad", "No worker of backend/generate is left"},
	} {
		t.Run(fmt.Sprintf("%d: %d, %d, %d", c.all, c.killed, c.deregistered, c.unsure), func(t *testing.T) {
			inBubble(t, func(h *harness) {
				var answers []fleet.PollReply
				for id := 1; id <= c.all; id++ {
					h.registerPolled(generate, uint64(id))
					if id > c.unsure { // the first workers never report
						answers = append(answers, pollReply(generate, uint64(id), 1, 0))
					}
				}
				h.setReplies(answers...)
				h.ticks(20 * time.Second)
				deregistered := answers[:c.deregistered]
				stay := answers[c.deregistered+c.killed:]
				h.setReplies(slices.Concat(deregistered, stay)...)
				h.ticks(10 * time.Second)
				for id := 1; id <= c.unsure+c.deregistered+c.killed; id++ {
					h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: uint64(id)})
				}
				h.setReplies(stay...)
				h.ticks(10 * time.Second)
				p := h.problem(lostProblemID)
				testutil.Equal(t, "problem", []string{p.Severity, p.Title}, []string{c.severity, c.title})
				if first := h.snapshot().Problems[0]; c.severity == "bad" && first.ID != lostProblemID {
					t.Errorf("the first problem is %s, want %s", first.ID, lostProblemID)
				}
			})
		})
	}
}

// TestLostNamesCrashedWorkerDespiteReplacement checks that workers that did not deregister are
// named first when some of the lost workers were replaced.
func TestLostNamesCrashedWorkerDespiteReplacement(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2, 3, 4)
		all := []fleet.PollReply{pollReply(generate, 1, 1, 0), pollReply(generate, 2, 1, 0), pollReply(generate, 3, 1, 0), pollReply(generate, 4, 1, 0), pollReply(generate, 5, 1, 0)}
		h.setReplies(all[:4]...)
		h.ticks(20 * time.Second)
		h.setReplies(all[1:4]...)
		h.ticks(10 * time.Second)
		h.deregister(1) // killed
		h.registerPolled(generate, 5)
		h.setReplies(all[2:]...)
		h.deregister(2) // deregistered, and replaced by 5
		h.ticks(10 * time.Second)
		testutil.Equal(h.t, "title", h.problem(lostProblemID).Title, "1 worker of backend/generate was lost")
		testutil.Equal(h.t, "detail", h.problem(lostProblemID).Detail, "backend/generate: of 4 workers in the last 10 min 3 are left. These stopped reporting while they were registered, so they ended without deregistering: 1.")
	})
}

// TestLostReportsSilentStaticWorker checks that a static worker, which cannot deregister, counts as
// lost once it is silent.
func TestLostReportsSilentStaticWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target{Component: "backend"}, 100, false)
		f.Stats.NATS.MarkUsed()
		f.Stats.NATS.SetConnected(true)
		f.Stats.RecordPoll(stats.PollOK, time.Millisecond)
		h := &harness{t: t, fleet: f, monitor: New(Options{Fleet: f, Namespaces: "dynamo", Limit: 100, Poll: time.Second})}
		static := func(name string) fleet.PollReply {
			r := pollReply(generate, 0, 250, 0)
			r.Worker = fleet.WorkerID{Static: name}
			return r
		}
		h.setReplies(static("A"), static("B"))
		h.ticks(20 * time.Second)
		h.setReplies(static("B"))
		h.ticks(10 * time.Second)
		p := h.problem(lostProblemID)
		testutil.Equal(t, "problem", []string{p.Severity, p.Title, p.Detail}, []string{"bad", "1 worker of backend/generate was lost", "backend/generate: of 2 workers in the last 10 min 1 is left. These no longer answer: A."})
		h.setReplies(static("B"), static("C"))
		h.expectWithin(1, lostProblemID, false)
	})
}

// TestProblemOrderIsStable checks that the worst problems come first, and among equally bad ones the
// oldest.
func TestProblemOrderIsStable(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2)
		h.registerPolled(prefill, 3, 4)
		h.setReplies(pollReply(generate, 1, 1, 0), pollReply(generate, 2, 1, 0), pollReply(prefill, 3, 1, 0), pollReply(prefill, 4, 950, 0))
		h.ticks(5 * time.Second)
		h.setReplies(pollReply(generate, 1, 950, 0), pollReply(generate, 2, 950, 0), pollReply(prefill, 3, 1, 0), pollReply(prefill, 4, 950, 0))
		h.ticks(5 * time.Second)
		h.fleet.Stats.MissedEvents.Add(1)
		h.setReplies(pollReply(generate, 1, 950, 0), pollReply(generate, 2, 950, 0), pollReply(prefill, 4, 950, 0))
		h.ticks(5 * time.Second)
		h.fleet.Stats.AddDropped(stats.QueueFull, 1)
		want := []string{"silent:prefill/generate", "gaps", "drops", "full:prefill/generate", "full:backend/generate"}
		for range 20 {
			h.tick()
			var got []string
			for _, p := range h.snapshot().Problems {
				if p.Kind != "imbalance" {
					got = append(got, p.ID)
				}
			}
			testutil.Equal(h.t, "problems", got, want)
		}
	})
}
