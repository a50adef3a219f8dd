package monitor

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// countingProblems report what was counted in the last minutes, so their messages are always in
// the past tense.
var countingProblems = []string{"outage", "drops", "malformed:messages", "nameless", "gaps"}

// changes are ways in which a condition ends.
type changes map[string]func(*harness)

// endedProblem begins a problem whose rule keeps it raised after its condition has ended.
type endedProblem struct {
	begin func(*harness)
	after time.Duration
	now   string // part of the title while the condition holds
	over  string // part of the title after that
	ends  changes
}

// setLoads makes the first of three workers report this many blocks, and the others 100.
func setLoads(h *harness, blocks, waiting uint64) {
	h.setReplies(pollReply(generate, 1, blocks, waiting), pollReply(generate, 2, 100, waiting), pollReply(generate, 3, 100, waiting))
}

// setEmptyLoads makes all workers reply without a load.
func setEmptyLoads(h *harness) {
	var none []fleet.PollReply
	for id := range uint64(3) {
		r := pollReply(generate, 1+id, 0, 0)
		r.Load = fleet.Load{}
		none = append(none, r)
	}
	h.setReplies(none...)
}

func setNoReplies(h *harness) { h.setReplies() }

// recordHits records a hit of 100 input blocks each second.
func recordHits(h *harness, d time.Duration, overlap uint64) {
	for range d / time.Second {
		h.fleet.RecordHit(1, 100, overlap)
		h.tick()
	}
}

// recordPasses records a forward pass of each rank.
func recordPasses(h *harness, counter uint64) {
	for rank := range uint32(8) {
		h.fleet.RecordForwardPass(fleet.Origin{Endpoint: prefill, Worker: 9, Rank: rank}, fleet.Pass{Counter: counter})
	}
}

func setEtcd(up bool) func(*harness) {
	return func(h *harness) { h.fleet.Stats.Etcd.SetConnected(up) }
}

func setNATS(up bool) func(*harness) {
	return func(h *harness) { h.fleet.Stats.NATS.SetConnected(up) }
}

var endedWorkerProblems = map[string]endedProblem{
	"malformed:backend/generate": {
		begin: func(h *harness) { h.setReplies(pollReply(generate, 1, 1, 0), malformedReply(generate, 2)) }, after: time.Second,
		now: "1 worker of backend/generate sends", over: "1 worker of backend/generate sent",
		ends: changes{"it can be read": func(h *harness) { setLoads(h, 1, 0) }, "no answer": func(h *harness) { setNoReplies(h); h.ticks(2 * time.Second) }},
	},
	"stalled:prefill/generate": {
		begin: func(h *harness) { h.registerPublishing(prefill, 9); recordPasses(h, 1) }, after: 30 * time.Second,
		now: "The engine of 1 worker of prefill/generate has stopped", over: "The engine of 1 worker of prefill/generate had stopped",
		ends: changes{"a pass some seconds ago": func(h *harness) { recordPasses(h, 2); time.Sleep(9 * time.Second); h.monitor.Sample(time.Now()) }},
	},
	"full:backend/generate": {
		begin: func(h *harness) { setLoads(h, 970, 0) }, after: time.Second,
		now: "The KV cache of 1 worker of backend/generate is nearly full", over: "The KV cache of 1 worker of backend/generate was nearly full",
		ends: changes{"a little less": func(h *harness) { setLoads(h, 870, 0) }, "much less": func(h *harness) { setLoads(h, 170, 0) }, "unknown": setEmptyLoads,
			"silent": func(h *harness) { setNoReplies(h); h.ticks(2 * time.Second) }},
	},
	"unread:backend/generate": {
		begin: func(h *harness) { h.setFailedScrapes(generate, 3, stats.ScrapeTimedOut, 1) }, after: time.Second,
		now: "The metrics of 1 worker of backend/generate cannot", over: "The metrics of 1 worker of backend/generate could not",
		ends: changes{"of another process": func(h *harness) { h.setFailedScrapes(generate, 1, stats.ScrapeTimedOut, 1) }},
	},
}

