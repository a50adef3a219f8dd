package monitor

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor/monitortest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

func TestRuleStateHasHysteresis(t *testing.T) {
	const up, down, raise, withdraw = 0.9, 0.8, 2 * time.Second, 3 * time.Second
	var st ruleState
	for i, c := range []struct {
		v      number
		raised bool
		why    string
	}{
		{fleet.Some(0.9), false, "it has just started"},
		{fleet.Some(0.95), false, "a second is not two"},
		{fleet.Some(0.85), false, "below the upper threshold: it starts again"},
		{fleet.Some(0.9), false, "it has just started"},
		{fleet.Some(0.9), false, ""},
		{fleet.Some(0.9), true, "two seconds"},
		{fleet.Some(0.81), true, "not below the lower threshold"},
		{fleet.Some(0.79), true, "below the lower threshold"},
		{fleet.Some(0.79), true, ""},
		{fleet.Some(0.85), true, "not below the lower threshold: the end starts again"},
		{fleet.Some(0.1), true, "below the lower threshold"},
		{number{}, true, "an unknown value does not end it"},
		{fleet.Some(0.1), true, ""},
		{fleet.Some(0.1), false, "three seconds"},
		{fleet.Some(0.85), false, "below the upper threshold"},
	} {
		if got := st.update(c.v, up, down, raise, withdraw, tick(10*(i+1))); got != c.raised {
			t.Errorf("second %d, %v: raised is %v, want %v: %s", i, c.v, got, c.raised, c.why)
		}
	}
}

func TestProblemSilentWithinTwoPolls(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "silent:backend/generate"
		h.registerPolled(generate, 0x694d8b0a1f2c3d04, 2)
		both := []fleet.PollReply{pollReply(generate, 0x694d8b0a1f2c3d04, 1, 0), pollReply(generate, 2, 1, 0)}
		h.setReplies(both...)
		h.expectStays(time.Minute, id, false)
		h.setReplies(both[1:]...)
		h.expectWithin(2, id, true)
		p := h.problem(id)
		testutil.Equal(t, "workers", p.Workers, []string{"7587873822778080516"})
		testutil.Equal(t, "detail", p.Detail, "backend/generate: 694d8b0a1f2c3d04. No load has been received for 2 s, but it is still registered in etcd.")
		h.setReplies(both...)
		h.expectWithin(1, id, false)
	})
}

func TestProblemSilentGivesTimeToStart(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1)
		h.expectStays(14*time.Second, "silent:backend/generate", false)
		h.expectWithin(2, "silent:backend/generate", true) // it was first seen by the first sample
	})
}

func TestProblemSilentNeedsConnections(t *testing.T) {
	for name, conn := range map[string]func(*stats.Stats) *stats.ConnState{
		"NATS": func(s *stats.Stats) *stats.ConnState { return &s.NATS }, "etcd": func(s *stats.Stats) *stats.ConnState { return &s.Etcd },
	} {
		inBubble(t, func(h *harness) {
			h.registerPolled(generate, 1)
			h.setReplies(pollReply(generate, 1, 1, 0))
			h.ticks(5 * time.Second)
			conn(&h.fleet.Stats).SetConnected(false)
			h.setReplies()
			h.expectWithin(4, "connection:"+strings.ToLower(name), true) // counted from the first sample
			h.expectStays(time.Minute, "silent:backend/generate", false)
			testutil.Equal(t, "problems without "+name, h.raised(), []string{"connection:" + strings.ToLower(name)})
			conn(&h.fleet.Stats).SetConnected(true)
			h.setReplies(pollReply(generate, 1, 1, 0))
			h.expectWithin(3, "connection:"+strings.ToLower(name), false)
		})
	}
}

func TestProblemNATSNeedsUse(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.fleet.Stats.ZMQ.MarkUsed()
		h.registerPublishing(generate, 1)
		h.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 1}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		h.fleet.Stats.NATS.SetConnected(false)
		h.expectStays(time.Minute, "connection:nats", false)
	})
}

