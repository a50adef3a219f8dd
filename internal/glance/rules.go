package glance

import (
	"slices"
	"time"

	"dynamo-metrics/internal/fleet"
)

// The rules of what is wrong stand here, all of them: what is measured, from which
// value on and after how long a problem is raised, below which and after how long it is
// withdrawn. What a problem says is beside its measure, in the files problems_*.go.

// severity is how much a problem matters: the page opens bad ones by itself.
type severity string

const (
	bad  severity = "bad"
	warn severity = "warn"
	info severity = "info"
)

// rule says when something is wrong with a subject: a row, an endpoint, or the program.
type rule[S any] struct {
	kind     string
	severity severity // unless its words know better
	up, down float64
	raise    time.Duration
	withdraw time.Duration
	keeps    bool                    // its last words, until it is withdrawn: when it ends there is nothing to name any more
	measure  func(*Glance, S) number // absent: nothing is wrong
	say      func(*Glance, *problem) words
}

// The rules of workers; they are raised together for those of an endpoint.
const (
	silent = iota
	malformed
	stalled
	full
	unregistered
	quiet
	unread
	workerRuleCount
)

var workerRules = [workerRuleCount]rule[*row]{
	silent:       {kind: "silent", severity: bad, up: 1, down: 1, measure: silence, say: saySilent},
	malformed:    {kind: "malformed", severity: warn, up: 1, down: 1, withdraw: 10 * time.Second, measure: unreadable, say: sayMalformed},
	stalled:      {kind: "stalled", severity: warn, up: 20, down: 5, measure: sincePass, say: sayStalled}, // seconds
	full:         {kind: "full", severity: warn, up: 0.9, down: 0.85, withdraw: 30 * time.Second, measure: fullness, say: sayFull},
	unregistered: {kind: "unregistered", severity: warn, up: 1, down: 1, raise: time.Minute, measure: withoutKey, say: sayUnregistered},
	quiet:        {kind: "quiet", severity: info, up: 60, down: 60, measure: quietFor, say: sayQuiet},    // seconds
	unread:       {kind: "unread", severity: warn, up: 3, down: 1, measure: unreadTimes, say: sayUnread}, // in a row
}

// The rules of endpoints.
const (
	workersLost = iota
	queueGrowing
	saturated
	uneven
	hitsCollapsed
	endpointRuleCount
)

var endpointRules = [endpointRuleCount]rule[*place]{
	workersLost:   {kind: "lost", severity: warn, up: 0.1, down: 0.05, raise: 5 * time.Second, measure: lostShare, say: sayLost},                             // of the most there were
	queueGrowing:  {kind: "waiting", severity: warn, up: 2, down: 1.2, raise: 10 * time.Second, withdraw: time.Minute, measure: queueGrowth, say: sayQueue},  // times
	saturated:     {kind: "saturated", severity: warn, up: 0.8, down: 0.5, raise: time.Minute, withdraw: time.Minute, measure: waitShare, say: saySaturated}, // of the workers
	uneven:        {kind: "imbalance", severity: warn, up: 1.5, down: 1.3, raise: 30 * time.Second, withdraw: time.Minute, measure: unevenness, say: sayUneven},
	hitsCollapsed: {kind: "hits", severity: warn, up: 0.5, down: 0.25, raise: time.Minute, withdraw: time.Minute, measure: hitsLost, say: sayHits}, // of what is normal
}

// The rules of the program itself, and of what it is connected to.
var programRules = [...]rule[*Glance]{
	{kind: "connection:etcd", severity: bad, up: 1, down: 1, raise: 3 * time.Second, withdraw: 2 * time.Second, keeps: true, measure: etcdAway, say: sayEtcd},
	{kind: "connection:file", severity: bad, up: 1, down: 1, raise: 3 * time.Second, withdraw: 2 * time.Second, keeps: true, measure: filesAway, say: sayFiles},
	{kind: "connection:kubernetes", severity: bad, up: 1, down: 1, raise: 3 * time.Second, withdraw: 2 * time.Second, keeps: true, measure: kubernetesAway, say: sayKubernetes},
	{kind: "connection:nats", severity: bad, up: 1, down: 1, raise: 3 * time.Second, withdraw: 2 * time.Second, keeps: true, measure: natsAway, say: sayNATS},
	{kind: "permission:nats", severity: bad, up: 1, down: 1, withdraw: 2 * time.Second, keeps: true, measure: subjectsRefused, say: sayRefused},
	{kind: "connection:zmq", severity: warn, up: 1, down: 1, withdraw: 5 * time.Second, keeps: true, measure: publishersAway, say: sayPublishers},
	{kind: "leader", severity: bad, up: 1, down: 1, raise: 15 * time.Second, withdraw: 2 * time.Second, keeps: true, measure: nobodyLeads, say: sayLeader},
	{kind: "push", severity: bad, up: 2, down: 1, measure: failedPushes, say: sayPush}, // in a row
	{kind: "web_config", severity: warn, up: 1, down: 1, measure: webConfigWrong, say: sayWebConfig},
	{kind: "limit", severity: warn, up: 1, down: 1, withdraw: 5 * time.Minute, measure: flowing(overLimit), say: sayLimit},
	{kind: "limit:publishers", severity: warn, up: 1, down: 1, withdraw: 5 * time.Second, keeps: true, measure: publishersWaiting, say: sayPublishersWaiting},
	{kind: "limit:page", severity: warn, up: 1, down: 1, withdraw: 10 * time.Second, measure: cutShort, say: sayCutShort},
	{kind: "outage", severity: warn, up: 1, down: 1, withdraw: 5 * time.Minute, measure: outageOver, say: sayOutage},
	{kind: "planes", severity: warn, up: 1, down: 1, withdraw: 10 * time.Second, measure: clashing, say: sayPlanes},
	{kind: "drops", severity: warn, up: 1, down: 1, withdraw: 5 * time.Minute, measure: flowing(drops), say: sayDrops},
	{kind: "malformed:messages", severity: warn, up: 1, down: 1, withdraw: 5 * time.Minute, measure: flowing(rejects), say: sayRejects},
	{kind: "nameless", severity: info, up: 1, down: 1, withdraw: 5 * time.Minute, measure: flowing(nameless), say: sayNameless},
	{kind: "gaps", severity: info, up: 1, down: 1, withdraw: 5 * time.Minute, measure: flowing(gaps), say: sayGaps},
}

