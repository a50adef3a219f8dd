package monitor

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
	logInterval = time.Minute
	// mostTold bounds how many problems the log calls raised in each tellAgain.
	maxLogged = 20
	// mostDetail is the longest detail that a line has room for, in bytes.
	maxLoggedDetail = 400
)

// ownLines are the problems whose beginning and end the log tells elsewhere, with the error: they
// are not said twice.
var loggedElsewhere = map[string]bool{
	"connection:etcd": true, "connection:file": true, "connection:kubernetes": true, "connection:nats": true,
	"permission:nats": true, "push": true, "web_config": true,
}

// teller has the log say once that a problem is raised, and once that it is withdrawn. One that
// comes and goes is said each minute at most, with how often it came.
type problemLog struct {
	log            *slog.Logger // nil: nothing is said
	logged         map[string]*loggedProblem
	minuteStart    tick // the minute of which told counts; 0: none has begun
	loggedInMinute int
	overflowLogged bool // the log has said that it leaves some out
}

// spoken is what the log has said of a problem.
type loggedProblem struct {
	title      string // when it was raised
	at         tick   // when the log said so
	raised     bool   // and has not said that it is withdrawn
	since      tick   // when it had begun by then
	present    bool   // it is there
	wasPresent bool   // it was at the look before
	repeats    int    // how often it was raised since without a line
}

// tell looks at all problems of a cut.
func (l *problemLog) update(m *Monitor) {
	if l.log == nil {
		return
	}
	if l.logged == nil {
		l.logged = make(map[string]*loggedProblem)
	}
	if l.minuteStart == 0 || m.now-l.minuteStart >= ticks(logInterval) {
		l.minuteStart, l.loggedInMinute, l.overflowLogged = m.now, 0, false
	}
	for _, s := range l.logged {
		s.wasPresent, s.present = s.present, false
	}
	var fresh []*problem
	for i := range m.problems {
		p := &m.problems[i]
		if loggedElsewhere[p.id] {
			continue
		}
		s := l.logged[p.id]
		if s != nil {
			s.present = true
		}
		switch {
		case s == nil, !s.raised && m.now-s.at >= ticks(logInterval):
			fresh = append(fresh, p)
		case !s.raised && !s.wasPresent:
			s.repeats++
		}
	}
	l.logWithdrawn(m)
	l.logRaised(m, fresh)
}

// raise says the most serious of these, as many as the minute has room for. What stays is said
// in one of the next.
func (l *problemLog) logRaised(m *Monitor, fresh []*problem) {
	room := max(0, maxLogged-l.loggedInMinute)
	if room == 0 && l.overflowLogged {
		return
	}
	all := make([]problemMessage, len(fresh))
	for i, p := range fresh {
		all[i] = p.describe(m)
	}
	slices.SortStableFunc(all, func(a, b problemMessage) int {
		return cmp.Compare(severityOrder[a.message.severity], severityOrder[b.message.severity])
	})
	for _, p := range all[:min(room, len(all))] {
		l.logProblem(m, p)
	}
	if n := len(all) - room; n > 0 && !l.overflowLogged {
		l.overflowLogged = true
		l.log.Warn("More problems are raised than are said in a minute; those that stay are said later, and /api/v1/fleet has them now", "problems", n)
	}
}

// say says that one is raised.
func (l *problemLog) logProblem(m *Monitor, p problemMessage) {
	attrs := []any{"problem", p.id}
	if p.detail != "" && len(p.detail) <= maxLoggedDetail {
		attrs = append(attrs, "detail", plainSpaces.Replace(p.detail))
	}
	if s := l.logged[p.id]; s != nil && s.repeats > 0 {
		attrs = append(attrs, "times", s.repeats+1)
	}
	level := slog.LevelWarn
	if p.message.severity == severityInfo {
		level = slog.LevelInfo
	}
	s := &loggedProblem{title: plainSpaces.Replace(p.title), at: m.now, raised: true, present: true, since: p.since}
	l.log.Log(context.Background(), level, "Problem: "+s.title, attrs...)
	l.logged[p.id] = s
	l.loggedInMinute++
}

// plainSpaces are those of a terminal.
var plainSpaces = strings.NewReplacer("\u00a0", " ")

// withdraw says of those that are not raised any more that they are withdrawn, which is not to say that
// they are over: what their rule measures may not be known. It forgets those that may be raised anew
// with a line.
func (l *problemLog) logWithdrawn(m *Monitor) {
	for id, s := range l.logged {
		switch {
		case s.present:
		case s.raised:
			s.raised = false
			l.log.Info("Problem withdrawn: "+s.title, "problem", id, "lasted", formatDuration((m.now - s.since).duration()))
		case m.now-s.at >= ticks(logInterval):
			if s.repeats > 0 {
				l.log.Info("Problem came and went: "+s.title, "problem", id, "times", s.repeats)
			}
			delete(l.logged, id)
		}
	}
}
