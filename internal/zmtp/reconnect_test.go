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

// fakeNetwork is a network with one publisher. Each connection runs the next script. If the
// script is nil, or after the last one, dialling is refused.
type fakeNetwork struct {
	t          *testing.T
	scripts    []func(p *fakePublisher)
	dialled    []time.Duration
	start      time.Time
	publishers sync.WaitGroup
}

func (s *fakeNetwork) dial(context.Context, string) (net.Conn, error) {
	n := len(s.dialled)
	s.dialled = append(s.dialled, time.Since(s.start))
	if n >= len(s.scripts) || s.scripts[n] == nil {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	ours, theirs := pipe()
	s.publishers.Go(func() {
		defer theirs.Close()
		s.scripts[n](&fakePublisher{s.t, theirs})
	})
	return ours, nil
}

// runReconnecting runs RunReconnecting for a while, and returns the errors and messages that
// status and deliver receive.
func (s *fakeNetwork) runReconnecting(until time.Duration) (received []string) {
	ctx, cancel := context.WithTimeout(s.t.Context(), until)
	defer cancel()
	defer s.publishers.Wait()
	s.start = time.Now()
	sub := &Sub{Address: testAddress, Topics: []string{"a"}, Dial: s.dial}
	err := sub.RunReconnecting(ctx,
		func(frames [][]byte) { received = append(received, formatFrames(frames)) },
		func(err error) { received = append(received, fmt.Sprint(err)) })
	if err != nil {
		s.t.Errorf("got error %v, want none: ctx has ended", err)
	}
	return received
}

func wantEvents(t *testing.T, got []string, want ...string) {
	t.Helper()
	same := slices.EqualFunc(got, want, func(g, w string) bool { return strings.HasSuffix(g, w) })
	if !same {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRunReconnectingReconnects(t *testing.T) {
	publisher := func(event string, lifetime time.Duration) func(p *fakePublisher) {
		return func(p *fakePublisher) {
			p.acceptSubscription(0, "a")
			p.send(message("a", event))
			time.Sleep(lifetime)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := &fakeNetwork{t: t, scripts: []func(p *fakePublisher){
			nil, nil, publisher("first", time.Minute), nil, publisher("second", time.Minute),
		}}
		wantEvents(t, s.runReconnecting(2*time.Minute),
			"dial: connection refused", "<nil>", `["a"]["first"]`, "closed by the peer: EOF",
			"dial: connection refused", "<nil>", `["a"]["second"]`)
	})
}

func TestRunReconnectingReportsStatusChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		garbage := func(p *fakePublisher) { p.expect(greeting); p.send("HTTP/1.1 400") }
		s := &fakeNetwork{t: t, scripts: []func(p *fakePublisher){garbage, garbage, garbage, nil, nil, garbage}}
		wantEvents(t, s.runReconnecting(time.Minute),
			"greeting begins with 0x48: not ZMTP 2.0 or later", "dial: connection refused",
			"greeting begins with 0x48: not ZMTP 2.0 or later", "dial: connection refused")
	})
}

func TestRunReconnectingBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeNetwork{t: t}
		s.runReconnecting(time.Hour)
		for i := range s.dialled[1:] {
			full := min(100*time.Millisecond<<min(i, 10), 5*time.Second)
			if d := s.dialled[i+1] - s.dialled[i]; d > full || d <= full*4/5 {
				t.Errorf("delay %d is %v, want between %v and %v", i, d, full*4/5, full)
			}
		}
		if n := len(s.dialled); n < 700 || n > 1000 {
			t.Errorf("dialled %d times in an hour, want about every 5 s", n)
		}
	})
}

// A publisher that accepts connections and fails immediately must not be dialled ten times
// a second.
func TestRunReconnectingBacksOffAfterShortConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flood := func(p *fakePublisher) { p.acceptSubscription(0, "a"); p.send("\x01\x00\x01\x00\xff") }
		s := &fakeNetwork{t: t, scripts: slices.Repeat([]func(p *fakePublisher){flood}, 1000)}
		s.runReconnecting(time.Hour)
		if n := len(s.dialled); n < 700 || n > 1000 {
			t.Errorf("dialled %d times in an hour, want about every 5 s", n)
		}
	})
}

func TestRunReconnectingResetsBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := func(p *fakePublisher) { p.acceptSubscription(0, "a"); time.Sleep(time.Minute) }
		s := &fakeNetwork{t: t, scripts: append(make([]func(p *fakePublisher), 20), long)}
		s.runReconnecting(10 * time.Minute)
		lost := s.dialled[20] + time.Minute
		if d := s.dialled[21] - lost; d > 100*time.Millisecond {
			t.Errorf("dialled %v after the loss, want 100ms at most", d)
		}
	})
}

func TestRunReconnectingWithoutStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s := &Sub{Address: testAddress, Topics: []string{"a"}}
		s.Dial = func(context.Context, string) (net.Conn, error) { return nil, errors.New("no") }
		if err := s.RunReconnecting(ctx, func([][]byte) {}, nil); err != nil {
			t.Error(err)
		}
	})
}

// BeforeDial delays each attempt. Release is called once the subscription is set or the
// attempt has failed, and OnFailure for each failed attempt.
func TestRunReconnectingCallsBeforeDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		oneMinute := func(p *fakePublisher) { p.acceptSubscription(0, "a"); time.Sleep(time.Minute) }
		s := &fakeNetwork{t: t, scripts: []func(p *fakePublisher){nil, oneMinute, nil}}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		defer s.publishers.Wait()
		s.start = time.Now()
		var dials, released, failures int
		sub := &Sub{Address: testAddress, Topics: []string{"a"}, Dial: s.dial}
		sub.BeforeDial = func(context.Context) func() {
			dials++
			time.Sleep(10 * time.Second) // as if other attempts were first
			return func() { released++ }
		}
		sub.OnFailure = func(error) { failures++ }
		sub.OnConnected = func() {
			if dials != 2 || released != 2 || failures != 1 {
				t.Errorf("once connected there were %d calls of BeforeDial, %d of release, and %d failures; want 2, 2 and 1", dials, released, failures)
			}
		}
		if err := sub.RunReconnecting(ctx, func([][]byte) {}, nil); err != nil {
			t.Error(err)
		}
		if len(s.dialled) == 0 || s.dialled[0] != 10*time.Second {
			t.Errorf("dialled after %v, want the first after 10s", s.dialled)
		}
		if dials != released || failures < 2 {
			t.Errorf("%d calls of BeforeDial, %d of release, and %d failures", dials, released, failures)
		}
	})
}
