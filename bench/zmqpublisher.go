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

// speaker is a ZeroMQ publisher that says what it is told, whether that is ZMTP or not.
type speaker struct {
	listener net.Listener
	stays    bool // with whoever connects; else it hangs up when it has said its greeting
	work     sync.WaitGroup

	mu       sync.Mutex
	greeting []byte
	met      int // connections so far
	conns    map[net.Conn]bool
}

func newSpeaker(greeting []byte, stays bool) (*speaker, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("publish with ZMQ: %w", err)
	}
	s := &speaker{listener: l, stays: stays, greeting: greeting, conns: make(map[net.Conn]bool)}
	s.work.Go(s.serve)
	return s, nil
}

func (s *speaker) address() string { return "tcp://" + s.listener.Addr().String() }

func (s *speaker) close() {
	s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}

func (s *speaker) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		s.work.Go(func() { s.attend(conn) })
	}
}

// attend greets, and listens until the other side has had enough.
func (s *speaker) attend(conn net.Conn) {
	defer conn.Close()
	s.mu.Lock()
	s.met++
	s.conns[conn] = true
	greeting := s.greeting
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, conn)
	}()
	if !s.stays {
		conn.SetDeadline(time.Now().Add(patience))
	}
	conn.Write(greeting) // who hangs up on nonsense does well
	if !s.stays {
		conn.(*net.TCPConn).CloseWrite()
	}
	io.Copy(io.Discard, conn)
}

// greet changes the greeting.
func (s *speaker) greet(greeting []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greeting = greeting
}

// say says something to the one that listens.
func (s *speaker) say(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) != 1 {
		return fmt.Errorf("%d listen to a ZeroMQ publisher, want 1", len(s.conns))
	}
	for conn := range s.conns {
		if _, err := conn.Write(b); err != nil {
			return fmt.Errorf("publish with ZMQ: %w", err)
		}
	}
	return nil
}

func (s *speaker) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.met
}

// zmtpGreeting is the greeting of a publisher of ZMTP 3.0, who is never asked for a sign
// of life, with its READY.
func zmtpGreeting() []byte {
	greeting := "\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f" + "\x03\x00" + "NULL" + strings.Repeat("\x00", 16+32)
	return appendFrame([]byte(greeting), 4, []byte("\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB"))
}

// appendMessage appends a message of ZMTP.
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
