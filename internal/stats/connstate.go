package stats

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ConnState is the state of a connection to a server. The zero ConnState is not in use.
type ConnState struct {
	used, up, disabled atomic.Bool

	mu           sync.Mutex
	usedSince    time.Time     // time of the first MarkUsed
	downSince    time.Time     // when it went down, or was first used; zero while it is up
	disconnects  uint64        // how often it went down
	downtime     time.Duration // how long it was down, without the time since downSince
	outage       time.Duration // the part of downtime that followed a disconnect and has ended
	idle         bool          // it counts as up because there is nothing to connect to
	firstConnect bool          // it has not been up since it was idle, so the current downtime is not an outage
	lastError    string        // why it is down, as far as that is known
	suspension   struct{ from, to time.Time }
}

// suspensionGrace is how long after a suspension of the process a disconnect is still
// attributed to it. The pings of NATS detect a dead connection within 9 s.
const suspensionGrace = 10 * time.Second

// MarkUsed records that the program uses this server.
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

// Used reports whether the program uses this server.
func (c *ConnState) Used() bool { return c.used.Load() }

// UsedFor returns how long the program has used this server.
func (c *ConnState) UsedFor() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.usedSince.IsZero() {
		return 0
	}
	return time.Since(c.usedSince)
}

// Disable records that the configuration forbids the use of this server.
func (c *ConnState) Disable() { c.disabled.Store(true) }

// Disabled reports whether the configuration forbids the use of this server.
func (c *ConnState) Disabled() bool { return c.disabled.Load() }

// SetConnected records whether the server is connected. A connection that goes down soon
// after a suspension of the process counts as down since the start of the suspension.
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

// maxErrorLength is the largest size of lastError in bytes. The text may come from the server.
const maxErrorLength = 300

// SetError records why the server is not connected. The next change of the connection clears
// it.
func (c *ConnState) SetError(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(why) > maxErrorLength {
		why = strings.ToValidUTF8(why[:maxErrorLength], "") + "…"
	}
	c.lastError = why
}

// LastError returns why the server is not connected, as far as that is known.
func (c *ConnState) LastError() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.up.Load() {
		return ""
	}
	return c.lastError
}

// SetIdle records that there is nothing to connect to, or no longer anything. A server that went
// down before has been removed, so its downtime was not an outage. The next server is connected
// for the first time.
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

// suspended records that the process was suspended. If the connection went down after from,
// it counts as down since from.
func (c *ConnState) suspended(from, to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspension.from, c.suspension.to = from, to
	if c.disconnects > 0 && !c.firstConnect && c.downSince.After(from) {
		c.downSince, c.suspension.to = from, time.Time{}
	}
}

// Up reports whether the server is connected, or not used.
func (c *ConnState) Up() bool { return c.up.Load() || !c.used.Load() }

// Disconnects returns how often the connection went down.
func (c *ConnState) Disconnects() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.disconnects
}

// Downtime returns how long there was no connection in total, including the time before the
// first one.
func (c *ConnState) Downtime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.downSince.IsZero() {
		return c.downtime
	}
	return c.downtime + time.Since(c.downSince)
}

// Outage returns the total duration of the outages that have ended.
func (c *ConnState) Outage() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outage
}