func TestProblemMalformedNamesWorker(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "malformed:backend/generate"
		h.registerPolled(generate, 1, 2)
		h.setReplies(pollReply(generate, 1, 1, 0), malformedReply(generate, 2))
		h.expectWithin(1, id, true)
		testutil.Equal(t, "workers", h.problem(id).Workers, []string{"2"})
		h.setReplies(pollReply(generate, 1, 1, 0), pollReply(generate, 2, 1, 0))
		h.expectWithin(11, id, false)
	})
}

func TestProblemStalledNamesRank(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "stalled:backend/generate"
		h.registerPublishing(generate, 1)
		counter := uint64(0)
		second := func(ranks ...uint32) {
			counter++
			for _, rank := range ranks {
				h.fleet.RecordForwardPass(fleet.Origin{Endpoint: generate, Worker: 1, Rank: rank}, fleet.Pass{Counter: counter})
			}
			h.tick()
		}
		for range 30 {
			second(0, 1)
		}
		testutil.Equal(t, "problems", h.raised(), nil)
		for range 18 { // the fleet's clock is a second behind when it records a pass
			second(0)
		}
		testutil.Equal(t, "problems before the limit", h.raised(), nil)
		second(0)
		testutil.Equal(t, "workers", h.problem(id).Workers, []string{"1/1"})
		second(0, 1)
		testutil.Equal(t, "problems after the rank reports again", h.raised(), nil)
	})
}

func TestProblemFullIsRaisedAtOnce(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "full:backend/generate"
		h.registerPolled(generate, 1, 2)
		at := func(blocks uint64) { h.setReplies(pollReply(generate, 1, blocks, 0), pollReply(generate, 2, 880, 0)) }
		at(890)
		h.expectStays(time.Minute, id, false)
		at(900)
		h.expectWithin(1, id, true)
		testutil.Equal(t, "workers", h.problem(id).Workers, []string{"1"})
		at(850)
		h.expectStays(time.Minute, id, true)
		at(849)
		h.expectWithin(31, id, false)
	})
}

func TestProblemFullAdviceDependsOnOthers(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2, 3)
		h.setReplies(pollReply(generate, 1, 950, 3), pollReply(generate, 2, 100, 0), pollReply(generate, 3, 100, 0))
		h.tick()
		if p := h.problem("full:backend/generate"); !strings.Contains(p.Check, "--router-temperature") {
			t.Errorf("if others are empty the advice is %q", p.Check)
		}
		h.setReplies(pollReply(generate, 1, 950, 3), pollReply(generate, 2, 900, 0), pollReply(generate, 3, 890, 0))
		h.tick()
		p := h.problem("full:backend/generate")
		if !strings.Contains(p.Check, "add workers") {
			t.Errorf("if all are full the advice is %q", p.Check)
		}
		testutil.Equal(t, "workers, the fullest first", p.Workers, []string{"1", "2"})
	})
}

func TestProblemUnregisteredAfterOneMinute(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "unregistered:backend/generate"
		h.registerPolled(generate, 1, 2)
		h.setReplies(pollReply(generate, 1, 1, 0), pollReply(generate, 2, 2, 0))
		h.ticks(10 * time.Second)
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 2})
		h.expectStays(time.Minute, id, false) // it may be shutting down
		h.expectWithin(1, id, true)
		s := h.snapshot()
		testutil.Equal(t, "unregistered", s.Fleet.States.Unregistered, 1)
		testutil.Equal(t, "mean load without the unregistered worker", monitortest.FormatOptional(s.Fleet.LoadMean), "0.001")
		h.registerPolled(generate, 2)
		h.expectWithin(1, id, false)
	})
}

