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
	// logInterval is the least time between two log lines that report the same problem as raised.
	logInterval = time.Minute
	// maxLogged bounds how many problems are logged as raised in each logInterval.
	maxLogged = 20
	// maxLoggedDetail is the longest detail that is logged, in bytes.
	maxLoggedDetail = 400
)

// loggedElsewhere are the problems that other packages log, with the error. They are not logged
// twice.
var loggedElsewhere = map[string]bool{
	"connection:etcd": true, "connection:file": true, "connection:kubernetes": true, "connection:nats": true,
	"permission:nats": true, "push": true, "web_config": true,
}

// problemLog logs once that a problem is raised, and once that it is withdrawn. A problem that
// flaps is logged at most once a minute, with the number of times that it was raised.
type problemLog struct {
	log            *slog.Logger // nil: nothing is logged
	logged         map[string]*loggedProblem
	minuteStart    tick // start of the minute of loggedInMinute; 0: none yet
	loggedInMinute int
	overflowLogged bool // it has been logged that some problems are not
}

// loggedProblem is what has been logged of a problem.
type loggedProblem struct {
	title      string // its title when it was logged
	at         tick   // when it was logged
	raised     bool   // logged as raised and not yet as withdrawn
	since      tick   // when the problem began
	present    bool   // it is raised in this sample
	wasPresent bool   // it was raised in the sample before
	repeats    int    // how often it was raised since without a log line
}

// update logs the changes in the problems of a sample.
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

// logRaised logs the most serious of these problems, as many as the minute has room for. Problems
// that stay raised are logged in one of the next minutes.
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
		l.log.Warn("More problems are raised than are logged in a minute: those that last are logged later, and /api/v1/fleet has all of them", "problems", n)
	}
}

// logProblem logs that a problem is raised.
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

// plainSpaces replaces no-break spaces, which terminals may not show as spaces.
var plainSpaces = strings.NewReplacer("\u00a0", " ")

// logWithdrawn logs the problems that are no longer raised as withdrawn. That does not mean that
// they are solved: the measure may have become unknown. It forgets problems that may be logged as
// raised again.
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
