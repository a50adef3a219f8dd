package monitor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// pastTense are problems of what was counted in the last minutes: they never say more than that.
var countingProblems = []string{"outage", "drops", "malformed:messages", "nameless", "gaps"}

// TestProblemEndedMessageIsPastTense goes through all rules that keep a problem raised: of each it
// raises the problem, lets it end in every way, and has its words be of the past.
func TestProblemEndedMessageIsPastTense(t *testing.T) {
	at := func(h *harness, blocks, waiting uint64) {
		h.setReplies(pollReply(generate, 1, blocks, waiting), pollReply(generate, 2, 100, waiting), pollReply(generate, 3, 100, waiting))
	}
	unknown := func(h *harness) { // all go on, and say nothing of their load
		var none []fleet.PollReply
		for id := range uint64(3) {
			r := pollReply(generate, 1+id, 0, 0)
			r.Load = fleet.Load{}
			none = append(none, r)
		}
		h.setReplies(none...)
	}
	silent := func(h *harness) { h.setReplies() }
	hit := func(h *harness, d time.Duration, overlap uint64) {
		for range d / time.Second {
			h.fleet.RecordHit(1, 100, overlap)
			h.tick()
		}
	}
	pass := func(h *harness, counter uint64) {
		for rank := range uint32(8) {
			h.fleet.RecordForwardPass(fleet.Origin{Endpoint: prefill, Worker: 9, Rank: rank}, fleet.Pass{Counter: counter})
		}
	}
	link := func(of func(*stats.Stats) *stats.ConnState, up bool) func(*harness) {
		return func(h *harness) { of(&h.fleet.Stats).SetConnected(up) }
	}
	etcd, nats := func(y *stats.Stats) *stats.ConnState { return &y.Etcd }, func(y *stats.Stats) *stats.ConnState { return &y.NATS }
	type ends map[string]func(*harness)
	rules := map[string]struct {
		begin func(*harness)
		after time.Duration
		now   string // what the title has while it is so
		over  string // and when it is not
		ends  ends
	}{
		"malformed:backend/generate": {
			begin: func(h *harness) { h.setReplies(pollReply(generate, 1, 1, 0), malformedReply(generate, 2)) }, after: time.Second,
			now: "1 worker of backend/generate answers what", over: "1 worker of backend/generate answered what",
			ends: ends{"it can be read": func(h *harness) { at(h, 1, 0) }, "no answer": func(h *harness) { silent(h); h.ticks(2 * time.Second) }},
		},
		"stalled:prefill/generate": {
			begin: func(h *harness) { h.registerPublishing(prefill, 9); pass(h, 1) }, after: 30 * time.Second,
			now: "The engine of 1 worker of prefill/generate has stopped", over: "The engine of 1 worker of prefill/generate had stopped",
			ends: ends{"a pass some seconds ago": func(h *harness) { pass(h, 2); time.Sleep(9 * time.Second); h.monitor.Sample(time.Now()) }},
		},
		"full:backend/generate": {
			begin: func(h *harness) { at(h, 970, 0) }, after: time.Second,
			now: "The KV cache of 1 worker of backend/generate is nearly full", over: "The KV cache of 1 worker of backend/generate was nearly full",
			ends: ends{"a little less": func(h *harness) { at(h, 870, 0) }, "much less": func(h *harness) { at(h, 170, 0) }, "unknown": unknown,
				"silent": func(h *harness) { silent(h); h.ticks(2 * time.Second) }},
		},
		"unread:backend/generate": {
			begin: func(h *harness) { h.setFailedScrapes(generate, 3, stats.ScrapeTimedOut, 1) }, after: time.Second,
			now: "The metrics page of 1 worker of backend/generate cannot", over: "The metrics page of 1 worker of backend/generate could not",
			ends: ends{"of another process": func(h *harness) { h.setFailedScrapes(generate, 1, stats.ScrapeTimedOut, 1) }},
		},
		"waiting:backend/generate": {
			begin: func(h *harness) { at(h, 100, 2); h.ticks(150 * time.Second); at(h, 100, 20) }, after: 11 * time.Second,
			now: "The queue of backend/generate grows", over: "The queue of backend/generate grew",
			ends: ends{"a little less": func(h *harness) { at(h, 100, 3) }, "none": func(h *harness) { at(h, 100, 0) }, "unknown": unknown},
		},
		"saturated:backend/generate": {
			begin: func(h *harness) { at(h, 100, 2) }, after: 61 * time.Second,
			now: "Requests wait at 3 of 3 workers of backend/generate", over: "Requests waited at most workers of backend/generate",
			ends: ends{"at two of three": func(h *harness) {
				h.setReplies(pollReply(generate, 1, 1, 3), pollReply(generate, 2, 1, 3), pollReply(generate, 3, 1, 0))
			},
				"at none": func(h *harness) { at(h, 100, 0) }, "unknown": unknown},
		},
		"imbalance:backend/generate": {
			begin: func(h *harness) { at(h, 800, 0) }, after: 31 * time.Second,
			now: "KV use of backend/generate is uneven: 2.40×", over: "KV use of backend/generate was uneven",
			ends: ends{"less": func(h *harness) {
				h.setReplies(pollReply(generate, 1, 700, 0), pollReply(generate, 2, 400, 0), pollReply(generate, 3, 400, 0))
			},
				"low": func(h *harness) { at(h, 400, 0) }, "unknown": unknown},
		},
		"hits:backend/generate": {
			begin: func(h *harness) { hit(h, 10*time.Minute, 60); hit(h, 3*time.Minute, 2) }, after: time.Second,
			now: "The KV hit rate of backend/generate has collapsed", over: "The KV hit rate of backend/generate had collapsed",
			ends: ends{"back": func(h *harness) { hit(h, time.Minute, 60) }, "in part": func(h *harness) { hit(h, time.Minute, 35) },
				"no input": func(h *harness) { h.ticks(time.Minute) }},
		},
		"connection:etcd": {begin: link(etcd, false), after: 4 * time.Second, now: "etcd is not", over: "etcd was not", ends: ends{"back": link(etcd, true)}},
		"connection:nats": {begin: link(nats, false), after: 4 * time.Second, now: "NATS is not", over: "NATS was not", ends: ends{"back": link(nats, true)}},
		"connection:file": {
			begin: func(h *harness) { h.fleet.Stats.Files.MarkUsed() }, after: 4 * time.Second, now: "cannot be read", over: "could not be read",
			ends: ends{"back": func(h *harness) { h.fleet.Stats.Files.SetConnected(true) }},
		},
		"connection:kubernetes": {
			begin: func(h *harness) { h.fleet.Stats.Kubernetes.MarkUsed() }, after: 4 * time.Second, now: "cannot be read", over: "could not be read",
			ends: ends{"back": func(h *harness) { h.fleet.Stats.Kubernetes.SetConnected(true) }},
		},
		"permission:nats": {
			begin: func(h *harness) { h.fleet.Diagnostics.SetSubjects([]fleet.Subject{{Name: "a", Refused: true}}) }, after: time.Second,
			now: "NATS denies a", over: "NATS denied a", ends: ends{"granted": func(h *harness) { h.fleet.Diagnostics.SetSubjects(nil) }},
		},
		"connection:zmq": {
			begin: func(h *harness) {
				h.fleet.Stats.ZMQ.MarkUsed()
				h.fleet.Stats.ZMQ.SetConnected(true)
				h.fleet.Stats.Publishers.Store(3)
				h.fleet.Stats.PublishersUp.Store(2)
				h.fleet.Diagnostics.SetUnreachable(fleet.Channel{Address: "tcp://10.0.4.19:40113", Plane: fleet.ZMQPlane}, time.Now())
			}, after: 50 * time.Second,
			now: "2 of 3 ZMQ publishers can be reached", over: "ZMQ publishers could not be reached",
			ends: ends{"back": func(h *harness) { h.fleet.Stats.PublishersUp.Store(3) }, "withdrawn": func(h *harness) { h.fleet.Stats.Publishers.Store(2) }},
		},
		"leader": {
			begin: func(h *harness) { h.fleet.Stats.ActsAsLeader.Store(false) }, after: 16 * time.Second, now: "There may be no", over: "There may have been no",
			ends: ends{"this leads": func(h *harness) { h.fleet.Stats.ActsAsLeader.Store(true) }, "another does": func(h *harness) { h.fleet.Stats.OtherLeader.Store(true) }},
		},
		"limit": {
			begin: func(h *harness) { h.fleet.Stats.CountRefused(stats.WorkerLimit) }, after: time.Second, now: "There is no room", over: "There was no room",
			ends: ends{"none more": func(*harness) {}},
		},
		"limit:publishers": {
			begin: func(h *harness) { h.fleet.Stats.PublishersWaiting.Store(1) }, after: time.Second, now: "have to wait", over: "had to wait",
			ends: ends{"none waits": func(h *harness) { h.fleet.Stats.PublishersWaiting.Store(0) }},
		},
		"limit:page": {
			begin: func(h *harness) { h.monitor.unwrittenRows = 1 }, after: time.Second, now: "Not everything is shown", over: "Not everything was shown",
			ends: ends{"all is": func(h *harness) { h.tick() }},
		},
		"planes": {
			begin: func(h *harness) {
				h.fleet.Diagnostics.SetPlaneMismatches(map[string]string{"backend": "workers on ZMQ, routers on NATS"})
			}, after: time.Second,
			now: "are on different event planes", over: "were on different event planes", ends: ends{"none": func(h *harness) { h.fleet.Diagnostics.SetPlaneMismatches(nil) }},
		},
	}
	for id, c := range rules {
		for how, end := range c.ends {
			t.Run(id+": "+how, func(t *testing.T) {
				inBubble(t, func(h *harness) {
					h.registerPolled(generate, 1, 2, 3)
					at(h, 100, 0)
					h.ticks(2 * time.Second)
					c.begin(h)
					h.ticks(c.after)
					now := h.problem(id)
					if !strings.Contains(now.Title, c.now) {
						t.Fatalf("while it is so: %+v, want %q in the title", now, c.now)
					}
					end(h)
					if id != "stalled:prefill/generate" { // which is over with the next pass
						h.tick()
					}
					over := h.problem(id)
					if !strings.Contains(over.Title, c.over) || strings.Contains(over.Title, c.now) && !strings.Contains(c.over, c.now) {
						t.Errorf("when it is over: %q, want %q", over.Title, c.over)
					}
					if over.Check != endedCheck && id != "limit" || over.Since != now.Since {
						t.Errorf("when it is over: %+v", over)
					}
					if over.Detail == now.Detail && id != "limit" {
						t.Errorf("the detail is what it was: %q", over.Detail)
					}
				})
			})
		}
	}
	for _, r := range workerRules {
		expectTried(t, r.kind, r.endedMessage != nil, rules[r.kind+":backend/generate"].begin != nil || rules[r.kind+":prefill/generate"].begin != nil)
	}
	for _, r := range endpointRules {
		expectTried(t, r.kind, r.endedMessage != nil, rules[r.kind+":backend/generate"].begin != nil)
	}
	for _, r := range programRules {
		expectTried(t, r.kind, r.endedMessage != nil && !slices.Contains(countingProblems, r.kind), rules[r.kind].begin != nil)
	}
}