// memory is how it stands with a rule and one subject.
type memory struct {
	since   moment // when it began; 0: it has not
	cleared moment // when it ended, while it is still raised; 0: it has not
	raised  bool
}

// look takes a new measure and reports whether the problem is raised.
func (m *memory) look(v number, up, down float64, raise, withdraw time.Duration, now moment) bool {
	if v.OK && (v.V >= up || m.raised && v.V >= down) {
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

func (r *rule[S]) look(g *Glance, m *memory, s S) bool {
	return m.look(r.measure(g, s), r.up, r.down, r.raise, r.withdraw, g.now)
}

// problem is one that is raised. It is valid for one cut.
type problem struct {
	id, kind string
	severity severity
	since    moment
	of       *place // nil: of the program
	rows     []*row // whose it is
	say      func(*Glance, *problem) words
}

// words are what a problem says. Severity and rows are the rule's if they are not set.
type words struct {
	title, detail, check string
	severity             severity
	rows                 []*row
}

// keep is say as long as the problem is not over, and then what that said last.
func (w *words) keep(isOver bool, say func(*Glance, *problem) words) func(*Glance, *problem) words {
	return func(g *Glance, p *problem) words {
		if !isOver || w.title == "" {
			*w = say(g, p)
			w.rows = nil // of one cut
		}
		return *w
	}
}

// judge applies every rule to the cut.
func (g *Glance) judge() {
	g.problems = g.problems[:0]
	for i := range programRules {
		r := &programRules[i]
		if m := &g.memory[i]; r.look(g, m, g) {
			p := problem{id: r.kind, kind: kindOf(r.kind), severity: r.severity, since: m.since, say: r.say}
			if r.keeps {
				p.say = g.lastWords[i].keep(m.cleared != 0, r.say)
			}
			g.problems = append(g.problems, p)
		} else {
			g.lastWords[i] = words{}
		}
	}
	for _, p := range g.order {
		if p.start == p.end && !p.counted {
			continue
		}
		g.judgeWorkers(p)
		for i := range endpointRules {
			r := &endpointRules[i]
			if m := &p.memory[i]; r.look(g, m, p) {
				g.problems = append(g.problems, problem{id: r.kind + ":" + p.String(), kind: r.kind, severity: r.severity, since: m.since, of: p, say: r.say})
			}
		}
	}
	if n := len(g.problems) - mostProblems; n > 0 {
		slices.SortStableFunc(g.problems, func(a, b problem) int { return rank[a.severity] - rank[b.severity] })
		g.leftOut.problems = n
		clear(g.problems[mostProblems:]) // each holds its rows
		g.problems = g.problems[:mostProblems]
	}
}

// judgeWorkers raises a problem for all workers of an endpoint that have it.
func (g *Glance) judgeWorkers(p *place) {
	var found [workerRuleCount]*problem
	for i := p.start; i < p.end; i++ {
		w := &g.rows[i]
		for n := range workerRules {
			r := &workerRules[n]
			m := &w.memory[n]
			if !r.look(g, m, w) {
				continue
			}
			if found[n] == nil {
				found[n] = &problem{id: r.kind + ":" + p.String(), kind: r.kind, severity: r.severity, since: m.since, of: p, say: r.say}
			}
			found[n].since = min(found[n].since, m.since)
			found[n].rows = append(found[n].rows, w)
		}
	}
	for _, f := range found {
		if f != nil {
			g.problems = append(g.problems, *f)
		}
	}
}

// kindOf is what stands before the colon.
func kindOf(id string) string {
	for i := range id {
		if id[i] == ':' {
			return id[:i]
		}
	}
	return id
}

func yes(b bool) number {
	if b {
		return fleet.Some(1.0)
	}
	return number{}
}
