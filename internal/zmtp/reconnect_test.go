package zmtp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// stage is a network with one publisher, which plays the next script each time it is
// dialled; nil is that nobody is there. After the last one, nobody is.
type stage struct {
	t       *testing.T
	scripts []func(p *player)
	dialled []time.Duration
	start   time.Time
	players sync.WaitGroup
}

func (s *stage) dial(context.Context, string) (net.Conn, error) {
	n := len(s.dialled)
	s.dialled = append(s.dialled, time.Since(s.start))
	if n >= len(s.scripts) || s.scripts[n] == nil {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	ours, theirs := pipe()
	s.players.Go(func() {
		defer theirs.Close()
		s.scripts[n](&player{s.t, theirs})
	})
	return ours, nil
}

// keep runs Keep for a while, and returns what status and deliver hear.
func (s *stage) keep(until time.Duration) (heard []string) {
	ctx, cancel := context.WithTimeout(s.t.Context(), until)
	defer cancel()
	defer s.players.Wait()
	s.start = time.Now()
	sub := &Sub{Address: testAddress, Topics: []string{"a"}, Dial: s.dial}
	err := sub.Keep(ctx,
		func(frames [][]byte) { heard = append(heard, shown(frames)) },
		func(err error) { heard = append(heard, fmt.Sprint(err)) })
	if err != nil {
		s.t.Errorf("got error %v, want none: ctx has ended", err)
	}
	return heard
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	same := slices.EqualFunc(got, want, func(g, w string) bool { return strings.HasSuffix(g, w) })
	if !same {
		t.Errorf("heard\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestKeepComesBack(t *testing.T) {
	publisher := func(says string, lives time.Duration) func(p *player) {
		return func(p *player) {
			p.accept(0, "a")
			p.say(message("a", says))
			time.Sleep(lives)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t, scripts: []func(p *player){
			nil, nil, publisher("first", time.Minute), nil, publisher("second", time.Minute),
		}}
		expect(t, s.keep(2*time.Minute),
			"dial: connection refused", "<nil>", `["a"]["first"]`, "closed by the peer: EOF",
			"dial: connection refused", "<nil>", `["a"]["second"]`)
	})
}

func TestTroubleIsToldWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		garbage := func(p *player) { p.hear(greeting); p.say("HTTP/1.1 400") }
		s := &stage{t: t, scripts: []func(p *player){garbage, garbage, garbage, nil, nil, garbage}}
		expect(t, s.keep(time.Minute),
			"greeting begins with 0x48: this is no ZMTP, or one before 2.0", "dial: connection refused",
			"greeting begins with 0x48: this is no ZMTP, or one before 2.0", "dial: connection refused")
	})
}

func TestPausesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t}
		s.keep(time.Hour)
		for i := range s.dialled[1:] {
			full := min(100*time.Millisecond<<min(i, 10), 5*time.Second)
			if d := s.dialled[i+1] - s.dialled[i]; d > full || d <= full*4/5 {
				t.Errorf("pause %d is %v, want between %v and %v", i, d, full*4/5, full)
			}
		}
		if n := len(s.dialled); n < 700 || n > 1000 {
			t.Errorf("dialled %d times in an hour, want about every 5 s", n)
		}
	})
}

// A publisher that accepts and fails at once must not be dialled ten times a second.
func TestPausesGrowWhileConnectionsAreShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flood := func(p *player) { p.accept(0, "a"); p.say("\x01\x00\x01\x00\xff") }
		s := &stage{t: t, scripts: slices.Repeat([]func(p *player){flood}, 1000)}
		s.keep(time.Hour)
		if n := len(s.dialled); n < 700 || n > 1000 {
			t.Errorf("dialled %d times in an hour, want about every 5 s", n)
		}
	})
}

func TestPausesAreShortAgainAfterALongConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := func(p *player) { p.accept(0, "a"); time.Sleep(time.Minute) }
		s := &stage{t: t, scripts: append(make([]func(p *player), 20), long)}
		s.keep(10 * time.Minute)
		lost := s.dialled[20] + time.Minute
		if d := s.dialled[21] - lost; d > 100*time.Millisecond {
			t.Errorf("dialled %v after the loss, want 100ms at most", d)
		}
	})
}

func TestKeepNeedsNoStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s := &Sub{Address: testAddress, Topics: []string{"a"}}
		s.Dial = func(context.Context, string) (net.Conn, error) { return nil, errors.New("no") }
		if err := s.Keep(ctx, func([][]byte) {}, nil); err != nil {
			t.Error(err)
		}
	})
}

// TestAnAttemptWaitsForItsTurn, which is over once the subscription is set, or the attempt
// has failed; and each that fails is told.
func TestAnAttemptWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lives := func(p *player) { p.accept(0, "a"); time.Sleep(time.Minute) }
		s := &stage{t: t, scripts: []func(p *player){nil, lives, nil}}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		defer s.players.Wait()
		s.start = time.Now()
		var turns, over, failures int
		sub := &Sub{Address: testAddress, Topics: []string{"a"}, Dial: s.dial}
		sub.Turn = func(context.Context) func() {
			turns++
			time.Sleep(10 * time.Second) // others are before us
			return func() { over++ }
		}
		sub.Failed = func(error) { failures++ }
		sub.Connected = func() {
			if turns != 2 || over != 2 || failures != 1 {
				t.Errorf("once it is set there were %d turns, of which %d are over, and %d failures; want 2, 2 and 1", turns, over, failures)
			}
		}
		if err := sub.Keep(ctx, func([][]byte) {}, nil); err != nil {
			t.Error(err)
		}
		if len(s.dialled) == 0 || s.dialled[0] != 10*time.Second {
			t.Errorf("dialled after %v, want 10s at first", s.dialled)
		}
		if turns != over || failures < 2 {
			t.Errorf("%d turns, of which %d are over, and %d failures", turns, over, failures)
		}
	})
}
