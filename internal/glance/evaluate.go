package glance

import (
	"cmp"
	"slices"
	"time"
)

// memory is how it stands with a rule and one subject.
type memory struct {
	since   moment  // when it began; 0: it has not
	cleared moment  // when it ended, while it is still raised; 0: it has not
	last    moment  // when it was so last
	was     float32 // its measure then
	raised  bool
	holds   bool // it is so now; one that is raised may have ended, or be half over
}

// look takes a new measure and reports whether the problem is raised.
func (m *memory) look(v number, up, down float64, raise, withdraw time.Duration, now moment) bool {
	m.holds = v.OK && v.V >= up
	if m.holds {
		m.last, m.was = now, float32(v.V)
	}
	if m.holds || v.OK && m.raised && v.V >= down {
		if m.since == 0 {
			m.since = now
		}
		m.cleared = 0
		m.raised = m.raised || now-m.since >= span(raise)
		return m.raised
	}
	if !m.raised {
		m.since = 0
		return false
	}
	if m.cleared == 0 {
		m.cleared = now
	}
	if now-m.cleared >= span(withdraw) {
		*m = memory{}
	}
	return m.raised
}

func (r *rule[S]) look(g *Glance, m *memory, v number) bool {
	return m.look(v, r.up, r.down, r.raise, r.withdraw, g.now)
}

// problem is one that is raised. It is valid for one cut.
type problem struct {
	id, kind string
	severity severity
	since    moment
	of       *place // nil: of the program
	rows     []*row // those that have it; where none does any more, those that had it
	say      func(*Glance, *problem) words

	last moment  // when it was so last
	was  float64 // its measure then
	is   number  // and now
}

// words are what a problem says. Severity and rows are the rule's if they are not set.
type words struct {
	title, detail, check string
	severity             severity
	rows                 []*row
}

// raised makes the problem of a rule whose memory has it raised. It says that it is so only
// while it is.
func (r *rule[S]) raised(of *place, m *memory) problem {
	p := problem{id: r.kind, kind: kindOf(r.kind), severity: r.severity, since: m.since, of: of, say: r.say, last: m.last, was: float64(m.was)}
	if of != nil {
		p.id += ":" + of.String()
	}
	if !m.holds {
		p.say = r.over
	}
	return p
}

// judge applies every rule to the cut.
func (g *Glance) judge() {
	g.problems = g.problems[:0]
	for i := range programRules {
		r, m := &programRules[i], &g.memory[i]
		if r.look(g, m, r.measure(g, g)) {
			g.problems = append(g.problems, r.raised(nil, m))
		}
	}
	for _, p := range g.order {
		if p.start == p.end && !p.counted {
			continue
		}
		g.judgeWorkers(p)
		for i := range endpointRules {
			r, m := &endpointRules[i], &p.memory[i]
			if v := r.measure(g, p); r.look(g, m, v) {
				raised := r.raised(p, m)
				raised.is = v
				g.problems = append(g.problems, raised)
			}
		}
	}
	g.teller.tell(g) // of those, too, that are left out
	if n := len(g.problems) - mostProblems; n > 0 {
		g.leftOut.problems = n
		var worst []problem
		for _, t := range g.said()[:mostProblems] {
			worst = append(worst, *t.problem)
		}
		clear(g.problems) // each holds its rows
		g.problems = append(g.problems[:0], worst...)
	}
}

// judgeWorkers raises a problem for all workers of an endpoint that have it. Those that had it
// are named only where none has it any more.
func (g *Glance) judgeWorkers(p *place) {
	var found [workerRuleCount]struct {
		memory
		rows, before []*row
	}
	for i := p.start; i < p.end; i++ {
		w := &g.rows[i]
		for n := range workerRules {
			r, m, f := &workerRules[n], &w.memory[n], &found[n]
			if !r.look(g, m, r.measure(g, w)) {
				continue
			}
			if m.holds {
				f.rows = append(f.rows, w)
			} else {
				f.before = append(f.before, w)
			}
			f.since = min(cmp.Or(f.since, m.since), m.since)
			f.last, f.holds = max(f.last, m.last), f.holds || m.holds
		}
	}
	for n := range found {
		if f := &found[n]; f.since != 0 {
			raised := workerRules[n].raised(p, &f.memory)
			if raised.rows = f.rows; !f.holds {
				raised.rows = f.before
			}
			g.problems = append(g.problems, raised)
		}
	}
}

// said is a problem with its words.
type said struct {
	*problem
	words
}

// rank is the order of severities.
var rank = map[severity]int{bad: 0, warn: 1, info: 2}

// overCheck is what there is to do about what is over.
const overCheck = "nothing now. This is withdrawn, unless it is so again soon."

func (p *problem) inWords(g *Glance) said {
	t := said{p, p.say(g, p)}
	t.words.severity = cmp.Or(t.words.severity, p.severity)
	if t.words.check = cmp.Or(t.words.check, overCheck); t.words.rows == nil {
		t.words.rows = p.rows
	}
	return t
}

// said are all problems: the worst first, and of those that are as bad the program's own, and then
// the oldest, so that they keep their places while they last.
func (g *Glance) said() []said {
	all := make([]said, 0, len(g.problems))
	for i := range g.problems {
		all = append(all, g.problems[i].inWords(g))
	}
	slices.SortStableFunc(all, func(a, b said) int {
		return cmp.Or(rank[a.words.severity]-rank[b.words.severity], either(a.of == nil, 0, 1)-either(b.of == nil, 0, 1), cmp.Compare(a.since, b.since))
	})
	return all
}
