package mock

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/zmtp"
)

// startPub returns a pubSocket that serves until the test ends or stops it.
func startPub(t *testing.T) (p *pubSocket, stop func()) {
	t.Helper()
	p, err := newPubSocket("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var serving sync.WaitGroup
	serving.Go(func() { p.serve(ctx) })
	stop = func() { cancel(); serving.Wait() }
	t.Cleanup(stop)
	return p, stop
}

// receivedMessages has the messages that a subscriber received.
type receivedMessages struct {
	mu       sync.Mutex
	messages []string
}

func subscribeTo(t *testing.T, p *pubSocket, topics ...string) *receivedMessages {
	t.Helper()
	box := &receivedMessages{}
	subscribeZMQ(t, p.address(), box.add, topics...)
	return box
}

// subscribeZMQ subscribes until the test ends, and waits until the subscription is set.
func subscribeZMQ(t *testing.T, address string, deliver func(frames [][]byte), topics ...string) {
	t.Helper()
	connected := make(chan struct{})
	s := zmtp.Sub{Address: address, Topics: topics, OnConnected: sync.OnceFunc(func() { close(connected) })}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.RunReconnecting(ctx, deliver, nil); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	select {
	case <-connected:
	case <-time.After(testutil.WaitTimeout):
		t.Fatalf("no subscription at %s", address)
	}
}

func (b *receivedMessages) add(frames [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.messages = append(b.messages, fmt.Sprintf("%s", frames))
}

// waitFor waits until the messages are exactly these.
func (b *receivedMessages) waitFor(t *testing.T, want ...string) {
	t.Helper()
	testutil.Until(t, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !slices.Equal(b.messages, want) {
			return fmt.Errorf("got %q, want %q", b.messages, want)
		}
		return nil
	})
}

func publishMessage(p *pubSocket, frames ...string) {
	var all [][]byte
	for _, frame := range frames {
		all = append(all, []byte(frame))
	}
	p.publish(all)
}

func TestPubSocketDeliversByTopic(t *testing.T) {
	p, _ := startPub(t)
	loads, all := subscribeTo(t, p, "load"), subscribeTo(t, p, "x", "")
	long := strings.Repeat("long", 1000)
	publishMessage(p, "load", "1")
	publishMessage(p, "pass", "2", "")
	publishMessage(p, "loads", long)
	publishMessage(p, "loa", "3")
	publishMessage(p, "load", "last")
	loads.waitFor(t, "[load 1]", "[loads "+long+"]", "[load last]")
	all.waitFor(t, "[load 1]", "[pass 2 ]", "[loads "+long+"]", "[loa 3]", "[load last]")
}

func TestPubSocketWithoutSubscribers(t *testing.T) {
	p, stop := startPub(t)
	publishMessage(p, "load", "1")
	stop()
	publishMessage(p, "load", "2")
	if conn, err := net.Dial("tcp", p.listener.Addr().String()); err == nil {
		conn.Close()
		t.Error("the socket still listens after its end")
	}
}

// rawSubscriber sends any bytes.
type rawSubscriber struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

const subReady = "\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"

func greetingOf(minor byte) string {
	return "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03" + string(rune(minor)) + nullMechanism + strings.Repeat("\x00", 32)
}

func dial(t *testing.T, p *pubSocket) *rawSubscriber {
	t.Helper()
	conn, err := net.Dial("tcp", p.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testutil.WaitTimeout)); err != nil {
		t.Fatal(err)
	}
	return &rawSubscriber{t, conn, bufio.NewReader(conn)}
}