// needed fails the test if a rule that keeps problems raised is not tried.
func expectTried(t *testing.T, kind string, keeps, tried bool) {
	t.Helper()
	if keeps && !tried {
		t.Errorf("the rule %s is not tried", kind)
	}
}

// TestProblemFullCountsOnlyFullWorkers.
func TestProblemFullCountsOnlyFullWorkers(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "full:backend/generate"
		h.registerPolled(generate, 1, 2, 3)
		at := func(a, b, c uint64) {
			h.setReplies(pollReply(generate, 1, a, 0), pollReply(generate, 2, b, 0), pollReply(generate, 3, c, 0))
		}
		at(970, 950, 100)
		h.tick()
		testutil.Equal(t, "title", h.problem(id).Title, "The KV caches of 2 workers of backend/generate are nearly full")
		at(170, 950, 100)
		h.ticks(12 * time.Second)
		p := h.problem(id)
		testutil.Equal(t, "title of one of them", p.Title, "The KV cache of 1 worker of backend/generate is nearly full")
		testutil.Equal(t, "workers", p.Workers, []string{"2"})
		at(170, 870, 100)
		h.ticks(5 * time.Second)
		p = h.problem(id)
		testutil.Equal(t, "title when none is", p.Title, "The KV caches of 2 workers of backend/generate were nearly full")
		testutil.Equal(t, "detail", p.Detail, "backend/generate: 1 (97\u00a0% 17 s ago, now 17\u00a0%) and 2 (95\u00a0% 5 s ago, now 87\u00a0%).")
		testutil.Equal(t, "workers", p.Workers, []string{"1", "2"})
	})
}

