package stats

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"dynamo-metrics/internal/testutil"
)

func TestConnStateUnusedIsUp(t *testing.T) {
	var c ConnState
	testutil.Equal(t, "up before use", c.Up(), true)
	c.MarkUsed()
	testutil.Equal(t, "used", c.Used(), true)
	testutil.Equal(t, "up before the connection", c.Up(), false)
	c.SetConnected(true)
	testutil.Equal(t, "up", c.Up(), true)
	c.SetConnected(false)
	testutil.Equal(t, "up after the connection was lost", c.Up(), false)
}

// wantConn checks the counters of a connection.
func wantConn(t *testing.T, what string, c *ConnState, disconnects uint64, down, outage time.Duration) {
	t.Helper()
	testutil.Equal(t, what+": disconnects", c.Disconnects(), disconnects)
	testutil.Equal(t, what+": downtime", c.Downtime(), down)
	testutil.Equal(t, what+": outage", c.Outage(), outage)
}

func TestConnStateCountsDisconnectsAndDowntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c ConnState
		time.Sleep(time.Hour)
		wantConn(t, "not used", &c, 0, 0, 0)
		testutil.Equal(t, "used for, before the first use", c.UsedFor(), 0)
		c.MarkUsed()
		time.Sleep(3 * time.Second)
		c.MarkUsed() // again: no change
		wantConn(t, "before the first connection", &c, 0, 3*time.Second, 0)
		c.SetConnected(true)
		c.SetConnected(true)
		time.Sleep(time.Minute)
		wantConn(t, "connected", &c, 0, 3*time.Second, 0)
		c.SetConnected(false)
		time.Sleep(2 * time.Second)
		c.SetConnected(false)
		wantConn(t, "disconnected", &c, 1, 5*time.Second, 0)
		time.Sleep(2 * time.Second)
		c.SetConnected(true)
		time.Sleep(time.Minute)
		wantConn(t, "connected again", &c, 1, 7*time.Second, 4*time.Second)
		c.SetConnected(false)
		time.Sleep(time.Second)
		c.SetConnected(true)
		wantConn(t, "connected again, twice", &c, 2, 8*time.Second, 5*time.Second)
		testutil.Equal(t, "used for", c.UsedFor(), 2*time.Minute+8*time.Second)
	})
}

func TestConnStateLastErrorWhileDown(t *testing.T) {
	var c ConnState
	c.MarkUsed()
	c.SetError("connection refused")
	testutil.Equal(t, "before the first connection", c.LastError(), "connection refused")
	c.SetConnected(true)
	testutil.Equal(t, "connected", c.LastError(), "")
	c.SetError("late error")
	testutil.Equal(t, "connected, with a late error", c.LastError(), "")
	c.SetConnected(false)
	testutil.Equal(t, "lost", c.LastError(), "")
	c.SetError(strings.Repeat("ü", 1000))
	testutil.Equal(t, "a long text of the server is shortened", len(c.LastError()) <= maxErrorLength+len("…") && utf8.ValidString(c.LastError()), true)
}

func TestConnStateUpBeforeFirstUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c ConnState
		c.SetConnected(true)
		c.MarkUsed()
		time.Sleep(time.Second)
		wantConn(t, "up", &c, 0, 0, 0)
	})
}

// suspended is how long the process is suspended in the following tests. Meanwhile the server
// disconnects the client. The client notices this when it continues, and reconnects immediately.
const suspended = 20 * time.Second

// connected returns Stats that have been connected to NATS for a minute.
func connected() *Stats {
	s := new(Stats)
	s.NATS.MarkUsed()
	s.NATS.SetConnected(true)
	time.Sleep(time.Minute)
	return s
}

func TestConnStateSuspensionBeforeDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := connected()
		from := time.Now()
		time.Sleep(suspended)
		s.RecordSuspension(from, time.Now())
		wantConn(t, "after the suspension", &s.NATS, 0, 0, 0)
		time.Sleep(time.Second)
		s.NATS.SetConnected(false)
		time.Sleep(time.Second)
		s.NATS.SetConnected(true)
		wantConn(t, "connected again", &s.NATS, 1, suspended+2*time.Second, suspended+2*time.Second)
		s.NATS.SetConnected(false)
		time.Sleep(time.Second)
		s.NATS.SetConnected(true)
		wantConn(t, "an unrelated disconnect", &s.NATS, 2, suspended+3*time.Second, suspended+3*time.Second)
	})
}

func TestConnStateSuspensionAfterDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := connected()
		from := time.Now()
		time.Sleep(suspended)
		s.NATS.SetConnected(false)
		s.RecordSuspension(from, time.Now())
		time.Sleep(time.Second)
		s.NATS.SetConnected(true)
		wantConn(t, "connected again", &s.NATS, 1, suspended+time.Second, suspended+time.Second)
	})
}

func TestConnStateSurvivesSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := connected()
		from := time.Now()
		time.Sleep(suspended)
		s.RecordSuspension(from, time.Now())
		time.Sleep(suspensionGrace)
		s.NATS.SetConnected(false)
		time.Sleep(time.Second)
		s.NATS.SetConnected(true)
		wantConn(t, "connected again", &s.NATS, 1, time.Second, time.Second)
	})
}

func TestConnStateDownBeforeSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := connected()
		s.NATS.SetConnected(false)
		time.Sleep(time.Second)
		from := time.Now()
		time.Sleep(suspended)
		s.RecordSuspension(from, time.Now())
		s.NATS.SetConnected(true)
		wantConn(t, "connected again", &s.NATS, 1, suspended+time.Second, suspended+time.Second)
	})
}

// TestConnStateIdleIsNoOutage checks that there is no outage while there are no publishers to
// connect to.
func TestConnStateIdleIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c ConnState
		c.SetIdle() // no publisher yet
		c.MarkUsed()
		c.SetConnected(false) // the first publisher is known
		time.Sleep(2 * time.Millisecond)
		c.SetConnected(true)
		wantConn(t, "the first publisher", &c, 0, 2*time.Millisecond, 0)
		c.SetConnected(false)
		time.Sleep(time.Second)
		c.SetConnected(true)
		wantConn(t, "lost", &c, 1, time.Second+2*time.Millisecond, time.Second)
		c.SetIdle() // all publishers are gone
		time.Sleep(time.Minute)
		c.SetConnected(false) // another publisher is known
		time.Sleep(3 * time.Second)
		wantConn(t, "another publisher, not connected yet", &c, 1, 4*time.Second+2*time.Millisecond, time.Second)
		c.SetConnected(true)
		wantConn(t, "another publisher", &c, 1, 4*time.Second+2*time.Millisecond, time.Second)
		c.SetConnected(false) // it stops: its connection is closed before its key is deleted
		time.Sleep(time.Second)
		c.SetIdle()
		wantConn(t, "stopped as intended", &c, 2, 5*time.Second+2*time.Millisecond, time.Second)
		c.SetConnected(true) // a publisher that is already connected
		c.SetConnected(false)
		time.Sleep(time.Second)
		c.SetConnected(true)
		wantConn(t, "lost again", &c, 3, 6*time.Second+2*time.Millisecond, 2*time.Second)
	})
}
