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
func (c *ConnState) MarkUsed() {
	if c.used.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.usedSince = time.Now()
	if !c.up.Load() {
		c.downSince = c.usedSince
	}
	c.used.Store(true)
}

// Used reports whether it does.
func (c *ConnState) Used() bool { return c.used.Load() }

// UsedFor is how long it has done so.
func (c *ConnState) UsedFor() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.usedSince.IsZero() {
		return 0
	}
	return time.Since(c.usedSince)
}

// TurnOff says that the program is told to do without this server.
func (c *ConnState) Disable() { c.disabled.Store(true) }

// Off reports whether it is.
func (c *ConnState) Disabled() bool { return c.disabled.Load() }

// Set says whether the server is connected. A connection that goes down soon after the
// process stood still counts as down since then.
func (c *ConnState) SetConnected(up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case up == c.up.Load():
		c.idle = c.idle && !up
		return
	case up:
		if !c.downSince.IsZero() {
			c.downtime += now.Sub(c.downSince)
		}
		if c.disconnects > 0 && !c.firstConnect {
			c.outage += now.Sub(c.downSince)
		}
		c.downSince, c.idle, c.firstConnect = time.Time{}, false, false
	case c.idle:
		c.downSince, c.idle, c.firstConnect = now, false, true
	default:
		c.disconnects++
		c.downSince = now
		if !c.suspension.to.IsZero() && now.Sub(c.suspension.to) < suspensionGrace {
			c.downSince, c.suspension.to = c.suspension.from, time.Time{}
		}
	}
	c.lastError = ""
	c.up.Store(up)
}

// longestWhy bounds what is kept of why a server is not connected: it may be the server's own words.
const maxErrorLength = 300

// Blame notes why the server is not connected. It is forgotten when it is, and when it goes away again.
func (c *ConnState) SetError(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(why) > maxErrorLength {
		why = strings.ToValidUTF8(why[:maxErrorLength], "") + "…"
	}
	c.lastError = why
}

// Why says why the server is not connected, as far as that is known.
func (c *ConnState) LastError() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.up.Load() {
		return ""
	}
	return c.lastError
}

// Rest says that there is nothing to be connected to, any more: what went away before was on
// its way out, and what comes next is connected for the first time.
func (c *ConnState) SetIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.up.Load() {
		if !c.downSince.IsZero() {
			c.downtime += time.Since(c.downSince)
		}
		c.downSince, c.firstConnect = time.Time{}, false
		c.up.Store(true)
	}
	c.idle = true
}

// stood hears that the process stood still. What has gone down since went down in that time.
func (c *ConnState) suspended(from, to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspension.from, c.suspension.to = from, to
	if c.disconnects > 0 && !c.firstConnect && c.downSince.After(from) {
		c.downSince, c.suspension.to = from, time.Time{}
	}
}

// Up reports whether it is, or is not needed.
func (c *ConnState) Up() bool { return c.up.Load() || !c.used.Load() }

// Falls is how often the connection went down.
func (c *ConnState) Disconnects() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.disconnects
}

// Down is how long there was no connection, in all: before the first one, too.
func (c *ConnState) Downtime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.downSince.IsZero() {
		return c.downtime
	}
	return c.downtime + time.Since(c.downSince)
}

// Lost is how long connections were lost that have come back since, in all.
func (c *ConnState) Outage() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outage
}
