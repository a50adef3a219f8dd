package glance

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"
)

const (
	// tellAgain is how long after the log has said that a problem is raised it may say so of the
	// same one again.
	tellAgain = time.Minute
	// mostTold bounds how many problems the log calls raised in each tellAgain.
	mostTold = 20
	// mostDetail is the longest detail that a line has room for, in bytes.
	mostDetail = 400
)

// ownLines are the problems whose beginning and end the log tells elsewhere, with the error: they
// are not said twice.
var ownLines = map[string]bool{
	"connection:etcd": true, "connection:file": true, "connection:kubernetes": true, "connection:nats": true,
	"permission:nats": true, "push": true, "web_config": true,
}

// teller has the log say once that a problem is raised, and once that it is withdrawn. One that
// comes and goes is said each minute at most, with how often it came.
type teller struct {
	log   *slog.Logger // nil: nothing is said
	known map[string]*spoken
	begun moment // the minute of which told counts; 0: none has begun
	told  int
	full  bool // the log has said that it leaves some out
}

// spoken is what the log has said of a problem.
type spoken struct {
	title  string // when it was raised
	at     moment // when the log said so
	raised bool   // and has not said that it is withdrawn
	since  moment // when it had begun by then
	seen   bool   // it is there
	was    bool   // it was at the look before
	again  int    // how often it was raised since without a line
}

// tell looks at all problems of a cut.
func (t *teller) tell(g *Glance) {
	if t.log == nil {
		return
	}
	if t.known == nil {
		t.known = make(map[string]*spoken)
	}
	if t.begun == 0 || g.now-t.begun >= span(tellAgain) {
		t.begun, t.told, t.full = g.now, 0, false
	}
	for _, s := range t.known {
		s.was, s.seen = s.seen, false
	}
	var fresh []*problem
	for i := range g.problems {
		p := &g.problems[i]
		if ownLines[p.id] {
			continue
		}
		s := t.known[p.id]
		if s != nil {
			s.seen = true
		}
		switch {
		case s == nil, !s.raised && g.now-s.at >= span(tellAgain):
			fresh = append(fresh, p)
		case !s.raised && !s.was:
			s.again++
		}
	}
	t.withdraw(g)
	t.raise(g, fresh)
}

// raise says the most serious of these, as many as the minute has room for. What stays is said
// in one of the next.
func (t *teller) raise(g *Glance, fresh []*problem) {
	room := max(0, mostTold-t.told)
	if room == 0 && t.full {
		return
	}
	all := make([]said, len(fresh))
	for i, p := range fresh {
		all[i] = p.inWords(g)
	}
	slices.SortStableFunc(all, func(a, b said) int { return cmp.Compare(rank[a.words.severity], rank[b.words.severity]) })
	for _, p := range all[:min(room, len(all))] {
		t.say(g, p)
	}
	if n := len(all) - room; n > 0 && !t.full {
		t.full = true
		t.log.Warn("More problems are raised than are said in a minute; those that stay are said later, and /api/v1/fleet has them now", "problems", n)
	}
}

// say says that one is raised.
func (t *teller) say(g *Glance, p said) {
	attrs := []any{"problem", p.id}
	if p.detail != "" && len(p.detail) <= mostDetail {
		attrs = append(attrs, "detail", plainSpaces.Replace(p.detail))
	}
	if s := t.known[p.id]; s != nil && s.again > 0 {
		attrs = append(attrs, "times", s.again+1)
	}
	level := slog.LevelWarn
	if p.words.severity == info {
		level = slog.LevelInfo
	}
	s := &spoken{title: plainSpaces.Replace(p.title), at: g.now, raised: true, seen: true, since: p.since}
	t.log.Log(context.Background(), level, "Problem: "+s.title, attrs...)
	t.known[p.id] = s
	t.told++
}

// plainSpaces are those of a terminal.
var plainSpaces = strings.NewReplacer("\u00a0", " ")

// withdraw says of those that are not raised any more that they are withdrawn, which is not to say that
// they are over: what their rule measures may not be known. It forgets those that may be raised anew
// with a line.
func (t *teller) withdraw(g *Glance) {
	for id, s := range t.known {
		switch {
		case s.seen:
		case s.raised:
			s.raised = false
			t.log.Info("Problem withdrawn: "+s.title, "problem", id, "lasted", lasting((g.now - s.since).duration()))
		case g.now-s.at >= span(tellAgain):
			if s.again > 0 {
				t.log.Info("Problem came and went: "+s.title, "problem", id, "times", s.again)
			}
			delete(t.known, id)
		}
	}
}