func TestProblemQuietIsInfo(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "quiet:backend/generate"
		h.registerPublishing(generate, 1)
		h.expectStays(time.Minute, id, false)
		h.expectWithin(1, id, true)
		testutil.Equal(t, "severity", h.problem(id).Severity, "info")
		testutil.Equal(t, "problems", h.raised(), []string{id})
		h.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 1}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		h.expectWithin(1, id, false)
	})
}

func TestProblemLostLastsTenMinutes(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "lost:backend/generate"
		var all []uint64
		for n := range uint64(20) {
			all = append(all, 0x100+n)
		}
		h.registerPolled(generate, all...)
		h.setReplies(pollReply(generate, 0x113, 1, 0))
		h.ticks(20 * time.Second)
		h.setReplies()
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 0x100})
		h.expectWithin(6, id, true) // one of twenty
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 0x101})
		h.tick()
		p := h.problem(id)
		testutil.Equal(t, "title", p.Title, "2 workers of backend/generate are gone")
		testutil.Equal(t, "detail", p.Detail, "backend/generate: of 20 workers in the last 10 min 18 are left. It is not known whether these deregistered: 101 and 100.")
		testutil.Equal(t, "severity", p.Severity, "warn")
		for _, n := range all[2:] {
			h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: n})
		}
		h.tick()
		p = h.problem(id)
		testutil.Equal(t, "severity when all have left", p.Severity, "bad")
		testutil.Equal(t, "title when all have left", p.Title, "No worker of backend/generate is left")
		if s := h.snapshot(); s.Looking != nil {
			t.Error("the snapshot has an empty state although workers were lost")
		}
		h.ticks(10 * time.Minute)
		testutil.Equal(t, "problems ten minutes later", h.raised(), nil)
		if s := h.snapshot(); s.Looking == nil {
			t.Error("the snapshot has no empty state")
		}
	})
}

func TestProblemLostIgnoresReplacedWorker(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2)
		h.ticks(30 * time.Second)
		h.registerPolled(generate, 3)
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 1})
		h.expectStays(time.Minute, "lost:backend/generate", false)
	})
}

func TestProblemWaitingThenSaturated(t *testing.T) {
	inBubble(t, func(h *harness) {
		const growing, busy = "waiting:backend/generate", "saturated:backend/generate"
		h.registerPolled(generate, 1, 2)
		wait := func(n uint64) { h.setReplies(pollReply(generate, 1, 400, n/2), pollReply(generate, 2, 400, n-n/2)) }
		wait(1) // a few requests are no queue
		h.expectStays(3*time.Minute, growing, false)
		wait(9)
		h.expectWithin(11, growing, true)
		testutil.Equal(t, "title", h.problem(growing).Title, "The queue of backend/generate is growing: 9 requests wait")
		testutil.Equal(t, "detail", h.problem(growing).Detail, "backend/generate: requests wait at 2 workers, most of them at 2 (5) and 1 (4). One to two minutes ago the queue was 1.")
		testutil.Equal(t, "workers", h.problem(growing).Workers, []string{"2", "1"})
		h.expectWithin(50, busy, true)      // a minute after it began
		h.expectWithin(110, growing, false) // when the earlier queue is as long
		testutil.Equal(t, "remaining problems", h.raised(), []string{busy})
		wait(1)
		h.expectWithin(61, busy, false)
	})
}