// TestProblemTitlesCountWorkersNotRanks in no title, of no rule that is about rows.
func TestProblemTitlesCountWorkersNotRanks(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPublishing(generate, 0x21, 0x22)
		second := func(counter, blocks uint64) {
			for rank := range uint32(8) {
				from := fleet.Origin{Endpoint: generate, Worker: 0x21, Rank: rank}
				h.fleet.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: u(blocks), Waiting: u(2)})
				if counter > 0 {
					h.fleet.RecordForwardPass(from, fleet.Pass{Counter: counter, Waiting: 2})
				}
			}
			h.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 0x22}, fleet.FromActiveLoad, fleet.Load{KVActive: u(10)})
			h.tick()
		}
		for n := range uint64(70) {
			second(1+n, 960)
		}
		for range 30 {
			second(0, 960)
		}
		for id, want := range map[string]string{
			"full:backend/generate":      "The KV cache of 1 worker of backend/generate is nearly full",
			"stalled:backend/generate":   "The engine of 1 worker of backend/generate has stopped reporting",
			"imbalance:backend/generate": "KV use of backend/generate is uneven: 1.98× the mean",
		} {
			p := h.problem(id)
			testutil.Equal(t, id, p.Title, want)
			if n := len(p.Workers); n < 8 {
				t.Errorf("%s has %d rows: %v", id, n, p.Workers)
			}
			if !strings.HasPrefix(p.Detail, "backend/generate: 21") || strings.Contains(p.Detail, "more") {
				t.Errorf("%s: %q", id, p.Detail)
			}
		}
		h.setFailedScrapes(generate, 3, stats.ScrapeTimedOut, 0x21)
		second(0, 500)
		testutil.Equal(t, "what was full", h.problem("full:backend/generate").Title, "The KV cache of 1 worker of backend/generate was nearly full")
		testutil.Equal(t, "pages", h.problem("unread:backend/generate").Title, "The metrics page of 1 worker of backend/generate cannot be read")
	})
}

