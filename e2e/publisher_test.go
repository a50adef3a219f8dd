package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"dynamo-metrics/internal/testutil"
)

// publisher is a ZeroMQ PUB or XPUB socket that can send anything, even if it is malformed.
// It sends to every subscriber, whatever the subscriptions are.
type publisher struct {
	t    *testing.T
	kind string // PUB or XPUB, or silentKind

	address  string // stays the same after close and open
	listener net.Listener
	conns    sync.WaitGroup

	mu            sync.Mutex
	closed        bool
	accepted      map[net.Conn]bool
	subscribers   map[net.Conn]bool // open connections of subscribers
	subscriptions int               // since the beginning
}

func newPublisher(t *testing.T, kind string) *publisher {
	t.Helper()
	p := &publisher{t: t, kind: kind, address: "tcp://127.0.0.1:0", accepted: map[net.Conn]bool{}, subscribers: map[net.Conn]bool{}}
	p.open()
	t.Cleanup(p.close)
	return p
}

// open listens, on the same port as before if there was one.
func (p *publisher) open() {
	p.t.Helper()
	var l net.Listener
	testutil.Until(p.t, func() (err error) { // another test may have taken the port for a while
		l, err = net.Listen("tcp", strings.TrimPrefix(p.address, "tcp://"))
		return err
	})
	p.listener, p.address, p.closed = l, "tcp://"+l.Addr().String(), false
	p.conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Go(func() { p.handle(conn) })
		}
	})
}

// close closes all connections and the listener.
func (p *publisher) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for conn := range p.accepted {
		conn.Close()
	}
	p.mu.Unlock()
	p.conns.Wait()
}

// accept, subscribe and drop keep track of the connections.
func (p *publisher) accept(conn net.Conn) (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted[conn] = true
	return !p.closed
}

func (p *publisher) subscribe(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.subscribers[conn] {
		p.subscribers[conn] = true
		p.subscriptions++
	}
}

func (p *publisher) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.accepted, conn)
	delete(p.subscribers, conn)
	conn.Close()
}

const (
	signature = "\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f"
	greeting  = signature + "\x03\x01NULL" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" + // version 3.1
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

	moreFlag, longFlag, commandFlag = 1, 2, 4 // the bits of a frame's first byte
)

// handle serves one connection as a ZMTP 3.1 publisher.
func (p *publisher) handle(conn net.Conn) {
	defer p.drop(conn)
	if !p.accept(conn) {
		return
	}
	if p.kind == silentKind {
		io.Copy(io.Discard, conn)
		return
	}
	in := bufio.NewReader(conn)
	conn.Write([]byte(greeting))
	if _, err := io.ReadFull(in, make([]byte, len(greeting))); err != nil {
		return
	}
	conn.Write(appendFrame(nil, commandFlag, "\x05READY\x0bSocket-Type\x00\x00\x00"+string(rune(len(p.kind)))+p.kind))
	for {
		body, err := readCommand(in)
		if err != nil {
			return
		}
		if context, ping := strings.CutPrefix(body, "\x04PING"); ping {
			// A subscriber sends a PING after its subscriptions, and is connected when it
			// receives the PONG.
			p.subscribe(conn)
			conn.Write(appendFrame(nil, commandFlag, "\x04PONG"+context[2:]))
		}
	}
}

// silentKind is the kind of a publisher that accepts connections and never sends anything.
const silentKind = "silent"

// readCommand reads a frame from a subscriber. Subscribers only send short ones.
func readCommand(in *bufio.Reader) (body string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return "", err
	}
	b := make([]byte, head[1])
	_, err = io.ReadFull(in, b)
	return string(b), err
}

func appendFrame(b []byte, flags byte, body string) []byte {
	if len(body) > 255 {
		b = binary.BigEndian.AppendUint64(append(b, flags|longFlag), uint64(len(body)))
	} else {
		b = append(b, flags, byte(len(body)))
	}
	return append(b, body...)
}

func appendMessage(b []byte, frames [][]byte) []byte {
	for i, frame := range frames {
		flags := byte(moreFlag)
		if i == len(frames)-1 {
			flags = 0
		}
		b = appendFrame(b, flags, string(frame))
	}
	return b
}

// waitForSubscription waits for the nth subscription since the beginning.
func (p *publisher) waitForSubscription(n int) {
	p.t.Helper()
	testutil.Until(p.t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.subscriptions < n {
			return fmt.Errorf("subscribed to %d times, want %d", p.subscriptions, n)
		}
		return nil
	})
}

// send sends a message to all subscribers.
func (p *publisher) send(frames [][]byte) { p.sendBytes(appendMessage(nil, frames)) }

// sendBytes sends bytes to all subscribers, and returns to how many.
func (p *publisher) sendBytes(b []byte) (n int) {
	p.mu.Lock()
	all := slices.Collect(maps.Keys(p.subscribers))
	p.mu.Unlock()
	for _, conn := range all {
		if _, err := conn.Write(b); err == nil { // in one call, so that no other goroutine's bytes come between
			n++
		}
	}
	return n
}
