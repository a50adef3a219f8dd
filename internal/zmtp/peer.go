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

// bufferSize is the memory of an idle connection. There may be thousands of them.
const bufferSize = 1 << 10

const maxEcho = 16 // bytes of a ping's context that its PONG repeats

// pingCommand has a time to live of 0. With any other, libzmq would expect the next ping in
// time, but none is sent while the publisher sends messages.
const pingCommand = "\x04PING\x00\x00"

// peer is the publisher at the other end of a connection, with the timeouts of the
// connection. Only one goroutine uses it.
type peer struct {
	sub    *Sub
	conn   net.Conn
	in     *bufio.Reader // calls Read
	reader frameReader
	out    []byte

	handshakeTimeout, pingInterval, timeout, silenceTimeout time.Duration

	isZMTP31      bool // the peer's version is 3.1 or later
	canPing       bool // pings are enabled, and the peer answers them
	handshakeDone bool // before that, one deadline holds for the whole handshake

	// The wait for the next frame, or for the rest of one.
	frameStarted bool          // the first byte of a frame has arrived
	deadlineSet  bool          // the connection has the deadline of this wait
	pingSent     bool          // a ping has no reply yet
	ttl          time.Duration // if the last frame was a ping: its time to live
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

func orDefault[T int | time.Duration](v, defaultValue T) T {
	if v > 0 {
		return v
	}
	return defaultValue
}

// subscribe subscribes to the topics, and then sends a ping if the peer answers pings.
func (p *peer) subscribe(topics []string) error {
	p.canPing = p.isZMTP31 && p.pingInterval > 0
	b := p.out[:0]
	for _, topic := range topics {
		if p.isZMTP31 {
			b = appendFrame(b, flagCommand, "\x09SUBSCRIBE", topic)
		} else {
			// zeromq.rs supports only this form, and disconnects subscribers that send commands.
			b = appendFrame(b, 0, "\x01", topic)
		}
	}
	if p.canPing {
		b = appendFrame(b, flagCommand, pingCommand)
		p.pingSent = true
	}
	return p.write(b)
}

// nextMessage returns the next message, or reports that the peer answered a ping. It
// handles all other commands.
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

// answerPing answers a ping of any peer: libzmq before 4.3.3 sends pings although its
// version is 3.0.
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

// Read reads from the connection. It waits no longer than nextTimeout allows.
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
		return 0, fmt.Errorf("not finished in %v", p.handshakeTimeout)
	}
	return n, err
}

// nextTimeout returns how long to wait now, with 0 for no limit, and the error to return
// when nothing arrives in that time. If timeoutError is nil, a ping is sent instead.
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
	return fmt.Errorf("the rest of a message has not arrived after %v", d)
}
func unansweredError(d time.Duration) error {
	return fmt.Errorf("nothing received for %v after a ping", d)
}
func silentError(d time.Duration) error { return fmt.Errorf("nothing received for %v", d) }

// setDeadline sets the deadline of a wait, unless it is set. Single bytes that arrive
// slowly do not move it.
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
