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

// highWaterMark is how many messages are queued for a slow subscriber. Further messages are
// dropped for it. The value is libzmq's default.
const highWaterMark = 1000

// pubSocket is a ZeroMQ PUB socket over TCP: ZMTP 3.1 and 3.0 (RFC 37 and 23) with the NULL
// mechanism.
type pubSocket struct {
	listener net.Listener

	mu          sync.Mutex
	subscribers map[*subscriber]bool
	dropped     uint64 // messages that were dropped for a subscriber
}

// newPubSocket listens on any port of host. Subscribers are accepted by serve.
func newPubSocket(host string) (*pubSocket, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("publish with ZMQ: %w", err)
	}
	return &pubSocket{listener: l, subscribers: map[*subscriber]bool{}}, nil
}

// address returns the address for subscribers.
func (p *pubSocket) address() string { return "tcp://" + p.listener.Addr().String() }

func (p *pubSocket) close() { p.listener.Close() }

// serve accepts subscribers until ctx ends, and then waits until their connections are
// closed. Messages that were not sent by then are lost.
func (p *pubSocket) serve(ctx context.Context) {
	defer context.AfterFunc(ctx, p.close)()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // for example too many open files
			backoff.Wait(ctx, 10*time.Millisecond)
			continue
		}
		conns.Go(func() { p.handle(ctx, conn) })
	}
}

// publish sends a message to all subscribers of its topic. It never blocks.
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

// handle serves a subscriber's connection until it is closed.
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
	delete(p.subscribers, s) // from now on only this goroutine uses the queue
	p.mu.Unlock()
	conn.Close()
	close(s.queue)
	writer.Wait()
}

// subscriber is one connection.
type subscriber struct {
	pub       *pubSocket
	queue     chan []byte
	writeDone chan struct{} // closed when write has returned
	topics    []string      // each as often as it was subscribed to; guarded by pub.mu
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

// read handles the subscriber's commands until it disconnects or violates the protocol.
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
		} else if len(body) > 0 { // the form of ZMTP 3.0
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
			// The first two bytes are a time to live, which is not used here.
			s.enqueueReply(encodeCommand("PONG", rest[min(len(rest), 2):]))
		}
	}
}

// maxTopics is the limit of the topics of a subscriber.
const maxTopics = 1000

func (s *subscriber) subscribe(topic string) bool {
	s.pub.mu.Lock()
	defer s.pub.mu.Unlock()
	s.topics = append(s.topics, topic)
	return len(s.topics) <= maxTopics
}

// cancel removes one of the subscriptions to the topic.
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

// enqueueReply waits for space in the queue. Therefore the socket reads nothing more from a
// subscriber that sends pings and does not read the replies.
func (s *subscriber) enqueueReply(command []byte) {
	select {
	case s.queue <- command:
	case <-s.writeDone:
	}
}
