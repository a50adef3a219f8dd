package zmtp

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// listen returns a publisher's address, and a function that waits for the next subscriber.
func listen(t testing.TB, address string) (endpoint string, accept func() *fakePublisher) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { l.Close() })
	return "tcp://" + l.Addr().String(), func() *fakePublisher {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			conn, _ = net.Pipe()
		}
		return &fakePublisher{t, conn}
	}
}

func TestSubRunOverTCP(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", defaultMaxMessage/16)
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(host, func(t *testing.T) {
			endpoint, accept := listen(t, host)
			go func() {
				p := accept()
				defer p.conn.Close()
				p.acceptSubscription(1, "a", "b")
				p.send(message("a", "1") + message(large) + message("b", ""))
				p.send("\x01\x01a")
			}()
			var got []string
			s := &Sub{Address: endpoint, Topics: []string{"a", "b"}}
			err := s.Run(t.Context(), func(frames [][]byte) { got = append(got, formatFrames(frames)) })
			if want := []string{`["a"]["1"]`, fmt.Sprintf("[%q]", large), `["b"][""]`}; strings.Join(got, "") != strings.Join(want, "") {
				t.Errorf("delivered %.99q, want %.99q", got, want)
			}
			if want := "subscription at " + endpoint + ": closed by the peer within a message or command: unexpected EOF"; fmt.Sprint(err) != want {
				t.Errorf("got error %q, want %q", err, want)
			}
		})
	}
}

// Errors do not contain the local port: with it, the same error would have another text each time.
func TestSubErrorsNameOnlyThePublisher(t *testing.T) {
	endpoint, accept := listen(t, "127.0.0.1:0")
	go func() {
		p := accept()
		p.acceptSubscription(1, "a")
		p.conn.(*net.TCPConn).SetLinger(0) // close with a reset
		p.conn.Close()
	}()
	s := &Sub{Address: endpoint, Topics: []string{"a"}}
	err := s.Run(t.Context(), func([][]byte) {})
	if want := "subscription at " + endpoint + ": read: connection reset by peer"; fmt.Sprint(err) != want {
		t.Errorf("got error %q, want %q", err, want)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Address = "tcp://" + l.Addr().String()
	l.Close()
	err = s.Run(t.Context(), func([][]byte) {})
	if want := "subscription at " + s.Address + ": dial: connect: connection refused"; fmt.Sprint(err) != want {
		t.Errorf("got error %q, want %q", err, want)
	}
}

// Run returns when ctx ends, in every state, and leaves no goroutine: synctest fails a test
// whose goroutines do not end.
func TestSubRunEndsWithContext(t *testing.T) {
	for name, script := range map[string]func(p *fakePublisher){
		"in the greeting":           func(p *fakePublisher) { p.readAll() },
		"waiting for READY":         func(p *fakePublisher) { p.expect(greeting); p.send(greetingOf(3, 1)); p.readAll() },
		"waiting for a first reply": func(p *fakePublisher) { p.shakeHands(1); p.readAll() },
		"idle":                      func(p *fakePublisher) { p.acceptSubscription(0, "a"); p.readAll() },
		"within a frame":            func(p *fakePublisher) { p.acceptSubscription(0, "a"); p.send("\x00\x05a"); p.readAll() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				o := runAgainstUntil(t, ctx, Sub{}, script)
				if o.err != nil || o.took != time.Second {
					t.Errorf("ended after %v with %v, want 1s and no error", o.took, o.err)
				}
			})
		})
	}
}

func TestSubRunCancelledOverTCP(t *testing.T) {
	endpoint, accept := listen(t, "127.0.0.1:0")
	received := make(chan string)
	go func() {
		p := accept()
		p.acceptSubscription(1, "a")
		received <- p.readAll()
	}()
	ctx, cancel := context.WithCancel(t.Context())
	s := &Sub{Address: endpoint, Topics: []string{"a"}, OnConnected: cancel}
	if err := s.Run(ctx, func([][]byte) {}); err != nil {
		t.Errorf("got error %v, want none", err)
	}
	if got := <-received; got != "" {
		t.Errorf("the publisher received %q before the end, want nothing", got)
	}
}

func TestRunReconnectingOverTCP(t *testing.T) {
	endpoint, accept := listen(t, "127.0.0.1:0")
	go func() {
		for n := range 3 {
			p := accept()
			p.acceptSubscription(byte(n%2), "a")
			p.send(message("a", fmt.Sprint(n)))
			if n == 2 {
				p.readAll()
			}
			p.conn.Close()
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	var received []string
	s := &Sub{Address: endpoint, Topics: []string{"a"}}
	err := s.RunReconnecting(ctx, func(frames [][]byte) {
		received = append(received, formatFrames(frames))
		if len(received) == 8 {
			cancel()
		}
	}, func(err error) { received = append(received, fmt.Sprint(err)) })
	if err != nil {
		t.Errorf("got error %v, want none", err)
	}
	// "<nil>" is the status when the subscription is set.
	wantEvents(t, received, "<nil>", `["a"]["0"]`, "closed by the peer: EOF", "<nil>", `["a"]["1"]`, "closed by the peer: EOF", "<nil>", `["a"]["2"]`)
}
