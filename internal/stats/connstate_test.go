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
	var l ConnState
	testutil.Equal(t, "up before use", l.Up(), true)
	l.MarkUsed()
	testutil.Equal(t, "used", l.Used(), true)
	testutil.Equal(t, "up before it is connected", l.Up(), false)
	l.SetConnected(true)
	testutil.Equal(t, "up", l.Up(), true)
	l.SetConnected(false)
	testutil.Equal(t, "up when it broke", l.Up(), false)
}

// linkAt checks what is counted of a connection.
func wantConn(t *testing.T, what string, l *ConnState, disconnects uint64, down, lost time.Duration) {
	t.Helper()
	testutil.Equal(t, what+": falls", l.Disconnects(), disconnects)
	testutil.Equal(t, what+": down", l.Downtime(), down)
	testutil.Equal(t, what+": lost", l.Outage(), lost)
}

func TestConnStateCountsDisconnectsAndDowntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ConnState
		time.Sleep(time.Hour)
		wantConn(t, "not in use", &l, 0, 0, 0)
		testutil.Equal(t, "used for, before it is", l.UsedFor(), 0)
		l.MarkUsed()
		time.Sleep(3 * time.Second)
		l.MarkUsed() // again: that changes nothing
		wantConn(t, "before the first connection", &l, 0, 3*time.Second, 0)
		l.SetConnected(true)
		l.SetConnected(true)
		time.Sleep(time.Minute)
		wantConn(t, "connected", &l, 0, 3*time.Second, 0)
		l.SetConnected(false)
		time.Sleep(2 * time.Second)
		l.SetConnected(false)
		wantConn(t, "while it is away", &l, 1, 5*time.Second, 0)
		time.Sleep(2 * time.Second)
		l.SetConnected(true)
		time.Sleep(time.Minute)
		wantConn(t, "back", &l, 1, 7*time.Second, 4*time.Second)
		l.SetConnected(false)
		time.Sleep(time.Second)
		l.SetConnected(true)
		wantConn(t, "back once more", &l, 2, 8*time.Second, 5*time.Second)
		testutil.Equal(t, "used for", l.UsedFor(), 2*time.Minute+8*time.Second)
	})
}

func TestConnStateLastErrorWhileDown(t *testing.T) {
	var l ConnState
	l.MarkUsed()
	l.SetError("connection refused")
	testutil.Equal(t, "before the first connection", l.LastError(), "connection refused")
	l.SetConnected(true)
	testutil.Equal(t, "connected", l.LastError(), "")
	l.SetError("late")
	testutil.Equal(t, "connected, and blamed late", l.LastError(), "")
	l.SetConnected(false)
	testutil.Equal(t, "lost", l.LastError(), "")
	l.SetError(strings.Repeat("ü", 1000))
	testutil.Equal(t, "the server's own words", len(l.LastError()) <= maxErrorLength+len("…") && utf8.ValidString(l.LastError()), true)
}

func TestConnStateUpBeforeFirstUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ConnState
		l.SetConnected(true)
		l.MarkUsed()
		time.Sleep(time.Second)
		wantConn(t, "up", &l, 0, 0, 0)
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
		var l ConnState
		l.SetIdle() // no publisher yet
		l.MarkUsed()
		l.SetConnected(false) // the first one is announced
		time.Sleep(2 * time.Millisecond)
		l.SetConnected(true)
		wantConn(t, "the first publisher", &l, 0, 2*time.Millisecond, 0)
		l.SetConnected(false)
		time.Sleep(time.Second)
		l.SetConnected(true)
		wantConn(t, "lost", &l, 1, time.Second+2*time.Millisecond, time.Second)
		l.SetIdle() // all are gone
		time.Sleep(time.Minute)
		l.SetConnected(false) // another
		time.Sleep(3 * time.Second)
		wantConn(t, "another publisher, not connected yet", &l, 1, 4*time.Second+2*time.Millisecond, time.Second)
		l.SetConnected(true)
		wantConn(t, "another publisher", &l, 1, 4*time.Second+2*time.Millisecond, time.Second)
		l.SetConnected(false) // it ends: its connection goes before its key
		time.Sleep(time.Second)
		l.SetIdle()
		wantConn(t, "ended in order", &l, 2, 5*time.Second+2*time.Millisecond, time.Second)
		l.SetConnected(true) // one that is connected already
		l.SetConnected(false)
		time.Sleep(time.Second)
		l.SetConnected(true)
		wantConn(t, "lost again", &l, 3, 6*time.Second+2*time.Millisecond, 2*time.Second)
	})
}
