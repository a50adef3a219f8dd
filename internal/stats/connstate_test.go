package stats

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"dynamo-metrics/internal/testutil"
)

func TestALinkThatIsNotUsedIsNotMissed(t *testing.T) {
	var l Link
	testutil.Equal(t, "up before use", l.Up(), true)
	l.Use()
	testutil.Equal(t, "used", l.Used(), true)
	testutil.Equal(t, "up before it is connected", l.Up(), false)
	l.Set(true)
	testutil.Equal(t, "up", l.Up(), true)
	l.Set(false)
	testutil.Equal(t, "up when it broke", l.Up(), false)
}

// linkAt checks what is counted of a connection.
func linkAt(t *testing.T, what string, l *Link, falls uint64, down, lost time.Duration) {
	t.Helper()
	testutil.Equal(t, what+": falls", l.Falls(), falls)
	testutil.Equal(t, what+": down", l.Down(), down)
	testutil.Equal(t, what+": lost", l.Lost(), lost)
}

func TestLinkCountsItsFallsAndHowLongItWasDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Link
		time.Sleep(time.Hour)
		linkAt(t, "not in use", &l, 0, 0, 0)
		testutil.Equal(t, "used for, before it is", l.UsedFor(), 0)
		l.Use()
		time.Sleep(3 * time.Second)
		l.Use() // again: that changes nothing
		linkAt(t, "before the first connection", &l, 0, 3*time.Second, 0)
		l.Set(true)
		l.Set(true)
		time.Sleep(time.Minute)
		linkAt(t, "connected", &l, 0, 3*time.Second, 0)
		l.Set(false)
		time.Sleep(2 * time.Second)
		l.Set(false)
		linkAt(t, "while it is away", &l, 1, 5*time.Second, 0)
		time.Sleep(2 * time.Second)
		l.Set(true)
		time.Sleep(time.Minute)
		linkAt(t, "back", &l, 1, 7*time.Second, 4*time.Second)
		l.Set(false)
		time.Sleep(time.Second)
		l.Set(true)
		linkAt(t, "back once more", &l, 2, 8*time.Second, 5*time.Second)
		testutil.Equal(t, "used for", l.UsedFor(), 2*time.Minute+8*time.Second)
	})
}

func TestALinkSaysWhyItIsDownWhileItIs(t *testing.T) {
	var l Link
	l.Use()
	l.Blame("connection refused")
	testutil.Equal(t, "before the first connection", l.Why(), "connection refused")
	l.Set(true)
	testutil.Equal(t, "connected", l.Why(), "")
	l.Blame("late")
	testutil.Equal(t, "connected, and blamed late", l.Why(), "")
	l.Set(false)
	testutil.Equal(t, "lost", l.Why(), "")
	l.Blame(strings.Repeat("ü", 1000))
	testutil.Equal(t, "the server's own words", len(l.Why()) <= longestWhy+len("…") && utf8.ValidString(l.Why()), true)
}

func TestLinkThatWasUpBeforeItWasUsedIsNotDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Link
		l.Set(true)
		l.Use()
		time.Sleep(time.Second)
		linkAt(t, "up", &l, 0, 0, 0)
	})
}

// TestLinkIsDownSinceTheProcessStoodStill: a server cuts off a client that stands still, and
// the client learns of that when it goes on, and reconnects at once.
func TestLinkIsDownSinceTheProcessStoodStill(t *testing.T) {
	const still = 20 * time.Second
	up := func(t *testing.T) *Tally {
		y := new(Tally)
		y.NATS.Use()
		y.NATS.Set(true)
		time.Sleep(time.Minute)
		return y
	}
	synctest.Test(t, func(t *testing.T) { // the tick comes first
		y := up(t)
		from := time.Now()
		time.Sleep(still)
		y.Stood(from, time.Now())
		linkAt(t, "while nothing is lost", &y.NATS, 0, 0, 0)
		time.Sleep(time.Second)
		y.NATS.Set(false)
		time.Sleep(time.Second)
		y.NATS.Set(true)
		linkAt(t, "back", &y.NATS, 1, still+2*time.Second, still+2*time.Second)
		y.NATS.Set(false)
		time.Sleep(time.Second)
		y.NATS.Set(true)
		linkAt(t, "a fall of its own", &y.NATS, 2, still+3*time.Second, still+3*time.Second)
	})
	synctest.Test(t, func(t *testing.T) { // the fall does
		y := up(t)
		from := time.Now()
		time.Sleep(still)
		y.NATS.Set(false)
		y.Stood(from, time.Now())
		time.Sleep(time.Second)
		y.NATS.Set(true)
		linkAt(t, "back", &y.NATS, 1, still+time.Second, still+time.Second)
	})
	synctest.Test(t, func(t *testing.T) { // the connection outlives it
		y := up(t)
		from := time.Now()
		time.Sleep(still)
		y.Stood(from, time.Now())
		time.Sleep(suspect)
		y.NATS.Set(false)
		time.Sleep(time.Second)
		y.NATS.Set(true)
		linkAt(t, "back", &y.NATS, 1, time.Second, time.Second)
	})
	synctest.Test(t, func(t *testing.T) { // it was down before
		y := up(t)
		y.NATS.Set(false)
		time.Sleep(time.Second)
		from := time.Now()
		time.Sleep(still)
		y.Stood(from, time.Now())
		y.NATS.Set(true)
		linkAt(t, "back", &y.NATS, 1, still+time.Second, still+time.Second)
	})
}

// TestWhatComesAfterNothingWasNotLost: publishers come and go, and where there is none left
// there is nothing to be connected to.
func TestWhatComesAfterNothingWasNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Link
		l.Rest() // no publisher yet
		l.Use()
		l.Set(false) // the first one is announced
		time.Sleep(2 * time.Millisecond)
		l.Set(true)
		linkAt(t, "the first publisher", &l, 0, 2*time.Millisecond, 0)
		l.Set(false)
		time.Sleep(time.Second)
		l.Set(true)
		linkAt(t, "lost", &l, 1, time.Second+2*time.Millisecond, time.Second)
		l.Rest() // all are gone
		time.Sleep(time.Minute)
		l.Set(false) // another
		time.Sleep(3 * time.Second)
		linkAt(t, "another publisher, not connected yet", &l, 1, 4*time.Second+2*time.Millisecond, time.Second)
		l.Set(true)
		linkAt(t, "another publisher", &l, 1, 4*time.Second+2*time.Millisecond, time.Second)
		l.Set(false) // it ends: its connection goes before its key
		time.Sleep(time.Second)
		l.Rest()
		linkAt(t, "ended in order", &l, 2, 5*time.Second+2*time.Millisecond, time.Second)
		l.Set(true) // one that is connected already
		l.Set(false)
		time.Sleep(time.Second)
		l.Set(true)
		linkAt(t, "lost again", &l, 3, 6*time.Second+2*time.Millisecond, 2*time.Second)
	})
}