func TestProblemImbalanceNamesWorkers(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "imbalance:backend/generate"
		h.registerPolled(generate, 1, 2, 3, 4)
		even := []fleet.PollReply{pollReply(generate, 1, 420, 0), pollReply(generate, 2, 400, 0), pollReply(generate, 3, 380, 0), pollReply(generate, 4, 400, 0)}
		h.setReplies(pollReply(generate, 1, 40, 0), pollReply(generate, 2, 1, 0), pollReply(generate, 3, 1, 0), pollReply(generate, 4, 1, 0))
		h.expectStays(time.Minute, id, false) // a fleet without load
		h.setReplies(even...)
		h.expectStays(time.Minute, id, false)
		h.setReplies(pollReply(generate, 1, 800, 5), even[1], even[2], pollReply(generate, 4, 30, 0))
		h.expectWithin(31, id, true)
		p := h.problem(id)
		testutil.Equal(t, "workers", p.Workers, []string{"1", "4"})
		testutil.Equal(t, "severity", p.Severity, "bad")
		testutil.Equal(t, "title", p.Title, "KV use of backend/generate is uneven: the fullest worker has 1.99× the mean")
		testutil.Equal(t, "detail", p.Detail, "backend/generate: 1 at 80\u00a0%, the mean is 40\u00a0%. 5 requests wait there. 4 has at most 3\u00a0%.")
		h.setReplies(even...)
		h.expectWithin(61, id, false)
		h.setReplies(pollReply(generate, 1, 800, 5), pollReply(generate, 2, 702, 0), pollReply(generate, 3, 90, 0), pollReply(generate, 4, 30, 0))
		h.expectWithin(31, id, true)
		testutil.Equal(t, "detail with two workers", h.problem(id).Detail,
			"backend/generate: 1 and 2 at 70\u00a0% to 80\u00a0%, the mean is 41\u00a0%. 5 requests wait there. 3 and 4 have at most 9\u00a0%.")
	})
}

func TestProblemHitsNeedsCollapse(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "hits:backend/generate"
		h.registerPolled(generate, 1, 2)
		h.setReplies(pollReply(generate, 1, 1, 0), pollReply(generate, 2, 1, 0))
		hit := func(d time.Duration, rate float64) {
			for range d / time.Second {
				h.fleet.RecordHit(1, 50, uint64(50*rate))
				h.fleet.RecordHit(2, 50, 30)
				h.tick()
			}
		}
		hit(10*time.Minute, 0.6)
		testutil.Equal(t, "problems", h.raised(), nil)
		testutil.Equal(t, "hit rate", monitortest.FormatOptional(h.snapshot().Fleet.HitRate), "0.6")
		h.ticks(10 * time.Minute) // no requests: no rate is not a low rate
		testutil.Equal(t, "problems", h.raised(), nil)
		testutil.Equal(t, "hit rate without requests", monitortest.FormatOptional(h.snapshot().Fleet.HitRate), "–")
		testutil.Equal(t, "hit rate since the start", monitortest.FormatOptional(h.snapshot().Fleet.HitRateTotal), "0.6")
		hit(2*time.Minute, 0.2)
		testutil.Equal(t, "problems after the hit rate dropped by a third", h.raised(), nil)
		hit(10*time.Minute, 0.6)
		start := time.Now()
		for n := 0; n < 200 && h.problem(id).ID == ""; n++ {
			h.fleet.RecordHit(1, 100, 2)
			h.tick()
		}
		if took := time.Since(start); took < time.Minute || took > 2*time.Minute+30*time.Second {
			t.Errorf("it took %v, want a minute and the time to measure", took)
		}
		p := h.problem(id)
		testutil.Equal(t, "title", p.Title, "The KV hit rate of backend/generate has collapsed: 2\u00a0% instead of 56\u00a0%")
		h.ticks(4 * time.Minute) // the baseline is kept
		hit(5*time.Minute, 0.6)
		testutil.Equal(t, "problems after it recovered", h.raised(), nil)
	})
}

func TestProblemHitsEndsAtNewBaseline(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1)
		h.setReplies(pollReply(generate, 1, 1, 0))
		for n := range 60 * 60 {
			h.fleet.RecordHit(1, 50, ifElse(n < 15*60, uint64(30), 1))
			h.tick()
			if n == 45*60 {
				testutil.Equal(h.t, "problems half an hour later", h.raised(), []string{"hits:backend/generate"})
			}
			if n == 48*60 {
				testutil.Equal(h.t, "problems after half an hour of low hit rate", h.raised(), nil)
			}
		}
		testutil.Equal(t, "problems three quarters of an hour later", h.raised(), nil)
	})
}

