package monitor

import (
	"cmp"
	"slices"
	"time"
)

// memory is how it stands with a rule and one subject.
type ruleState struct {
	since       tick    // when it began; 0: it has not
	cleared     tick    // when it ended, while it is still raised; 0: it has not
	lastTrue    tick    // when it was so last
	lastMeasure float32 // its measure then
	raised      bool
	holding     bool // it is so now; one that is raised may have ended, or be half over
}

// look takes a new measure and reports whether the problem is raised.
func (m *ruleState) update(v number, up, down float64, raise, withdraw time.Duration, now tick) bool {
	m.holding = v.OK && v.V >= up
	if m.holding {
		m.lastTrue, m.lastMeasure = now, float32(v.V)
	}
	if m.holding || v.OK && m.raised && v.V >= down {
		if m.since == 0 {
			m.since = now
		}
		m.cleared = 0
		m.raised = m.raised || now-m.since >= ticks(raise)
		return m.raised
	}
	if !m.raised {
		m.since = 0
		return false
	}
	if m.cleared == 0 {
		m.cleared = now
	}
	if now-m.cleared >= ticks(withdraw) {
		*m = ruleState{}
	}
	return m.raised
}

func (r *rule[S]) update(g *Monitor, m *ruleState, v number) bool {
	return m.update(v, r.raiseAt, r.clearBelow, r.raiseAfter, r.withdrawAfter, g.now)
}

// problem is one that is raised. It is valid for one cut.
type problem struct {
	id, kind string
	severity severity
	since    tick
	endpoint *endpointStats // nil: of the program
	rows     []*row         // those that have it; where none does any more, those that had it
	message  func(*Monitor, *problem) message

	lastTrue    tick    // when it was so last
	lastMeasure float64 // its measure then
	current     number  // and now
}

// words are what a problem says. Severity and rows are the rule's if they are not set.
type message struct {
	title, detail, check string
	severity             severity
	rows                 []*row
}

// raised makes the problem of a rule whose memory has it raised. It says that it is so only
// while it is.
func (r *rule[S]) newProblem(of *endpointStats, m *ruleState) problem {
	p := problem{id: r.kind, kind: problemKind(r.kind), severity: r.severity, since: m.since, endpoint: of, message: r.message, lastTrue: m.lastTrue, lastMeasure: float64(m.lastMeasure)}
	if of != nil {
		p.id += ":" + of.String()
	}
	if !m.holding {
		p.message = r.endedMessage
	}
	return p
}

// judge applies every rule to the cut.
func (g *Monitor) evaluate() {
	g.problems = g.problems[:0]
	for i := range programRules {
		r, m := &programRules[i], &g.ruleStates[i]
		if r.update(g, m, r.measure(g, g)) {
			g.problems = append(g.problems, r.newProblem(nil, m))
		}
	}
	for _, p := range g.endpoints {
		if p.start == p.end && !p.counted {
			continue
		}
		g.evaluateWorkers(p)
		for i := range endpointRules {
			r, m := &endpointRules[i], &p.ruleStates[i]
			if v := r.measure(g, p); r.update(g, m, v) {
				raised := r.newProblem(p, m)
				raised.current = v
				g.problems = append(g.problems, raised)
			}
		}
	}
	g.problemLog.update(g) // of those, too, that are left out
	if n := len(g.problems) - maxProblems; n > 0 {
		g.leftOut.problems = n
		var worst []problem
		for _, t := range g.messages()[:maxProblems] {
			worst = append(worst, *t.problem)
		}
		clear(g.problems) // each holds its rows
		g.problems = append(g.problems[:0], worst...)
	}
}

// judgeWorkers raises a problem for all workers of an endpoint that have it. Those that had it
// are named only where none has it any more.
func (g *Monitor) evaluateWorkers(p *endpointStats) {
	var found [workerRuleCount]struct {
		ruleState
		rows, before []*row
	}
	for i := p.start; i < p.end; i++ {
		w := &g.rows[i]
		for n := range workerRules {
			r, m, f := &workerRules[n], &w.ruleStates[n], &found[n]
			if !r.update(g, m, r.measure(g, w)) {
				continue
			}
			if m.holding {
				f.rows = append(f.rows, w)
			} else {
				f.before = append(f.before, w)
			}
			f.since = min(cmp.Or(f.since, m.since), m.since)
			f.lastTrue, f.holding = max(f.lastTrue, m.lastTrue), f.holding || m.holding
		}
	}
	for n := range found {
		if f := &found[n]; f.since != 0 {
			raised := workerRules[n].newProblem(p, &f.ruleState)
			if raised.rows = f.rows; !f.holding {
				raised.rows = f.before
			}
			g.problems = append(g.problems, raised)
		}
	}
}

// said is a problem with its words.
type problemMessage struct {
	*problem
	message
}

// rank is the order of severities.
var severityOrder = map[severity]int{severityBad: 0, severityWarn: 1, severityInfo: 2}

// overCheck is what there is to do about what is over.
const endedCheck = "nothing now. This is withdrawn, unless it is so again soon."

func (p *problem) describe(g *Monitor) problemMessage {
	t := problemMessage{p, p.message(g, p)}
	t.message.severity = cmp.Or(t.message.severity, p.severity)
	if t.message.check = cmp.Or(t.message.check, endedCheck); t.message.rows == nil {
		t.message.rows = p.rows
	}
	return t
}

// said are all problems: the worst first, and of those that are as bad the program's own, and then
// the oldest, so that they keep their places while they last.
func (g *Monitor) messages() []problemMessage {
	all := make([]problemMessage, 0, len(g.problems))
	for i := range g.problems {
		all = append(all, g.problems[i].describe(g))
	}
	slices.SortStableFunc(all, func(a, b problemMessage) int {
		return cmp.Or(severityOrder[a.message.severity]-severityOrder[b.message.severity], ifElse(a.endpoint == nil, 0, 1)-ifElse(b.endpoint == nil, 0, 1), cmp.Compare(a.since, b.since))
	})
	return all
}
