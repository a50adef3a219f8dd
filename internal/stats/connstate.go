package stats

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Link is a connection to a server that the program works with. The zero Link is not in use.
type ConnState struct {
	used, up, disabled atomic.Bool

	mu           sync.Mutex
	usedSince    time.Time     // when it was first used
	downSince    time.Time     // when it went down, or was first used; zero while it is up
	disconnects  uint64        // how often it went down
	downtime     time.Duration // how long it was down, but for the time since then
	outage       time.Duration // the part of that which follows a fall
	idle         bool          // it is up because there is nothing to be connected to
	firstConnect bool          // since then it was not up: what is down now was not lost
	lastError    string        // it is down, as far as that is known
	suspension   struct{ from, to time.Time }
}

// suspect is how long after the process stood still a connection that goes down may have
// been lost in that time: one that is dead is noticed within 9 s (NATS' pings).
const suspensionGrace = 10 * time.Second

// Use says that the program works with this server.
func (l *ConnState) MarkUsed() {
	if l.used.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.usedSince = time.Now()
	if !l.up.Load() {
		l.downSince = l.usedSince
	}
	l.used.Store(true)
}

// Used reports whether it does.
func (l *ConnState) Used() bool { return l.used.Load() }

// UsedFor is how long it has done so.
func (l *ConnState) UsedFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.usedSince.IsZero() {
		return 0
	}
	return time.Since(l.usedSince)
}

// TurnOff says that the program is told to do without this server.
func (l *ConnState) Disable() { l.disabled.Store(true) }

// Off reports whether it is.
func (l *ConnState) Disabled() bool { return l.disabled.Load() }

// Set says whether the server is connected. A connection that goes down soon after the
// process stood still counts as down since then.
func (l *ConnState) SetConnected(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case up == l.up.Load():
		l.idle = l.idle && !up
		return
	case up:
		if !l.downSince.IsZero() {
			l.downtime += now.Sub(l.downSince)
		}
		if l.disconnects > 0 && !l.firstConnect {
			l.outage += now.Sub(l.downSince)
		}
		l.downSince, l.idle, l.firstConnect = time.Time{}, false, false
	case l.idle:
		l.downSince, l.idle, l.firstConnect = now, false, true
	default:
		l.disconnects++
		l.downSince = now
		if !l.suspension.to.IsZero() && now.Sub(l.suspension.to) < suspensionGrace {
			l.downSince, l.suspension.to = l.suspension.from, time.Time{}
		}
	}
	l.lastError = ""
	l.up.Store(up)
}

// longestWhy bounds what is kept of why a server is not connected: it may be the server's own words.
const maxErrorLength = 300

// Blame notes why the server is not connected. It is forgotten when it is, and when it goes away again.
func (l *ConnState) SetError(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(why) > maxErrorLength {
		why = strings.ToValidUTF8(why[:maxErrorLength], "") + "…"
	}
	l.lastError = why
}

// Why says why the server is not connected, as far as that is known.
func (l *ConnState) LastError() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up.Load() {
		return ""
	}
	return l.lastError
}

// Rest says that there is nothing to be connected to, any more: what went away before was on
// its way out, and what comes next is connected for the first time.
func (l *ConnState) SetIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.up.Load() {
		if !l.downSince.IsZero() {
			l.downtime += time.Since(l.downSince)
		}
		l.downSince, l.firstConnect = time.Time{}, false
		l.up.Store(true)
	}
	l.idle = true
}

// stood hears that the process stood still. What has gone down since went down in that time.
func (l *ConnState) suspended(from, to time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspension.from, l.suspension.to = from, to
	if l.disconnects > 0 && !l.firstConnect && l.downSince.After(from) {
		l.downSince, l.suspension.to = from, time.Time{}
	}
}

// Up reports whether it is, or is not needed.
func (l *ConnState) Up() bool { return l.up.Load() || !l.used.Load() }

// Falls is how often the connection went down.
func (l *ConnState) Disconnects() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.disconnects
}

// Down is how long there was no connection, in all: before the first one, too.
func (l *ConnState) Downtime() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.downSince.IsZero() {
		return l.downtime
	}
	return l.downtime + time.Since(l.downSince)
}

// Lost is how long connections were lost that have come back since, in all.
func (l *ConnState) Outage() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outage
}
