package mock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"
)

// highWater is how many messages wait for a slow subscriber before what comes is
// lost to it, as of libzmq by default.
const highWaterMark = 1000

// pub is a ZeroMQ PUB socket on TCP: ZMTP 3.1 and 3.0 (RFC 37 and 23) with the NULL
// mechanism.
type pubSocket struct {
	listener net.Listener

	mu          sync.Mutex
	subscribers map[*subscriber]bool
	dropped     uint64 // messages that were lost to one subscriber
}

// newPub listens on any port of host; serve lets subscribers in.
func newPubSocket(host string) (*pubSocket, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("publish with ZMQ: %w", err)
	}
	return &pubSocket{listener: l, subscribers: map[*subscriber]bool{}}, nil
}

// address is what subscribers connect to.
func (p *pubSocket) address() string { return "tcp://" + p.listener.Addr().String() }

func (p *pubSocket) close() { p.listener.Close() }

// serve accepts subscribers until ctx ends, and then waits until they are gone. What
// was not sent to them by then is lost.
func (p *pubSocket) serve(ctx context.Context) {
	defer context.AfterFunc(ctx, p.close)()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, maybe
			backoff.Wait(ctx, 10*time.Millisecond)
			continue
		}
		conns.Go(func() { p.handle(ctx, conn) })
	}
}

// publish sends a message to whoever has subscribed to it. It never blocks.
func (p *pubSocket) publish(frames [][]byte) {
	message := encodeMessage(frames)
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.subscribers {
		if !s.wants(frames[0]) {
			continue
		}
		select {
		case s.queue <- message:
		default:
			p.dropped++
		}
	}
}

// attend is the life of a subscriber's connection.
func (p *pubSocket) handle(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	in := bufio.NewReader(conn)
	if err := shakeHands(conn, in); err != nil {
		return
	}
	s := &subscriber{pub: p, queue: make(chan []byte, highWaterMark), writeDone: make(chan struct{})}
	p.mu.Lock()
	p.subscribers[s] = true
	p.mu.Unlock()

	var writer sync.WaitGroup
	writer.Go(func() {
		defer close(s.writeDone)
		defer conn.Close()
		s.write(conn)
	})
	s.read(in)
	p.mu.Lock()
	delete(p.subscribers, s) // nobody but us sends to it from now on
	p.mu.Unlock()
	conn.Close()
	close(s.queue)
	writer.Wait()
}

// subscriber is one connection.
type subscriber struct {
	pub       *pubSocket
	queue     chan []byte
	writeDone chan struct{} // closed when nothing more is written
	topics    []string      // one as often as it was subscribed to; under pub.mu
}

func (s *subscriber) wants(topic []byte) bool {
	for _, prefix := range s.topics {
		if strings.HasPrefix(string(topic), prefix) {
			return true
		}
	}
	return false
}

func (s *subscriber) write(conn net.Conn) {
	for message := range s.queue {
		if _, err := conn.Write(message); err != nil {
			return
		}
	}
}

// read does what the subscriber asks for, until it hangs up or asks nonsense.
func (s *subscriber) read(in *bufio.Reader) {
	for {
		flags, body, err := readFrame(in)
		if err != nil {
			return
		}
		verb, rest := "", body
		if flags&flagCommand != 0 {
			if verb, rest, err = splitCommand(body); err != nil {
				return
			}
		} else if len(body) > 0 { // of 3.0
			verb, rest = body[:1], body[1:]
		}
		switch verb {
		case "SUBSCRIBE", "\x01":
			if !s.subscribe(rest) {
				return
			}
		case "CANCEL", "\x00":
			s.cancel(rest)
		case "PING":
			// Behind it is a time to live of two bytes: we need no sign of life.
			s.enqueueReply(encodeCommand("PONG", rest[min(len(rest), 2):]))
		}
	}
}

// maxTopics bounds what a subscriber can make us remember.
const maxTopics = 1000

func (s *subscriber) subscribe(topic string) bool {
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	s.topics = append(s.topics, topic)
	return len(s.topics) <= maxTopics
}

// cancel takes back one of the subscriptions to the topic.
func (s *subscriber) cancel(topic string) {
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	for i, t := range s.topics {
		if t == topic {
			s.topics = append(s.topics[:i], s.topics[i+1:]...)
			return
		}
	}
}

// answer waits for room in the queue: who asks and does not read is not read either.
func (s *subscriber) enqueueReply(command []byte) {
	select {
	case s.queue <- command:
	case <-s.writeDone:
	}
}
