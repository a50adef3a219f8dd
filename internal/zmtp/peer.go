package zmtp

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// bufferSize is what a connection costs while little is said. There may be thousands.
const bufferSize = 1 << 10

const maxEcho = 16 // bytes of a ping that its answer repeats

// A ping promises nothing: with a time to live libzmq would set a timer for our next
// sign of life, and we say nothing while the publisher talks.
const pingCommand = "\x04PING\x00\x00"

// peer is the publisher at the other end of a connection, and how long it may let us
// wait. All of it belongs to one goroutine.
type peer struct {
	sub    *Sub
	conn   net.Conn
	in     *bufio.Reader // of Read
	reader reader
	out    []byte

	handshake, ping, timeout, silence time.Duration

	modern  bool // it speaks 3.1
	pings   bool // it can be asked for a sign of life
	traffic bool // the handshake, which has one deadline for everything, is over

	// The wait for the next frame, or for the rest of one.
	began bool          // the first byte of a frame has come
	armed bool          // the deadline is set
	asked bool          // a ping is out
	ttl   time.Duration // for which the last frame, a ping, promised the next one
}

func newPeer(s *Sub, conn net.Conn) *peer {
	p := &peer{
		sub:       s,
		conn:      conn,
		handshake: positive(s.Handshake, defaultHandshake),
		ping:      cmp.Or(s.Ping, defaultPing),
		timeout:   positive(s.Timeout, defaultTimeout),
		silence:   s.Silence,
	}
	p.in = bufio.NewReaderSize(p, bufferSize)
	p.reader = reader{
		in:        p.in,
		maxBytes:  positive(s.MaxMessage, defaultMessage),
		maxFrames: positive(s.MaxFrames, defaultFrames),
		began:     func() { p.began, p.armed = true, false },
		ended:     func() { p.began, p.armed, p.asked, p.ttl = false, false, false, 0 },
	}
	return p
}

func positive[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// subscribe asks for the topics, and behind them for a sign of life.
func (p *peer) subscribe(topics []string) error {
	p.pings = p.modern && p.ping > 0
	b := p.out[:0]
	for _, topic := range topics {
		if p.modern {
			b = appendFrame(b, flagCommand, "\x09SUBSCRIBE", topic)
		} else {
			// zeromq.rs knows only this form, and drops whoever sends it a command.
			b = appendFrame(b, 0, "\x01", topic)
		}
	}
	if p.pings {
		b = appendFrame(b, flagCommand, pingCommand)
		p.asked = true
	}
	return p.write(b)
}

// next is the next message, or else word that the peer has answered a ping. What else
// it commands is done on the way.
func (p *peer) next() (frames [][]byte, pong bool, err error) {
	for {
		isCommand, err := p.reader.next()
		if err != nil || !isCommand {
			return p.reader.frames, false, err
		}
		name, data, err := splitCommand(p.reader.command)
		if err != nil {
			return nil, false, err
		}
		switch string(name) {
		case "PONG":
			return nil, true, nil
		case "PING":
			err = p.pong(data)
		case "ERROR":
			err = parseError(data)
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// pong answers a ping whoever sends it: libzmq before 4.3.3 calls itself 3.0, and pings.
func (p *peer) pong(data []byte) error {
	if len(data) < 2 {
		return errors.New("PING without a time to live")
	}
	p.ttl = time.Duration(binary.BigEndian.Uint16(data)) * 100 * time.Millisecond
	echo := data[2:min(len(data), 2+maxEcho)]
	return p.write(appendFrame(p.out[:0], flagCommand, "\x04PONG", string(echo)))
}

func (p *peer) write(b []byte) error {
	p.out = b
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.timeout)); err != nil {
		return err
	}
	_, err := p.conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the peer has read nothing for %v", p.timeout)
	}
	return err
}

// Read reads from the connection, for as long as the peer may let us wait.
func (p *peer) Read(b []byte) (int, error) {
	if !p.traffic {
		return p.readHandshake(b)
	}
	for {
		limit, late := p.patience()
		if err := p.arm(limit); err != nil {
			return 0, err
		}
		n, err := p.conn.Read(b)
		if n > 0 {
			return n, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		p.armed = false
		if late != nil {
			return 0, late(limit)
		}
		p.asked = true
		if err := p.write(appendFrame(p.out[:0], flagCommand, pingCommand)); err != nil {
			return 0, err
		}
	}
}

func (p *peer) readHandshake(b []byte) (int, error) {
	n, err := p.conn.Read(b)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("not done in %v", p.handshake)
	}
	return n, err
}

// patience is for how long to wait now, zero for ever, and what it means when nothing
// comes; nil is that the peer is asked.
func (p *peer) patience() (limit time.Duration, late func(time.Duration) error) {
	switch {
	case p.began || p.reader.inside:
		return p.timeout, unfinished
	case p.asked:
		return p.timeout, unanswered
	case p.pings:
		return p.ping, nil
	default:
		return cmp.Or(p.ttl, p.silence), silent
	}
}

func unfinished(d time.Duration) error {
	return fmt.Errorf("the rest of a message is not there after %v", d)
}
func unanswered(d time.Duration) error { return fmt.Errorf("no sign of life for %v after a ping", d) }
func silent(d time.Duration) error     { return fmt.Errorf("no sign of life for %v", d) }

// arm sets the deadline of a wait, once: bytes that trickle in do not move it.
func (p *peer) arm(limit time.Duration) error {
	if p.armed {
		return nil
	}
	p.armed = true
	if limit <= 0 {
		return p.conn.SetReadDeadline(time.Time{})
	}
	return p.conn.SetReadDeadline(time.Now().Add(limit))
}
