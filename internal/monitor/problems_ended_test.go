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
	at := func(l *harness, blocks, waiting uint64) {
		l.setReplies(pollReply(generate, 1, blocks, waiting), pollReply(generate, 2, 100, waiting), pollReply(generate, 3, 100, waiting))
	}
	unknown := func(l *harness) { // all go on, and say nothing of their load
		var none []fleet.PollReply
		for id := range uint64(3) {
			r := pollReply(generate, 1+id, 0, 0)
			r.Load = fleet.Load{}
			none = append(none, r)
		}
		l.setReplies(none...)
	}
	silent := func(l *harness) { l.setReplies() }
	hit := func(l *harness, d time.Duration, overlap uint64) {
		for range d / time.Second {
			l.fleet.RecordHit(1, 100, overlap)
			l.tick()
		}
	}
	pass := func(l *harness, counter uint64) {
		for rank := range uint32(8) {
			l.fleet.RecordForwardPass(fleet.Origin{Endpoint: prefill, Worker: 9, Rank: rank}, fleet.Pass{Counter: counter})
		}
	}
	link := func(of func(*stats.Stats) *stats.ConnState, up bool) func(*harness) {
		return func(l *harness) { of(&l.fleet.Stats).SetConnected(up) }
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
			begin: func(l *harness) { l.setReplies(pollReply(generate, 1, 1, 0), malformedReply(generate, 2)) }, after: time.Second,
			now: "1 worker of backend/generate answers what", over: "1 worker of backend/generate answered what",
			ends: ends{"it can be read": func(l *harness) { at(l, 1, 0) }, "no answer": func(l *harness) { silent(l); l.ticks(2 * time.Second) }},
		},
		"stalled:prefill/generate": {
			begin: func(l *harness) { l.registerPublishing(prefill, 9); pass(l, 1) }, after: 30 * time.Second,
			now: "The engine of 1 worker of prefill/generate has stopped", over: "The engine of 1 worker of prefill/generate had stopped",
			ends: ends{"a pass some seconds ago": func(l *harness) { pass(l, 2); time.Sleep(9 * time.Second); l.monitor.Sample(time.Now()) }},
		},
		"full:backend/generate": {
			begin: func(l *harness) { at(l, 970, 0) }, after: time.Second,
			now: "The KV cache of 1 worker of backend/generate is nearly full", over: "The KV cache of 1 worker of backend/generate was nearly full",
			ends: ends{"a little less": func(l *harness) { at(l, 870, 0) }, "much less": func(l *harness) { at(l, 170, 0) }, "unknown": unknown,
				"silent": func(l *harness) { silent(l); l.ticks(2 * time.Second) }},
		},
		"unread:backend/generate": {
			begin: func(l *harness) { l.setFailedScrapes(generate, 3, stats.ScrapeTimedOut, 1) }, after: time.Second,
			now: "The metrics page of 1 worker of backend/generate cannot", over: "The metrics page of 1 worker of backend/generate could not",
			ends: ends{"of another process": func(l *harness) { l.setFailedScrapes(generate, 1, stats.ScrapeTimedOut, 1) }},
		},
		"waiting:backend/generate": {
			begin: func(l *harness) { at(l, 100, 2); l.ticks(150 * time.Second); at(l, 100, 20) }, after: 11 * time.Second,
			now: "The queue of backend/generate grows", over: "The queue of backend/generate grew",
			ends: ends{"a little less": func(l *harness) { at(l, 100, 3) }, "none": func(l *harness) { at(l, 100, 0) }, "unknown": unknown},
		},
		"saturated:backend/generate": {
			begin: func(l *harness) { at(l, 100, 2) }, after: 61 * time.Second,
			now: "Requests wait at 3 of 3 workers of backend/generate", over: "Requests waited at most workers of backend/generate",
			ends: ends{"at two of three": func(l *harness) {
				l.setReplies(pollReply(generate, 1, 1, 3), pollReply(generate, 2, 1, 3), pollReply(generate, 3, 1, 0))
			},
				"at none": func(l *harness) { at(l, 100, 0) }, "unknown": unknown},
		},
		"imbalance:backend/generate": {
			begin: func(l *harness) { at(l, 800, 0) }, after: 31 * time.Second,
			now: "KV use of backend/generate is uneven: 2.40×", over: "KV use of backend/generate was uneven",
			ends: ends{"less": func(l *harness) {
				l.setReplies(pollReply(generate, 1, 700, 0), pollReply(generate, 2, 400, 0), pollReply(generate, 3, 400, 0))
			},
				"low": func(l *harness) { at(l, 400, 0) }, "unknown": unknown},
		},
		"hits:backend/generate": {
			begin: func(l *harness) { hit(l, 10*time.Minute, 60); hit(l, 3*time.Minute, 2) }, after: time.Second,
			now: "The KV hit rate of backend/generate has collapsed", over: "The KV hit rate of backend/generate had collapsed",
			ends: ends{"back": func(l *harness) { hit(l, time.Minute, 60) }, "in part": func(l *harness) { hit(l, time.Minute, 35) },
				"no input": func(l *harness) { l.ticks(time.Minute) }},
		},
		"connection:etcd": {begin: link(etcd, false), after: 4 * time.Second, now: "etcd is not", over: "etcd was not", ends: ends{"back": link(etcd, true)}},
		"connection:nats": {begin: link(nats, false), after: 4 * time.Second, now: "NATS is not", over: "NATS was not", ends: ends{"back": link(nats, true)}},
		"connection:file": {
			begin: func(l *harness) { l.fleet.Stats.Files.MarkUsed() }, after: 4 * time.Second, now: "cannot be read", over: "could not be read",
			ends: ends{"back": func(l *harness) { l.fleet.Stats.Files.SetConnected(true) }},
		},
		"connection:kubernetes": {
			begin: func(l *harness) { l.fleet.Stats.Kubernetes.MarkUsed() }, after: 4 * time.Second, now: "cannot be read", over: "could not be read",
			ends: ends{"back": func(l *harness) { l.fleet.Stats.Kubernetes.SetConnected(true) }},
		},
		"permission:nats": {
			begin: func(l *harness) { l.fleet.Diagnostics.SetSubjects([]fleet.Subject{{Name: "a", Refused: true}}) }, after: time.Second,
			now: "NATS denies a", over: "NATS denied a", ends: ends{"granted": func(l *harness) { l.fleet.Diagnostics.SetSubjects(nil) }},
		},
		"connection:zmq": {
			begin: func(l *harness) {
				l.fleet.Stats.ZMQ.MarkUsed()
				l.fleet.Stats.ZMQ.SetConnected(true)
				l.fleet.Stats.Publishers.Store(3)
				l.fleet.Stats.PublishersUp.Store(2)
				l.fleet.Diagnostics.SetUnreachable(fleet.Channel{Address: "tcp://10.0.4.19:40113", Plane: fleet.ZMQPlane}, time.Now())
			}, after: 50 * time.Second,
			now: "2 of 3 ZMQ publishers can be reached", over: "ZMQ publishers could not be reached",
			ends: ends{"back": func(l *harness) { l.fleet.Stats.PublishersUp.Store(3) }, "withdrawn": func(l *harness) { l.fleet.Stats.Publishers.Store(2) }},
		},
		"leader": {
			begin: func(l *harness) { l.fleet.Stats.ActsAsLeader.Store(false) }, after: 16 * time.Second, now: "There may be no", over: "There may have been no",
			ends: ends{"this leads": func(l *harness) { l.fleet.Stats.ActsAsLeader.Store(true) }, "another does": func(l *harness) { l.fleet.Stats.OtherLeader.Store(true) }},
		},
		"limit": {
			begin: func(l *harness) { l.fleet.Stats.CountRefused(stats.WorkerLimit) }, after: time.Second, now: "There is no room", over: "There was no room",
			ends: ends{"none more": func(*harness) {}},
		},
		"limit:publishers": {
			begin: func(l *harness) { l.fleet.Stats.PublishersWaiting.Store(1) }, after: time.Second, now: "have to wait", over: "had to wait",
			ends: ends{"none waits": func(l *harness) { l.fleet.Stats.PublishersWaiting.Store(0) }},
		},
		"limit:page": {
			begin: func(l *harness) { l.monitor.unwrittenRows = 1 }, after: time.Second, now: "Not everything is shown", over: "Not everything was shown",
			ends: ends{"all is": func(l *harness) { l.tick() }},
		},
		"planes": {
			begin: func(l *harness) {
				l.fleet.Diagnostics.SetPlaneMismatches(map[string]string{"backend": "workers on ZMQ, routers on NATS"})
			}, after: time.Second,
			now: "are on different event planes", over: "were on different event planes", ends: ends{"none": func(l *harness) { l.fleet.Diagnostics.SetPlaneMismatches(nil) }},
		},
	}
	for id, c := range rules {
		for how, end := range c.ends {
			t.Run(id+": "+how, func(t *testing.T) {
				inBubble(t, func(l *harness) {
					l.registerPolled(generate, 1, 2, 3)
					at(l, 100, 0)
					l.ticks(2 * time.Second)
					c.begin(l)
					l.ticks(c.after)
					now := l.problem(id)
					if !strings.Contains(now.Title, c.now) {
						t.Fatalf("while it is so: %+v, want %q in the title", now, c.now)
					}
					end(l)
					if id != "stalled:prefill/generate" { // which is over with the next pass
						l.tick()
					}
					over := l.problem(id)
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
	inBubble(t, func(l *harness) {
		const id = "full:backend/generate"
		l.registerPolled(generate, 1, 2, 3)
		at := func(a, b, c uint64) {
			l.setReplies(pollReply(generate, 1, a, 0), pollReply(generate, 2, b, 0), pollReply(generate, 3, c, 0))
		}
		at(970, 950, 100)
		l.tick()
		testutil.Equal(t, "title", l.problem(id).Title, "The KV caches of 2 workers of backend/generate are nearly full")
		at(170, 950, 100)
		l.ticks(12 * time.Second)
		p := l.problem(id)
		testutil.Equal(t, "title of one of them", p.Title, "The KV cache of 1 worker of backend/generate is nearly full")
		testutil.Equal(t, "workers", p.Workers, []string{"2"})
		at(170, 870, 100)
		l.ticks(5 * time.Second)
		p = l.problem(id)
		testutil.Equal(t, "title when none is", p.Title, "The KV caches of 2 workers of backend/generate were nearly full")
		testutil.Equal(t, "detail", p.Detail, "backend/generate: 1 (97\u00a0% 17 s ago, now 17\u00a0%) and 2 (95\u00a0% 5 s ago, now 87\u00a0%).")
		testutil.Equal(t, "workers", p.Workers, []string{"1", "2"})
	})
}

// TestProblemTitlesCountWorkersNotRanks in no title, of no rule that is about rows.
func TestProblemTitlesCountWorkersNotRanks(t *testing.T) {
	inBubble(t, func(l *harness) {
		l.registerPublishing(generate, 0x21, 0x22)
		second := func(counter, blocks uint64) {
			for rank := range uint32(8) {
				from := fleet.Origin{Endpoint: generate, Worker: 0x21, Rank: rank}
				l.fleet.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: u(blocks), Waiting: u(2)})
				if counter > 0 {
					l.fleet.RecordForwardPass(from, fleet.Pass{Counter: counter, Waiting: 2})
				}
			}
			l.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 0x22}, fleet.FromActiveLoad, fleet.Load{KVActive: u(10)})
			l.tick()
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
			p := l.problem(id)
			testutil.Equal(t, id, p.Title, want)
			if n := len(p.Workers); n < 8 {
				t.Errorf("%s has %d rows: %v", id, n, p.Workers)
			}
			if !strings.HasPrefix(p.Detail, "backend/generate: 21") || strings.Contains(p.Detail, "more") {
				t.Errorf("%s: %q", id, p.Detail)
			}
		}
		l.setFailedScrapes(generate, 3, stats.ScrapeTimedOut, 0x21)
		second(0, 500)
		testutil.Equal(t, "what was full", l.problem("full:backend/generate").Title, "The KV cache of 1 worker of backend/generate was nearly full")
		testutil.Equal(t, "pages", l.problem("unread:backend/generate").Title, "The metrics page of 1 worker of backend/generate cannot be read")
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
		inBubble(t, func(l *harness) {
			for i, blocks := range c.blocks {
				l.registerPolled(generate, uint64(1+i))
				l.replies = append(l.replies, pollReply(generate, uint64(1+i), blocks, 0))
			}
			l.tick()
			p := l.problem("full:backend/generate")
			if !strings.Contains(p.Check, c.with) || strings.Contains(p.Check, c.without) {
				t.Errorf("%v: %q beside %q", c.blocks, p.Check, p.Detail)
			}
		})
	}
	inBubble(t, func(l *harness) { // requests wait, and nothing is said of KV use
		l.registerPolled(generate, 1)
		r := pollReply(generate, 1, 0, 0)
		r.Load = fleet.Load{Waiting: u(4)}
		l.setReplies(r)
		l.ticks(62 * time.Second)
		p := l.problem("saturated:backend/generate")
		if !strings.HasSuffix(p.Detail, "The mean KV use is not known.") || strings.Contains(p.Check, "caches") {
			t.Errorf("%q beside %q", p.Check, p.Detail)
		}
	})
}
