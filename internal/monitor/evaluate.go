package monitor

import (
	"cmp"
	"slices"
	"time"
)

// ruleState is the state of one rule for one subject.
type ruleState struct {
	since       tick    // when the condition began; 0: it does not hold
	cleared     tick    // when the condition ended while the problem is still raised; 0: it has not
	lastTrue    tick    // when the condition last held
	lastMeasure float32 // the measure at that time
	raised      bool
	holding     bool // the condition holds now; a raised problem may have ended, or be between the two thresholds
}

// update takes a new measure and reports whether the problem is raised.
func (st *ruleState) update(v number, up, down float64, raise, withdraw time.Duration, now tick) bool {
	st.holding = v.OK && v.V >= up
	if st.holding {
		st.lastTrue, st.lastMeasure = now, float32(v.V)
	}
	if st.holding || v.OK && st.raised && v.V >= down {
		if st.since == 0 {
			st.since = now
		}
		st.cleared = 0
		st.raised = st.raised || now-st.since >= ticks(raise)
		return st.raised
	}
	if !st.raised {
		st.since = 0
		return false
	}
	if st.cleared == 0 {
		st.cleared = now
	}
	if now-st.cleared >= ticks(withdraw) {
		*st = ruleState{}
	}
	return st.raised
}

func (r *rule[S]) update(m *Monitor, st *ruleState, v number) bool {
	return st.update(v, r.raiseAt, r.clearBelow, r.raiseAfter, r.withdrawAfter, m.now)
}

// problem is a raised problem. It is valid for one sample.
type problem struct {
	id, kind string
	severity severity
	since    tick
	endpoint *endpointStats // nil for a problem of the program
	rows     []*row         // the workers that have the problem; if none still has it, those that had it
	message  func(*Monitor, *problem) message

	lastTrue    tick    // when the condition last held
	lastMeasure float64 // the measure at that time
	current     number  // the measure now
}

// message is what a problem says to people. If severity and rows are not set, they are the
// problem's.
type message struct {
	title, detail, check string
	severity             severity
	rows                 []*row
}

// newProblem returns the problem of a rule that is raised. Its message is in the present tense
// only while the condition holds.
func (r *rule[S]) newProblem(ep *endpointStats, st *ruleState) problem {
	p := problem{id: r.kind, kind: problemKind(r.kind), severity: r.severity, since: st.since, endpoint: ep, message: r.message, lastTrue: st.lastTrue, lastMeasure: float64(st.lastMeasure)}
	if ep != nil {
		p.id += ":" + ep.String()
	}
	if !st.holding {
		p.message = r.endedMessage
	}
	return p
}

// evaluate applies every rule to the last sample.
func (m *Monitor) evaluate() {
	m.problems = m.problems[:0]
	for i := range programRules {
		r, st := &programRules[i], &m.ruleStates[i]
		if r.update(m, st, r.measure(m, m)) {
			m.problems = append(m.problems, r.newProblem(nil, st))
		}
	}
	for _, ep := range m.endpoints {
		if ep.start == ep.end && !ep.counted {
			continue
		}
		m.evaluateWorkers(ep)
		for i := range endpointRules {
			r, st := &endpointRules[i], &ep.ruleStates[i]
			if v := r.measure(m, ep); r.update(m, st, v) {
				raised := r.newProblem(ep, st)
				raised.current = v
				m.problems = append(m.problems, raised)
			}
		}
	}
	m.problemLog.update(m) // before any are left out
	if n := len(m.problems) - maxProblems; n > 0 {
		m.leftOut.problems = n
		var worst []problem
		for _, pm := range m.messages()[:maxProblems] {
			worst = append(worst, *pm.problem)
		}
		clear(m.problems) // so that their rows can be freed
		m.problems = append(m.problems[:0], worst...)
	}
}

// evaluateWorkers raises one problem for all workers of an endpoint that have it. Workers that
// had it are named only where none still has it.
func (m *Monitor) evaluateWorkers(ep *endpointStats) {
	var found [workerRuleCount]struct {
		ruleState
		rows, before []*row
	}
	for i := ep.start; i < ep.end; i++ {
		w := &m.rows[i]
		for n := range workerRules {
			r, st, f := &workerRules[n], &w.ruleStates[n], &found[n]
			if !r.update(m, st, r.measure(m, w)) {
				continue
			}
			if st.holding {
				f.rows = append(f.rows, w)
			} else {
				f.before = append(f.before, w)
			}
			f.since = min(cmp.Or(f.since, st.since), st.since)
			f.lastTrue, f.holding = max(f.lastTrue, st.lastTrue), f.holding || st.holding
		}
	}
	for n := range found {
		if f := &found[n]; f.since != 0 {
			raised := workerRules[n].newProblem(ep, &f.ruleState)
			if raised.rows = f.rows; !f.holding {
				raised.rows = f.before
			}
			m.problems = append(m.problems, raised)
		}
	}
}

// problemMessage is a problem with its message.
type problemMessage struct {
	*problem
	message
}

// severityOrder sorts severities.
var severityOrder = map[severity]int{severityBad: 0, severityWarn: 1, severityInfo: 2}

// endedCheck is the advice for a problem whose condition has ended.
const endedCheck = "nothing for now. This problem is withdrawn soon unless it recurs."

func (p *problem) describe(m *Monitor) problemMessage {
	pm := problemMessage{p, p.message(m, p)}
	pm.message.severity = cmp.Or(pm.message.severity, p.severity)
	if pm.message.check = cmp.Or(pm.message.check, endedCheck); pm.message.rows == nil {
		pm.message.rows = p.rows
	}
	return pm
}

// messages returns all problems: the worst first, then the program's own, then the oldest, so
// that they keep their places while they last.
func (m *Monitor) messages() []problemMessage {
	all := make([]problemMessage, 0, len(m.problems))
	for i := range m.problems {
		all = append(all, m.problems[i].describe(m))
	}
	slices.SortStableFunc(all, func(a, b problemMessage) int {
		return cmp.Or(severityOrder[a.message.severity]-severityOrder[b.message.severity], ifElse(a.endpoint == nil, 0, 1)-ifElse(b.endpoint == nil, 0, 1), cmp.Compare(a.since, b.since))
	})
	return all
}
