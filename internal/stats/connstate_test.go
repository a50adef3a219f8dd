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
	testutil.Equal(t, "up before it is connected", c.Up(), false)
	c.SetConnected(true)
	testutil.Equal(t, "up", c.Up(), true)
	c.SetConnected(false)
	testutil.Equal(t, "up when it broke", c.Up(), false)
}

// linkAt checks what is counted of a connection.
func wantConn(t *testing.T, what string, c *ConnState, disconnects uint64, down, lost time.Duration) {
	t.Helper()
	testutil.Equal(t, what+": falls", c.Disconnects(), disconnects)
	testutil.Equal(t, what+": down", c.Downtime(), down)
	testutil.Equal(t, what+": lost", c.Outage(), lost)
}

func TestConnStateCountsDisconnectsAndDowntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c ConnState
		time.Sleep(time.Hour)
		wantConn(t, "not in use", &c, 0, 0, 0)
		testutil.Equal(t, "used for, before it is", c.UsedFor(), 0)
		c.MarkUsed()
		time.Sleep(3 * time.Second)
		c.MarkUsed() // again: that changes nothing
		wantConn(t, "before the first connection", &c, 0, 3*time.Second, 0)
		c.SetConnected(true)
		c.SetConnected(true)
		time.Sleep(time.Minute)
		wantConn(t, "connected", &c, 0, 3*time.Second, 0)
		c.SetConnected(false)
		time.Sleep(2 * time.Second)
		c.SetConnected(false)
		wantConn(t, "while it is away", &c, 1, 5*time.Second, 0)
		time.Sleep(2 * time.Second)
		c.SetConnected(true)
		time.Sleep(time.Minute)
		wantConn(t, "back", &c, 1, 7*time.Second, 4*time.Second)
		c.SetConnected(false)
		time.Sleep(time.Second)
		c.SetConnected(true)
		wantConn(t, "back once more", &c, 2, 8*time.Second, 5*time.Second)
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
	c.SetError("late")
	testutil.Equal(t, "connected, and blamed late", c.LastError(), "")
	c.SetConnected(false)
	testutil.Equal(t, "lost", c.LastError(), "")
	c.SetError(strings.Repeat("ü", 1000))
	testutil.Equal(t, "the server's own words", len(c.LastError()) <= maxErrorLength+len("…") && utf8.ValidString(c.LastError()), true)
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

// TestConnStateDownSinceSuspension: a server cuts off a client that stands still, and
// the client learns of that when it goes on, and reconnects at once.
func TestConnStateDownSinceSuspension(t *testing.T) {
	const still = 20 * time.Second
	up := func(t *testing.T) *Stats {
		y := new(Stats)
		y.NATS.MarkUsed()
		y.NATS.SetConnected(true)
		time.Sleep(time.Minute)
		return y
	}
	synctest.Test(t, func(t *testing.T) { // the tick comes first
		y := up(t)
		from := time.Now()
		time.Sleep(still)
		y.RecordSuspension(from, time.Now())
		wantConn(t, "while nothing is lost", &y.NATS, 0, 0, 0)
		time.Sleep(time.Second)
		y.NATS.SetConnected(false)
		time.Sleep(time.Second)
		y.NATS.SetConnected(true)
		wantConn(t, "back", &y.NATS, 1, still+2*time.Second, still+2*time.Second)
		y.NATS.SetConnected(false)
		time.Sleep(time.Second)
		y.NATS.SetConnected(true)
		wantConn(t, "a fall of its own", &y.NATS, 2, still+3*time.Second, still+3*time.Second)
	})
	synctest.Test(t, func(t *testing.T) { // the fall does
		y := up(t)
		from := time.Now()
		time.Sleep(still)
		y.NATS.SetConnected(false)
		y.RecordSuspension(from, time.Now())
		time.Sleep(time.Second)
		y.NATS.SetConnected(true)
		wantConn(t, "back", &y.NATS, 1, still+time.Second, still+time.Second)
	})
	synctest.Test(t, func(t *testing.T) { // the connection outlives it
		y := up(t)
		from := time.Now()
		time.Sleep(still)
		y.RecordSuspension(from, time.Now())
		time.Sleep(suspensionGrace)
		y.NATS.SetConnected(false)
		time.Sleep(time.Second)
		y.NATS.SetConnected(true)
		wantConn(t, "back", &y.NATS, 1, time.Second, time.Second)
	})
	synctest.Test(t, func(t *testing.T) { // it was down before
		y := up(t)
		y.NATS.SetConnected(false)
		time.Sleep(time.Second)
		from := time.Now()
		time.Sleep(still)
		y.RecordSuspension(from, time.Now())
		y.NATS.SetConnected(true)
		wantConn(t, "back", &y.NATS, 1, still+time.Second, still+time.Second)
	})
}

// TestConnStateIdleIsNoOutage: publishers come and go, and where there is none left
// there is nothing to be connected to.
func TestConnStateIdleIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c ConnState
		c.SetIdle() // no publisher yet
		c.MarkUsed()
		c.SetConnected(false) // the first one is announced
		time.Sleep(2 * time.Millisecond)
		c.SetConnected(true)
		wantConn(t, "the first publisher", &c, 0, 2*time.Millisecond, 0)
		c.SetConnected(false)
		time.Sleep(time.Second)
		c.SetConnected(true)
		wantConn(t, "lost", &c, 1, time.Second+2*time.Millisecond, time.Second)
		c.SetIdle() // all are gone
		time.Sleep(time.Minute)
		c.SetConnected(false) // another
		time.Sleep(3 * time.Second)
		wantConn(t, "another publisher, not connected yet", &c, 1, 4*time.Second+2*time.Millisecond, time.Second)
		c.SetConnected(true)
		wantConn(t, "another publisher", &c, 1, 4*time.Second+2*time.Millisecond, time.Second)
		c.SetConnected(false) // it ends: its connection goes before its key
		time.Sleep(time.Second)
		c.SetIdle()
		wantConn(t, "ended in order", &c, 2, 5*time.Second+2*time.Millisecond, time.Second)
		c.SetConnected(true) // one that is connected already
		c.SetConnected(false)
		time.Sleep(time.Second)
		c.SetConnected(true)
		wantConn(t, "lost again", &c, 3, 6*time.Second+2*time.Millisecond, 2*time.Second)
	})
}
