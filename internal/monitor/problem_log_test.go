package monitor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// captureLog makes the harness's Monitor log, and returns the log.
func (h *harness) captureLog() *testutil.Log {
	log, out := testutil.NewLog()
	h.monitor.options.Log, h.monitor.problemLog.log = log, log
	return out
}

func TestProblemLogReportsRaisedAndWithdrawn(t *testing.T) {
	inBubble(t, func(h *harness) {
		out := h.captureLog()
		h.registerPolled(generate, 1, 2)
		both := []fleet.PollReply{pollReply(generate, 1, 1, 0), pollReply(generate, 2, 1, 0)}
		h.setReplies(both...)
		h.ticks(10 * time.Second)
		h.setReplies(both[1:]...)
		h.ticks(30 * time.Second) // the detail changes every second
		h.setReplies(both...)
		h.ticks(time.Minute)
		var lines []string
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "problem=silent:backend/generate") {
				_, line, _ = strings.Cut(line, "level=")
				lines = append(lines, line)
			}
		}
		if len(lines) != 2 || !strings.HasPrefix(lines[0], `WARN msg="Problem: `) || !strings.Contains(lines[0], ` detail="backend/generate: 1. No load has been received for `) ||
			!strings.HasPrefix(lines[1], `INFO msg="Problem withdrawn: `) || !strings.HasSuffix(lines[1], " lasted=\"29 s\"\n") {
			t.Errorf("logged:\n%s", out)
		}
	})
}

// TestProblemLogOmitsProblemsLoggedElsewhere checks that lost connections are logged only by the
// packages that make them.
func TestProblemLogOmitsProblemsLoggedElsewhere(t *testing.T) {
	inBubble(t, func(h *harness) {
		out := h.captureLog()
		h.registerPolled(generate, 1)
		for _, conn := range []*stats.ConnState{&h.fleet.Stats.NATS, &h.fleet.Stats.Etcd} {
			conn.SetConnected(false)
		}
		h.ticks(time.Minute)
		h.expectWithin(1, "connection:etcd", true)
		if n := out.Count("problem=connection"); n > 0 {
			t.Errorf("%d lines about connections, want none:\n%s", n, out)
		}
	})
	for id := range loggedElsewhere {
		found := false
		for _, r := range programRules {
			found = found || r.kind == id
		}
		if !found {
			t.Errorf("no rule is %q", id)
		}
	}
}

// problemLogHarness is a problemLog with problems that the test makes.
type problemLogHarness struct {
	problemLog
	monitor Monitor
	out     *testutil.Log
}

func newProblemLogHarness() *problemLogHarness {
	log, out := testutil.NewLog()
	return &problemLogHarness{problemLog: problemLog{log: log}, monitor: Monitor{now: 1}, out: out}
}

// second takes a sample a second after the last, with these problems raised.
func (h *problemLogHarness) second(ids ...string) {
	h.monitor.now += ticks(time.Second)
	h.monitor.problems = nil
	for i, id := range ids {
		severity := severityInfo
		if i == len(ids)-1 {
			severity = severityBad
		}
		h.monitor.problems = append(h.monitor.problems, problem{id: id, kind: problemKind(id), severity: severity, since: h.monitor.now,
			message: func(m *Monitor, p *problem) message { return message{title: "17\u00a0% of " + p.id, detail: "x"} }})
	}
	h.update(&h.monitor)
}

func TestProblemLogLimitsFlappingProblem(t *testing.T) {
	h := newProblemLogHarness()
	for range 300 { // ten minutes
		h.second("full:a/b")
		h.second()
	}
	if raised, over := h.out.Count(`"Problem: 17 % of full:a/b"`), h.out.Count(`"Problem withdrawn: 17 % of full:a/b"`); raised != 10 || over != 10 {
		t.Errorf("logged as raised %d times and as withdrawn %d times, want once a minute:\n%s", raised, over, h.out)
	}
	if n := h.out.Count("times=30"); n != 9 {
		t.Errorf("%d lines have the number of times that it was raised in a minute, want nine:\n%s", n, h.out)
	}
	h.second("full:a/b") // the last line was a minute ago
	before := h.out.Count("\n")
	for range 90 {
		h.second("full:a/b")
	}
	if n := h.out.Count("\n") - before; n > 1 {
		t.Errorf("%d more lines about a problem that stays raised, want none or one", n)
	}
}

func TestProblemLogCountsUnloggedRaises(t *testing.T) {
	h := newProblemLogHarness()
	h.second("full:a/b")
	h.second()
	h.second("full:a/b")
	for range 60 {
		h.second()
	}
	if h.out.Count("Problem came and went: 17 % of full:a/b\" problem=full:a/b times=1\n") != 1 || h.out.Count("\n") != 3 {
		t.Errorf("logged:\n%s", h.out)
	}
	if len(h.logged) > 0 {
		t.Errorf("the log still remembers %v, want nothing", h.logged)
	}
}

// TestProblemLogLimitsManyProblems also checks that the most serious problems are logged first.
func TestProblemLogLimitsManyProblems(t *testing.T) {
	h := newProblemLogHarness()
	var ids []string
	for i := range 50 {
		ids = append(ids, fmt.Sprintf("silent:c%02d/e", i))
	}
	for minute, want := range []int{20, 40, 50, 50} {
		for range 60 {
			h.second(ids...)
		}
		if n := h.out.Count(`"Problem: `); n != want {
			t.Errorf("%d problems are logged after minute %d, want %d", n, minute+1, want)
		}
	}
	first, _, _ := strings.Cut(h.out.String(), "\n")
	if !strings.Contains(first, "level=WARN") || !strings.Contains(first, "c49/e") {
		t.Errorf("the first line is not about the most serious problem: %s", first)
	}
	if n := h.out.Count("More problems are raised than are logged in a minute"); n != 2 {
		t.Errorf("%d lines say that some are not logged, want two", n)
	}
	for range 61 {
		h.second()
	}
	if n := h.out.Count("Problem withdrawn: "); n != 50 || len(h.logged) > 0 {
		t.Errorf("%d problems are logged as withdrawn, want 50; the log still remembers %d, want none", n, len(h.logged))
	}
}

func TestProblemLogOmitsLongDetail(t *testing.T) {
	h := newProblemLogHarness()
	h.second()
	for _, length := range []int{400, 401} {
		p := problem{id: fmt.Sprintf("full:%d", length)}
		h.logProblem(&h.monitor, problemMessage{&p, message{title: "x", detail: strings.Repeat("y", length)}})
	}
	if n := h.out.Count("detail="); n != 1 || h.out.Count("problem=full:400 detail=yyyy") != 1 {
		t.Errorf("%d lines have a detail, want only the one of 400 bytes:\n%s", n, h.out)
	}
}
