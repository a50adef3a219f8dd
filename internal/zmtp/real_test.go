//go:build real

package zmtp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testTimeout ends tests that would otherwise never end if they failed.
const testTimeout = 2 * time.Minute

// python returns a Python with pyzmq, which includes libzmq: that of DYNAMO_VENVS/pyzmq, or
// python3.
func python(t *testing.T) string {
	name := "python3"
	if venvs := os.Getenv("DYNAMO_VENVS"); venvs != "" {
		name = filepath.Join(venvs, "pyzmq", "bin", "python")
	}
	out, err := exec.Command(name, "-c", "import zmq; print(zmq.zmq_version())").CombinedOutput()
	if err == nil {
		t.Logf("libzmq %s", bytes.TrimSpace(out))
		return name
	}
	message := fmt.Sprintf("%s has no pyzmq: python3 -m venv $DYNAMO_VENVS/pyzmq && $DYNAMO_VENVS/pyzmq/bin/pip install pyzmq: %v: %s", name, err, out)
	if os.Getenv("CI") == "true" {
		t.Fatal(message)
	}
	t.Skip(message)
	return ""
}

// publisherProcess is a running testdata/publisher.py.
type publisherProcess struct {
	*exec.Cmd
	endpoint string
	out      *bufio.Scanner
}

func startPublisher(t *testing.T, args ...string) *publisherProcess {
	t.Helper()
	cmd := exec.Command(python(t), append([]string{filepath.Join("testdata", "publisher.py")}, args...)...)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &publisherProcess{Cmd: cmd, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		in.Close()
		p.kill()
	})
	p.endpoint = strings.Replace(p.readLine(t, "listening "), "[::]", "[::1]", 1)
	return p
}

func (p *publisherProcess) readLine(t *testing.T, prefix string) string {
	t.Helper()
	p.out.Scan()
	text, ok := strings.CutPrefix(p.out.Text(), prefix)
	if !ok {
		t.Fatalf("the publisher printed %q, want %q", p.out.Text(), prefix)
	}
	return text
}

func (p *publisherProcess) kill() {
	p.Process.Kill()
	p.Wait()
}

// eventNumber returns the number of a complete event.
func eventNumber(t *testing.T, topic string, frames [][]byte) uint64 {
	if len(frames) != 4 || string(frames[0]) != topic || len(frames[2]) != 8 {
		t.Fatalf("got %s, want an event of %s", formatFrames(frames), topic)
	}
	n := binary.BigEndian.Uint64(frames[2])
	if want := append([]byte{1}, bytes.Repeat([]byte{byte(n % 251)}, int(n%300))...); !bytes.Equal(frames[3], want) {
		t.Fatalf("event %d has %q, want %q", n, frames[3], want)
	}
	return n
}

// With pings between the frames of messages every message must arrive.
func TestLibzmqFloodArrivesComplete(t *testing.T) {
	const events = 300_000
	p := startPublisher(t, "flood", "tcp://127.0.0.1:*", fmt.Sprint(events))
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	next, start := uint64(0), time.Time{}
	s := &Sub{Address: p.endpoint, Topics: []string{"kv_met"}, PingInterval: 50 * time.Millisecond, Timeout: testTimeout}
	err := s.Run(ctx, func(frames [][]byte) {
		if next == 0 {
			start = time.Now()
		}
		if n := eventNumber(t, "kv_metrics", frames); n != next {
			t.Fatalf("got event %d, want %d", n, next)
		}
		if next++; next == events {
			cancel()
		}
	})
	if err != nil || next != events {
		t.Fatalf("got %d events and error %v, want %d and none", next, err, events)
	}
	t.Logf("%.0f events a second", events/time.Since(start).Seconds())
	if got, want := p.readLine(t, "subscription "), fmt.Sprintf("01%x", "kv_met"); got != want {
		t.Errorf("the publisher received %s, want %s", got, want)
	}
}

