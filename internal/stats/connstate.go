package stats

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Link is a connection to a server that the program works with. The zero Link is not in use.
type Link struct {
	used, up, off atomic.Bool

	mu    sync.Mutex
	begun time.Time     // when it was first used
	since time.Time     // when it went down, or was first used; zero while it is up
	falls uint64        // how often it went down
	down  time.Duration // how long it was down, but for the time since then
	lost  time.Duration // the part of that which follows a fall
	rests bool          // it is up because there is nothing to be connected to
	fresh bool          // since then it was not up: what is down now was not lost
	why   string        // it is down, as far as that is known
	still struct{ from, to time.Time }
}

// suspect is how long after the process stood still a connection that goes down may have
// been lost in that time: one that is dead is noticed within 9 s (NATS' pings).
const suspect = 10 * time.Second

// Use says that the program works with this server.
func (l *Link) Use() {
	if l.used.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun = time.Now()
	if !l.up.Load() {
		l.since = l.begun
	}
	l.used.Store(true)
}

// Used reports whether it does.
func (l *Link) Used() bool { return l.used.Load() }

// UsedFor is how long it has done so.
func (l *Link) UsedFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun.IsZero() {
		return 0
	}
	return time.Since(l.begun)
}

// TurnOff says that the program is told to do without this server.
func (l *Link) TurnOff() { l.off.Store(true) }

// Off reports whether it is.
func (l *Link) Off() bool { return l.off.Load() }

// Set says whether the server is connected. A connection that goes down soon after the
// process stood still counts as down since then.
func (l *Link) Set(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case up == l.up.Load():
		l.rests = l.rests && !up
		return
	case up:
		if !l.since.IsZero() {
			l.down += now.Sub(l.since)
		}
		if l.falls > 0 && !l.fresh {
			l.lost += now.Sub(l.since)
		}
		l.since, l.rests, l.fresh = time.Time{}, false, false
	case l.rests:
		l.since, l.rests, l.fresh = now, false, true
	default:
		l.falls++
		l.since = now
		if !l.still.to.IsZero() && now.Sub(l.still.to) < suspect {
			l.since, l.still.to = l.still.from, time.Time{}
		}
	}
	l.why = ""
	l.up.Store(up)
}

// longestWhy bounds what is kept of why a server is not connected: it may be the server's own words.
const longestWhy = 300

// Blame notes why the server is not connected. It is forgotten when it is, and when it goes away again.
func (l *Link) Blame(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(why) > longestWhy {
		why = strings.ToValidUTF8(why[:longestWhy], "") + "…"
	}
	l.why = why
}

// Why says why the server is not connected, as far as that is known.
func (l *Link) Why() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up.Load() {
		return ""
	}
	return l.why
}

// Rest says that there is nothing to be connected to, any more: what went away before was on
// its way out, and what comes next is connected for the first time.
func (l *Link) Rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.up.Load() {
		if !l.since.IsZero() {
			l.down += time.Since(l.since)
		}
		l.since, l.fresh = time.Time{}, false
		l.up.Store(true)
	}
	l.rests = true
}

// stood hears that the process stood still. What has gone down since went down in that time.
func (l *Link) stood(from, to time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.still.from, l.still.to = from, to
	if l.falls > 0 && !l.fresh && l.since.After(from) {
		l.since, l.still.to = from, time.Time{}
	}
}

// Up reports whether it is, or is not needed.
func (l *Link) Up() bool { return l.up.Load() || !l.used.Load() }

// Falls is how often the connection went down.
func (l *Link) Falls() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.falls
}

// Down is how long there was no connection, in all: before the first one, too.
func (l *Link) Down() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() {
		return l.down
	}
	return l.down + time.Since(l.since)
}

// Lost is how long connections were lost that have come back since, in all.
func (l *Link) Lost() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}