// TestProblemKeepsIDAndStart checks what the web page relies on: it identifies open cards by the id.
func TestProblemKeepsIDAndStart(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1, 2, 3)
		h.setReplies(pollReply(generate, 1, 1, 0), pollReply(generate, 2, 1, 0), pollReply(generate, 3, 1, 0))
		h.ticks(10 * time.Second)
		h.setReplies(pollReply(generate, 2, 1, 0), pollReply(generate, 3, 1, 0))
		h.ticks(2 * time.Second)
		began := time.Now().UnixMilli()
		h.ticks(time.Minute)
		h.setReplies(pollReply(generate, 3, 1, 0))
		h.ticks(time.Minute)
		p := h.problem("silent:backend/generate")
		testutil.Equal(t, "workers", p.Workers, []string{"1", "2"})
		testutil.Equal(t, "since", p.Since, began)
	})
}

func TestRulesAreComplete(t *testing.T) {
	seen := make(map[string]bool)
	check := func(kind string, s severity, up, down float64, withdraw time.Duration, hasMeasure, hasMessage, hasEnded bool) {
		if seen[kind] || kind == "" || severityOrder[s] == 0 && s != severityBad || up < down || !hasMeasure || !hasMessage || hasEnded != (up > down || withdraw > 0) {
			t.Errorf("rule %q: %v %v %v %v, measure %v, message %v, ended message %v", kind, s, up, down, withdraw, hasMeasure, hasMessage, hasEnded)
		}
		seen[kind] = true
	}
	for _, r := range workerRules {
		check(r.kind, r.severity, r.raiseAt, r.clearBelow, r.withdrawAfter, r.measure != nil, r.message != nil, r.endedMessage != nil)
	}
	for _, r := range endpointRules {
		check(r.kind, r.severity, r.raiseAt, r.clearBelow, r.withdrawAfter, r.measure != nil, r.message != nil, r.endedMessage != nil)
	}
	for _, r := range programRules {
		check(r.kind, r.severity, r.raiseAt, r.clearBelow, r.withdrawAfter, r.measure != nil, r.message != nil, r.endedMessage != nil)
	}
	testutil.Equal(t, "rules", len(seen), workerRuleCount+endpointRuleCount+len(programRules))
}

func TestRulesAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "| kind | is raised when |")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, kind := range ProblemKinds() {
		if !strings.Contains(table, "`"+kind+"`") {
			t.Errorf("the documentation lacks %s", kind)
		}
	}
}

func TestTextFormatting(t *testing.T) {
	for got, want := range map[string]string{
		formatCount(0): "0", formatCount(999): "999", formatCount(1000): "1,000", formatCount(uint64(1<<64 - 1)): "18,446,744,073,709,551,615",
		plural(1, "worker"): "1 worker", plural(2000, "worker"): "2,000 workers",
		formatDuration(0): "0 s", formatDuration(59400 * time.Millisecond): "59 s", formatDuration(59600 * time.Millisecond): "1 min", formatDuration(262 * time.Second): "4 min 22 s",
		formatDuration(2 * time.Hour): "2 h", formatDuration(90 * time.Minute): "1 h 30 min",
		formatPercent(0.995): "100\u00a0%", formatPercent(0.004): "0\u00a0%",
		summarizeStrings([]string{"a"}): "a", summarizeStrings([]string{"a", "b", "c"}): "a, b and c", summarizeStrings([]string{"a", "b", "c", "d"}): "a, b, c and 1 more",
		fmt.Sprint(Command("metrics", "dynamo", fleet.Endpoint{})):  "metrics",
		Command("metrics", "a b", fleet.Endpoint{Component: "c's"}): `metrics --namespace 'a b' --component 'c'\''s'`,
		Quote("-x"): "'-x'",
	} {
		testutil.Equal(t, "text", got, want)
	}
}
