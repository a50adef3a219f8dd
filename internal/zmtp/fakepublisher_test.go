package zmtp

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	testAddress = "tcp://192.0.2.1:5555"

	readyPUB  = "\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB"
	readyXPUB = "\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04XPUB"
	subPing   = "\x04\x07\x04PING\x00\x00"
	emptyPong = "\x04\x05\x04PONG"
)

// greetingOf returns a publisher's greeting. Its padding is not zero, like libzmq's.
func greetingOf(major, minor byte) string {
	return "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f" + string([]byte{major, minor}) + nullMechanism + strings.Repeat("\x00", 32)
}

func message(frames ...string) string {
	var b []byte
	for i, frame := range frames {
		flags := byte(flagMore)
		if i == len(frames)-1 {
			flags = 0
		}
		b = appendFrame(b, flags, frame)
	}
	return string(b)
}

func command(name, data string) string {
	return string(appendFrame(nil, flagCommand, string(rune(len(name))), name, data))
}

// fakePublisher is the publisher's end of a connection.
type fakePublisher struct {
	t    testing.TB
	conn net.Conn
}

// send ignores errors, because the subscriber may have closed the connection.
func (p *fakePublisher) send(s string) { io.WriteString(p.conn, s) }

func (p *fakePublisher) expect(want string) {
	p.t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(p.conn, got)
	if string(got[:n]) != want {
		p.t.Errorf("the subscriber sent\n%q, want\n%q (%v)", got[:n], want, err)
	}
}

// readAll returns what the subscriber sends until it closes the connection.
func (p *fakePublisher) readAll() string {
	b, _ := io.ReadAll(p.conn)
	return string(b)
}

func (p *fakePublisher) shakeHands(minor byte) {
	p.t.Helper()
	p.expect(greeting)
	p.send(greetingOf(3, minor))
	p.expect("\x04\x19" + readyCommand)
	p.send(readyPUB)
}

// acceptSubscription does the handshake and expects the subscription to topics.
func (p *fakePublisher) acceptSubscription(minor byte, topics ...string) {
	p.t.Helper()
	p.shakeHands(minor)
	for _, topic := range topics {
		if minor > 0 {
			p.expect(command("SUBSCRIBE", topic))
		} else {
			p.expect(message("\x01" + topic))
		}
	}
	if minor > 0 {
		p.expect(subPing)
		p.send(emptyPong)
	}
}

// runResult is the result of a Run.
type runResult struct {
	messages  []string
	connected int
	err       error
	took      time.Duration
}

func (o runResult) wantError(t *testing.T, want string) {
	t.Helper()
	if got := fmt.Sprint(o.err); !strings.Contains(got, want) || !strings.Contains(got, testAddress) {
		t.Errorf("got error %q, want one at %s that contains %q", got, testAddress, want)
	}
}

func (o runResult) wantMessages(t *testing.T, want ...string) {
	t.Helper()
	if got := strings.Join(o.messages, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("delivered\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// pipeConn is one end of a net.Pipe. It ignores errors of the deadline methods: unlike TCP,
// a net.Pipe rejects deadlines when the other end is closed.
type pipeConn struct{ net.Conn }

func pipe() (ours, theirs net.Conn) {
	ours, theirs = net.Pipe()
	return pipeConn{ours}, theirs
}

func (c pipeConn) SetReadDeadline(at time.Time) error {
	c.Conn.SetReadDeadline(at)
	return nil
}

func (c pipeConn) SetWriteDeadline(at time.Time) error {
	c.Conn.SetWriteDeadline(at)
	return nil
}

func (c pipeConn) SetDeadline(at time.Time) error {
	c.Conn.SetDeadline(at)
	return nil
}

// runAgainst runs s against a publisher that runs script and then closes the connection.
func runAgainst(t *testing.T, s Sub, script func(p *fakePublisher)) runResult {
	t.Helper()
	return runAgainstUntil(t, t.Context(), s, script)
}

func runAgainstUntil(t *testing.T, ctx context.Context, s Sub, script func(p *fakePublisher)) runResult {
	t.Helper()
	ours, theirs := pipe()
	s.Dial = func(context.Context, string) (net.Conn, error) { return ours, nil }
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		script(&fakePublisher{t, theirs})
	}()
	o := runSub(ctx, s)
	<-done
	return o
}

func runSub(ctx context.Context, s Sub) (o runResult) {
	s.Address = testAddress
	if s.Topics == nil {
		s.Topics = []string{"a"}
	}
	s.OnConnected = func() { o.connected++ }
	start := time.Now()
	o.err = s.Run(ctx, func(frames [][]byte) { o.messages = append(o.messages, formatFrames(frames)) })
	o.took = time.Since(start)
	return o
}

func formatFrames(frames [][]byte) string {
	var b strings.Builder
	for _, frame := range frames {
		fmt.Fprintf(&b, "[%q]", frame)
	}
	return b.String()
}

// replayConn is a connection from which everything that the peer ever sends can be read at
// once. If step is not zero, each Read returns at most step bytes.
type replayConn struct {
	io.Reader
	sent bytes.Buffer
	step int
}

func (c *replayConn) Read(b []byte) (int, error) {
	if c.step > 0 {
		b = b[:min(len(b), c.step)]
	}
	return c.Reader.Read(b)
}
func (c *replayConn) Write(b []byte) (int, error)      { return c.sent.Write(b) }
func (c *replayConn) Close() error                     { return nil }
func (c *replayConn) LocalAddr() net.Addr              { return nil }
func (c *replayConn) RemoteAddr() net.Addr             { return nil }
func (c *replayConn) SetDeadline(time.Time) error      { return nil }
func (c *replayConn) SetReadDeadline(time.Time) error  { return nil }
func (c *replayConn) SetWriteDeadline(time.Time) error { return nil }

// replay runs s against everything that a publisher sends.
func replay(t testing.TB, s Sub, c *replayConn) runResult {
	s.Dial = func(context.Context, string) (net.Conn, error) { return c, nil }
	return runSub(t.Context(), s)
}

func readRecording(t testing.TB, file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// replayInto is like replay, but allocates nothing for each message.
func replayInto(s *Sub, c *replayConn, deliver func([][]byte)) error {
	s.Dial = func(context.Context, string) (net.Conn, error) { return c, nil }
	return s.Run(context.Background(), deliver)
}