// TestProblemAdviceFitsTheNumbers where caches are full.
func TestProblemAdviceFitsTheNumbers(t *testing.T) {
	for _, c := range []struct {
		blocks        []uint64
		with, without string
	}{
		{[]uint64{950, 930, 910}, "the whole endpoint is full", "--router-temperature"},
		{[]uint64{950, 800, 790}, "add workers", "the whole endpoint is full"}, // a mean of 85 %
		{[]uint64{950, 100, 100}, "--router-temperature", "the whole endpoint is full"},
		{[]uint64{950}, "add workers", "the whole endpoint is full"}, // it is all there is
	} {
		inBubble(t, func(h *harness) {
			for i, blocks := range c.blocks {
				h.registerPolled(generate, uint64(1+i))
				h.replies = append(h.replies, pollReply(generate, uint64(1+i), blocks, 0))
			}
			h.tick()
			p := h.problem("full:backend/generate")
			if !strings.Contains(p.Check, c.with) || strings.Contains(p.Check, c.without) {
				t.Errorf("%v: %q beside %q", c.blocks, p.Check, p.Detail)
			}
		})
	}
	inBubble(t, func(h *harness) { // requests wait, and nothing is said of KV use
		h.registerPolled(generate, 1)
		r := pollReply(generate, 1, 0, 0)
		r.Load = fleet.Load{Waiting: u(4)}
		h.setReplies(r)
		h.ticks(62 * time.Second)
		p := h.problem("saturated:backend/generate")
		if !strings.HasSuffix(p.Detail, "The mean KV use is not known.") || strings.Contains(p.Check, "caches") {
			t.Errorf("%q beside %q", p.Check, p.Detail)
		}
	})
}