var endedEndpointProblems = map[string]endedProblem{
	"waiting:backend/generate": {
		begin: func(h *harness) { setLoads(h, 100, 2); h.ticks(150 * time.Second); setLoads(h, 100, 20) }, after: 11 * time.Second,
		now: "The queue of backend/generate is growing", over: "The queue of backend/generate grew",
		ends: changes{"a little less": func(h *harness) { setLoads(h, 100, 3) }, "none": func(h *harness) { setLoads(h, 100, 0) }, "unknown": setEmptyLoads},
	},
	"saturated:backend/generate": {
		begin: func(h *harness) { setLoads(h, 100, 2) }, after: 61 * time.Second,
		now: "Requests wait at 3 of 3 workers of backend/generate", over: "Requests waited at most workers of backend/generate",
		ends: changes{"at two of three": func(h *harness) {
			h.setReplies(pollReply(generate, 1, 1, 3), pollReply(generate, 2, 1, 3), pollReply(generate, 3, 1, 0))
		},
			"at none": func(h *harness) { setLoads(h, 100, 0) }, "unknown": setEmptyLoads},
	},
	"imbalance:backend/generate": {
		begin: func(h *harness) { setLoads(h, 800, 0) }, after: 31 * time.Second,
		now: "KV use of backend/generate is uneven: the fullest worker has 2.40×", over: "KV use of backend/generate was uneven",
		ends: changes{"less": func(h *harness) {
			h.setReplies(pollReply(generate, 1, 700, 0), pollReply(generate, 2, 400, 0), pollReply(generate, 3, 400, 0))
		},
			"low": func(h *harness) { setLoads(h, 400, 0) }, "unknown": setEmptyLoads},
	},
	"hits:backend/generate": {
		begin: func(h *harness) { recordHits(h, 10*time.Minute, 60); recordHits(h, 3*time.Minute, 2) }, after: time.Second,
		now: "The KV hit rate of backend/generate has collapsed", over: "The KV hit rate of backend/generate had collapsed",
		ends: changes{"back": func(h *harness) { recordHits(h, time.Minute, 60) }, "in part": func(h *harness) { recordHits(h, time.Minute, 35) },
			"no input": func(h *harness) { h.ticks(time.Minute) }},
	},
}

var endedProgramProblems = map[string]endedProblem{
	"connection:etcd": {begin: setEtcd(false), after: 4 * time.Second, now: "etcd is not", over: "etcd was not", ends: changes{"back": setEtcd(true)}},
	"connection:nats": {begin: setNATS(false), after: 4 * time.Second, now: "NATS is not", over: "NATS was not", ends: changes{"back": setNATS(true)}},
	"connection:file": {
		begin: func(h *harness) { h.fleet.Stats.Files.MarkUsed() }, after: 4 * time.Second, now: "cannot be read", over: "could not be read",
		ends: changes{"back": func(h *harness) { h.fleet.Stats.Files.SetConnected(true) }},
	},
	"connection:kubernetes": {
		begin: func(h *harness) { h.fleet.Stats.Kubernetes.MarkUsed() }, after: 4 * time.Second, now: "cannot be read", over: "could not be read",
		ends: changes{"back": func(h *harness) { h.fleet.Stats.Kubernetes.SetConnected(true) }},
	},
	"permission:nats": {
		begin: func(h *harness) { h.fleet.Diagnostics.SetSubjects([]fleet.Subject{{Name: "a", Refused: true}}) }, after: time.Second,
		now: "NATS denies a", over: "NATS denied a", ends: changes{"granted": func(h *harness) { h.fleet.Diagnostics.SetSubjects(nil) }},
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
		ends: changes{"back": func(h *harness) { h.fleet.Stats.PublishersUp.Store(3) }, "withdrawn": func(h *harness) { h.fleet.Stats.Publishers.Store(2) }},
	},
	"leader": {
		begin: func(h *harness) { h.fleet.Stats.ActsAsLeader.Store(false) }, after: 16 * time.Second, now: "There may be no", over: "There may have been no",
		ends: changes{"this leads": func(h *harness) { h.fleet.Stats.ActsAsLeader.Store(true) }, "another does": func(h *harness) { h.fleet.Stats.OtherLeader.Store(true) }},
	},
	"limit": {
		begin: func(h *harness) { h.fleet.Stats.CountRefused(stats.WorkerLimit) }, after: time.Second, now: "There is no room", over: "There was no room",
		ends: changes{"none more": func(*harness) {}},
	},
	"limit:publishers": {
		begin: func(h *harness) { h.fleet.Stats.PublishersWaiting.Store(1) }, after: time.Second, now: "wait for a connection", over: "waited for a connection",
		ends: changes{"none waits": func(h *harness) { h.fleet.Stats.PublishersWaiting.Store(0) }},
	},
	"limit:page": {
		begin: func(h *harness) { h.monitor.unwrittenRows = 1 }, after: time.Second, now: "Not everything is shown", over: "Not everything was shown",
		ends: changes{"all is": func(h *harness) { h.tick() }},
	},
	"planes": {
		begin: func(h *harness) {
			h.fleet.Diagnostics.SetPlaneMismatches(map[string]string{"backend": "workers on ZMQ, routers on NATS"})
		}, after: time.Second,
		now: "are on different event planes", over: "were on different event planes", ends: changes{"none": func(h *harness) { h.fleet.Diagnostics.SetPlaneMismatches(nil) }},
	},
}

