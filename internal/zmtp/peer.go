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
	reader frameReader
	out    []byte

	handshakeTimeout, pingInterval, timeout, silenceTimeout time.Duration

	isZMTP31      bool // it speaks 3.1
	canPing       bool // it can be asked for a sign of life
	handshakeDone bool // the handshake, which has one deadline for everything, is over

	// The wait for the next frame, or for the rest of one.
	frameStarted bool          // the first byte of a frame has come
	deadlineSet  bool          // the deadline is set
	pingSent     bool          // a ping is out
	ttl          time.Duration // for which the last frame, a ping, promised the next one
}

func newPeer(s *Sub, conn net.Conn) *peer {
	p := &peer{
		sub:              s,
		conn:             conn,
		handshakeTimeout: orDefault(s.HandshakeTimeout, defaultHandshakeTimeout),
		pingInterval:     cmp.Or(s.PingInterval, defaultPingInterval),
		timeout:          orDefault(s.Timeout, defaultTimeout),
		silenceTimeout:   s.SilenceTimeout,
	}
	p.in = bufio.NewReaderSize(p, bufferSize)
	p.reader = frameReader{
		in:           p.in,
		maxBytes:     orDefault(s.MaxMessage, defaultMaxMessage),
		maxFrames:    orDefault(s.MaxFrames, defaultMaxFrames),
		onFrameStart: func() { p.frameStarted, p.deadlineSet = true, false },
		onFrameEnd:   func() { p.frameStarted, p.deadlineSet, p.pingSent, p.ttl = false, false, false, 0 },
	}
	return p
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// subscribe asks for the topics, and behind them for a sign of life.
func (p *peer) subscribe(topics []string) error {
	p.canPing = p.isZMTP31 && p.pingInterval > 0
	b := p.out[:0]
	for _, topic := range topics {
		if p.isZMTP31 {
			b = appendFrame(b, flagCommand, "\x09SUBSCRIBE", topic)
		} else {
			// zeromq.rs knows only this form, and drops whoever sends it a command.
			b = appendFrame(b, 0, "\x01", topic)
		}
	}
	if p.canPing {
		b = appendFrame(b, flagCommand, pingCommand)
		p.pingSent = true
	}
	return p.write(b)
}

// next is the next message, or else word that the peer has answered a ping. What else
// it commands is done on the way.
func (p *peer) nextMessage() (frames [][]byte, pong bool, err error) {
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
			err = p.answerPing(data)
		case "ERROR":
			err = parseError(data)
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// pong answers a ping whoever sends it: libzmq before 4.3.3 calls itself 3.0, and pings.
func (p *peer) answerPing(data []byte) error {
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
	if !p.handshakeDone {
		return p.readHandshake(b)
	}
	for {
		limit, timeoutError := p.nextTimeout()
		if err := p.setDeadline(limit); err != nil {
			return 0, err
		}
		n, err := p.conn.Read(b)
		if n > 0 {
			return n, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		p.deadlineSet = false
		if timeoutError != nil {
			return 0, timeoutError(limit)
		}
		p.pingSent = true
		if err := p.write(appendFrame(p.out[:0], flagCommand, pingCommand)); err != nil {
			return 0, err
		}
	}
}

func (p *peer) readHandshake(b []byte) (int, error) {
	n, err := p.conn.Read(b)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("not done in %v", p.handshakeTimeout)
	}
	return n, err
}

// patience is for how long to wait now, zero for ever, and what it means when nothing
// comes; nil is that the peer is asked.
func (p *peer) nextTimeout() (limit time.Duration, timeoutError func(time.Duration) error) {
	switch {
	case p.frameStarted || p.reader.inMessage:
		return p.timeout, incompleteError
	case p.pingSent:
		return p.timeout, unansweredError
	case p.canPing:
		return p.pingInterval, nil
	default:
		return cmp.Or(p.ttl, p.silenceTimeout), silentError
	}
}

func incompleteError(d time.Duration) error {
	return fmt.Errorf("the rest of a message is not there after %v", d)
}
func unansweredError(d time.Duration) error {
	return fmt.Errorf("no sign of life for %v after a ping", d)
}
func silentError(d time.Duration) error { return fmt.Errorf("no sign of life for %v", d) }

// arm sets the deadline of a wait, once: bytes that trickle in do not move it.
func (p *peer) setDeadline(limit time.Duration) error {
	if p.deadlineSet {
		return nil
	}
	p.deadlineSet = true
	if limit <= 0 {
		return p.conn.SetReadDeadline(time.Time{})
	}
	return p.conn.SetReadDeadline(time.Now().Add(limit))
}
