package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// zmqPublisher is a ZeroMQ publisher that sends the bytes that it is given, even if they
// are not ZMTP.
type zmqPublisher struct {
	listener  net.Listener
	keepsOpen bool // keeps connections open; otherwise it closes them after the greeting
	work      sync.WaitGroup

	mu       sync.Mutex
	greeting []byte
	accepted int // accepted connections so far
	conns    map[net.Conn]bool
}

func newZMQPublisher(greeting []byte, stays bool) (*zmqPublisher, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("publish with ZMQ: %w", err)
	}
	s := &zmqPublisher{listener: l, keepsOpen: stays, greeting: greeting, conns: make(map[net.Conn]bool)}
	s.work.Go(s.serve)
	return s, nil
}

func (s *zmqPublisher) address() string { return "tcp://" + s.listener.Addr().String() }

func (s *zmqPublisher) close() {
	s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}

func (s *zmqPublisher) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // the listener is closed
		}
		s.work.Go(func() { s.handle(conn) })
	}
}

// handle sends the greeting and reads until the peer closes the connection.
func (s *zmqPublisher) handle(conn net.Conn) {
	defer conn.Close()
	s.mu.Lock()
	s.accepted++
	s.conns[conn] = true
	greeting := s.greeting
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, conn)
	}()
	if !s.keepsOpen {
		conn.SetDeadline(time.Now().Add(waitTimeout))
	}
	conn.Write(greeting) // fails if the peer closes the connection on malformed data, as it should
	if !s.keepsOpen {
		conn.(*net.TCPConn).CloseWrite()
	}
	io.Copy(io.Discard, conn)
}

// setGreeting changes the greeting of later connections.
func (s *zmqPublisher) setGreeting(greeting []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greeting = greeting
}

// publish sends bytes to the subscriber.
func (s *zmqPublisher) publish(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) != 1 {
		return fmt.Errorf("%d subscribers are connected to a ZeroMQ publisher, want 1", len(s.conns))
	}
	for conn := range s.conns {
		if _, err := conn.Write(b); err != nil {
			return fmt.Errorf("publish with ZMQ: %w", err)
		}
	}
	return nil
}

func (s *zmqPublisher) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// zmtpGreeting returns the greeting and the READY command of a publisher of ZMTP 3.0.
// Subscribers send no PING to such a publisher.
func zmtpGreeting() []byte {
	greeting := "\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f" + "\x03\x00" + "NULL" + strings.Repeat("\x00", 16+32)
	return appendFrame([]byte(greeting), 4, []byte("\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB"))
}

// appendMessage appends a ZMTP message.
func appendMessage(b []byte, frames [][]byte) []byte {
	for i, frame := range frames {
		more := byte(1)
		if i == len(frames)-1 {
			more = 0
		}
		b = appendFrame(b, more, frame)
	}
	return b
}

func appendFrame(b []byte, flags byte, body []byte) []byte {
	if len(body) > 255 {
		b = binary.BigEndian.AppendUint64(append(b, flags|2), uint64(len(body)))
	} else {
		b = append(b, flags, byte(len(body)))
	}
	return append(b, body...)
}