// TestProblemEndedMessageIsPastTense tries all rules that keep a problem raised after its
// condition has ended. For each it raises the problem, ends it in every way, and checks the
// message.
func TestProblemEndedMessageIsPastTense(t *testing.T) {
	tests := make(map[string]endedProblem)
	for _, all := range []map[string]endedProblem{endedWorkerProblems, endedEndpointProblems, endedProgramProblems} {
		maps.Copy(tests, all)
	}
	for id, c := range tests {
		for how, end := range c.ends {
			t.Run(id+": "+how, func(t *testing.T) {
				inBubble(t, func(h *harness) {
					h.registerPolled(generate, 1, 2, 3)
					setLoads(h, 100, 0)
					h.ticks(2 * time.Second)
					c.begin(h)
					h.ticks(c.after)
					now := h.problem(id)
					if !strings.Contains(now.Title, c.now) {
						t.Fatalf("while the condition holds: %+v, want %q in the title", now, c.now)
					}
					end(h)
					if id != "stalled:prefill/generate" { // which ends with the next forward pass
						h.tick()
					}
					over := h.problem(id)
					if !strings.Contains(over.Title, c.over) || strings.Contains(over.Title, c.now) && !strings.Contains(c.over, c.now) {
						t.Errorf("after the condition ended: %q, want %q", over.Title, c.over)
					}
					if over.Check != endedCheck && id != "limit" || over.Since != now.Since {
						t.Errorf("after the condition ended: %+v", over)
					}
					if over.Detail == now.Detail && id != "limit" {
						t.Errorf("the detail did not change: %q", over.Detail)
					}
				})
			})
		}
	}
	for _, r := range workerRules {
		expectTried(t, r.kind, r.endedMessage != nil, tests[r.kind+":backend/generate"].begin != nil || tests[r.kind+":prefill/generate"].begin != nil)
	}
	for _, r := range endpointRules {
		expectTried(t, r.kind, r.endedMessage != nil, tests[r.kind+":backend/generate"].begin != nil)
	}
	for _, r := range programRules {
		expectTried(t, r.kind, r.endedMessage != nil && !slices.Contains(countingProblems, r.kind), tests[r.kind].begin != nil)
	}
}

// expectTried fails the test if a rule that keeps problems raised was not tried.
func expectTried(t *testing.T, kind string, keeps, tried bool) {
	t.Helper()
	if keeps && !tried {
		t.Errorf("the rule %s is not tested", kind)
	}
}

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
		testutil.Equal(t, "title with one full worker", p.Title, "The KV cache of 1 worker of backend/generate is nearly full")
		testutil.Equal(t, "workers", p.Workers, []string{"2"})
		at(170, 870, 100)
		h.ticks(5 * time.Second)
		p = h.problem(id)
		testutil.Equal(t, "title when no worker is full", p.Title, "The KV caches of 2 workers of backend/generate were nearly full")
		testutil.Equal(t, "detail", p.Detail, "backend/generate: 1 (97\u00a0% 17 s ago, now 17\u00a0%) and 2 (95\u00a0% 5 s ago, now 87\u00a0%).")
		testutil.Equal(t, "workers", p.Workers, []string{"1", "2"})
	})
}

// TestProblemTitlesCountWorkersNotRanks tries the rules about rows.
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
			"imbalance:backend/generate": "KV use of backend/generate is uneven: the fullest worker has 1.98× the mean",
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
		testutil.Equal(t, "title of full after it ended", h.problem("full:backend/generate").Title, "The KV cache of 1 worker of backend/generate was nearly full")
		testutil.Equal(t, "title of unread", h.problem("unread:backend/generate").Title, "The metrics of 1 worker of backend/generate cannot be read")
	})
}

// TestProblemAdviceFitsTheNumbers tries endpoints with full caches.
func TestProblemAdviceFitsTheNumbers(t *testing.T) {
	for _, c := range []struct {
		blocks        []uint64
		with, without string
	}{
		{[]uint64{950, 930, 910}, "the whole endpoint is full", "--router-temperature"},
		{[]uint64{950, 800, 790}, "add workers", "the whole endpoint is full"}, // the mean is 85 %
		{[]uint64{950, 100, 100}, "--router-temperature", "the whole endpoint is full"},
		{[]uint64{950}, "add workers", "the whole endpoint is full"}, // it is the only worker
	} {
		inBubble(t, func(h *harness) {
			for i, blocks := range c.blocks {
				h.registerPolled(generate, uint64(1+i))
				h.replies = append(h.replies, pollReply(generate, uint64(1+i), blocks, 0))
			}
			h.tick()
			p := h.problem("full:backend/generate")
			if !strings.Contains(p.Check, c.with) || strings.Contains(p.Check, c.without) {
				t.Errorf("%v: the advice is %q, and the detail is %q", c.blocks, p.Check, p.Detail)
			}
		})
	}
	inBubble(t, func(h *harness) { // requests wait, and KV use is not reported
		h.registerPolled(generate, 1)
		r := pollReply(generate, 1, 0, 0)
		r.Load = fleet.Load{Waiting: u(4)}
		h.setReplies(r)
		h.ticks(62 * time.Second)
		p := h.problem("saturated:backend/generate")
		if !strings.HasSuffix(p.Detail, "The mean KV use is not known.") || strings.Contains(p.Check, "caches") {
			t.Errorf("the advice is %q, and the detail is %q", p.Check, p.Detail)
		}
	})
}