// libzmq would have closed the connection if it had missed the reply to one of its pings.
func TestLibzmqHeartbeatsAreAnswered(t *testing.T) {
	p := startPublisher(t, "quiet", "tcp://[::]:*")
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	connected, got := 0, 0
	s := &Sub{Address: p.endpoint, Topics: []string{""}, PingInterval: 30 * time.Millisecond, OnConnected: func() { connected++ }}
	err := s.Run(ctx, func(frames [][]byte) {
		eventNumber(t, "kv_metrics", frames)
		got++
		cancel()
	})
	if err != nil || connected != 1 || got != 1 {
		t.Errorf("connected %d times, got %d events and error %v; want 1, 1 and none", connected, got, err)
	}
}

// reconnectStep waits for an event or a status, and then calls a function.
type reconnectStep struct {
	want string // "event", or part of the status
	then func()
}

func runSteps(t *testing.T, s *Sub, steps []reconnectStep) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	received := func(what string) {
		if len(steps) > 0 && strings.Contains(what, steps[0].want) {
			if steps[0].then != nil {
				steps[0].then()
			}
			steps = steps[1:]
		}
		if len(steps) == 0 {
			cancel()
		}
	}
	err := s.RunReconnecting(ctx,
		func(frames [][]byte) { eventNumber(t, "kv_metrics", frames); received("event") },
		func(err error) { t.Log(err); received(fmt.Sprint(err)) })
	if err != nil || len(steps) > 0 {
		t.Errorf("got error %v with %d steps left, want none", err, len(steps))
	}
}

func TestLibzmqPublisherKilledAndRestarted(t *testing.T) {
	p := startPublisher(t, "tick", "tcp://127.0.0.1:*")
	runSteps(t, &Sub{Address: p.endpoint, Topics: []string{"kv_metrics"}}, []reconnectStep{
		{"<nil>", nil},
		{"event", p.kill},
		{"closed by the peer", nil},
		{"connection refused", func() { startPublisher(t, "tick", p.endpoint) }},
		{"<nil>", nil},
		{"event", nil},
	})
}

func TestLibzmqPublisherStoppedAndContinued(t *testing.T) {
	p := startPublisher(t, "tick", "tcp://127.0.0.1:*")
	signal := func(s os.Signal) func() {
		return func() {
			if err := p.Process.Signal(s); err != nil {
				t.Error(err)
			}
		}
	}
	s := &Sub{
		Address: p.endpoint, Topics: []string{"kv_metrics"},
		PingInterval: 200 * time.Millisecond, Timeout: 300 * time.Millisecond, HandshakeTimeout: time.Second,
	}
	runSteps(t, s, []reconnectStep{
		{"event", signal(syscall.SIGSTOP)},
		{"nothing received for 300ms after a ping", nil},
		{"handshake: not finished in 1s", signal(syscall.SIGCONT)},
		{"<nil>", nil},
		{"event", nil},
	})
}

func TestLibzmqBroker(t *testing.T) {
	p := startPublisher(t, "broker", "tcp://127.0.0.1:*")
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	next := map[string]uint64{}
	s := &Sub{Address: p.endpoint, Topics: []string{"namespace.a.kv_metrics", "namespace.b.", "namespace.c."}}
	err := s.Run(ctx, func(frames [][]byte) {
		topic := string(frames[0])
		n := eventNumber(t, topic, frames)
		if want, known := next[topic]; known && n != want {
			t.Errorf("%s: got event %d, want %d", topic, n, want)
		}
		next[topic] = n + 1
		if n >= 100 && len(next) == 2 {
			cancel()
		}
	})
	if err != nil || len(next) != 2 {
		t.Errorf("got events of %v and error %v, want two topics and none", next, err)
	}
}

func TestLibzmqOtherSocketsAreRejected(t *testing.T) {
	for kind, want := range map[string]string{
		"pusher": `the peer's socket is a "PUSH"; want PUB or XPUB`,
		// libzmq closes the connection before it sends its mechanism.
		"curve": "as libzmq does if it requires another socket type or security mechanism",
	} {
		p := startPublisher(t, kind, "tcp://127.0.0.1:*")
		s := &Sub{Address: p.endpoint, Topics: []string{""}}
		err := s.Run(t.Context(), func([][]byte) {})
		if got := fmt.Sprint(err); !strings.Contains(got, want) {
			t.Errorf("%s: got error %q, want %q", kind, got, want)
		}
	}
}