func (r *rawSubscriber) send(s string) {
	r.t.Helper()
	if _, err := io.WriteString(r.conn, s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawSubscriber) expect(want string) {
	r.t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(r.in, got)
	if string(got[:n]) != want {
		r.t.Fatalf("got %q, %v; want %q", got[:n], err, want)
	}
}

// shakeHands does the handshake in the order of a subscriber that waits for each reply.
func (r *rawSubscriber) shakeHands(minor byte) {
	r.t.Helper()
	r.expect(signature + "\x03\x01" + nullMechanism + strings.Repeat("\x00", 32))
	r.send(greetingOf(minor))
	r.expect("\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB")
	r.send(subReady)
}

// TestPubSocketAcceptsBothSubscriptionForms adds and cancels subscriptions. A topic must be
// cancelled as often as it was subscribed to. The PONG shows when the socket has done that.
func TestPubSocketAcceptsBothSubscriptionForms(t *testing.T) {
	for minor, form := range []struct{ subscribe, cancel string }{
		{"\x00\x02\x01a", "\x00\x02\x00a"},
		{"\x04\x0b\x09SUBSCRIBEa", "\x04\x08\x06CANCELa"},
	} {
		p, _ := startPub(t)
		r := dial(t, p)
		r.shakeHands(byte(minor))
		ping := func(context string) {
			t.Helper()
			r.send("\x04" + string(rune(7+len(context))) + "\x04PING\x00\x0a" + context)
			r.expect("\x04" + string(rune(5+len(context))) + "\x04PONG" + context)
		}
		r.send(form.subscribe + form.subscribe + form.cancel)
		ping("still subscribed")
		publishMessage(p, "a", "1")
		publishMessage(p, "b", "2")
		r.expect("\x01\x01a\x00\x011")
		r.send(form.cancel)
		ping("")
		publishMessage(p, "a", "3")
		ping("cancelled") // its PONG is the first to arrive: message 3 was not sent
	}
}

func TestPubSocketDisconnectsInvalidPeers(t *testing.T) {
	for name, input := range map[string]string{
		"HTTP":                        "GET / HTTP/1.1\r\n" + strings.Repeat("Host: none\r\n", 10),
		"an older version of ZMTP":    strings.Replace(greetingOf(0), "\x7f\x03", "\x7f\x01", 1),
		"another mechanism":           strings.Replace(greetingOf(1), "NULL", "OOPS", 1),
		"no READY":                    greetingOf(1) + "\x00\x02\x01a",
		"a large frame":               greetingOf(1) + subReady + "\x02\x00\x00\x00\x01\x00\x00\x00\x00",
		"unknown flags":               greetingOf(1) + subReady + "\x80\x00",
		"a truncated command":         greetingOf(1) + subReady + "\x04\x02\x09S",
		"too many topics":             greetingOf(1) + subReady + strings.Repeat("\x00\x02\x01a", maxTopics+1),
		"an empty command":            greetingOf(1) + subReady + "\x04\x00",
		"a message of several frames": greetingOf(1) + subReady + "\x01\x01\x01\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := startPub(t)
			r := dial(t, p)
			r.send(input)
			// The socket closes the connection, with a reset if it left bytes unread.
			if _, err := io.Copy(io.Discard, r.in); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Error(err)
			}
			testutil.Until(t, func() error {
				p.mu.Lock()
				defer p.mu.Unlock()
				if n := len(p.subscribers); n > 0 {
					return fmt.Errorf("%d subscribers are left", n)
				}
				return nil
			})
		})
	}
}

// TestPubSocketDropsForSlowSubscriber checks that a subscriber that does not read loses the
// messages beyond the limit, and that others are not affected.
func TestPubSocketDropsForSlowSubscriber(t *testing.T) {
	p, _ := startPub(t)
	slow := dial(t, p)
	slow.shakeHands(1)
	slow.send("\x04\x0b\x09SUBSCRIBEa\x04\x07\x04PING\x00\x00")
	slow.expect("\x04\x05\x04PONG")

	body := strings.Repeat("x", 8<<10)
	dropped := func() uint64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.dropped
	}
	const most = 10 * highWaterMark // far above the queue and the kernel's buffers
	sent := 0
	for ; dropped() == 0 && sent < most; sent++ {
		publishMessage(p, "a", body)
	}
	if sent <= highWaterMark || sent == most {
		t.Errorf("dropped the first message after %d, want more than %d and less than %d", sent, highWaterMark, most)
	}
	fast := subscribeTo(t, p, "a")
	publishMessage(p, "a", "for the fast")
	fast.waitFor(t, "[a for the fast]")
}
