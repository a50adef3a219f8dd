// Package zmtp is the SUB half of ZeroMQ: it connects to one publisher on TCP,
// subscribes, and hands over what it hears.
//
// It speaks ZMTP 3.1 and 3.0 (RFC 37 and 23) with the NULL mechanism, which is what
// every libzmq since 4.0 and zeromq.rs bind. A publisher is a stranger: whatever it
// sends or withholds costs it its own connection, and never more memory than the
// limits of its Sub.
package zmtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	defaultMaxMessage       = 1 << 20
	defaultMaxFrames        = 64
	defaultHandshakeTimeout = 5 * time.Second
	defaultPingInterval     = 5 * time.Second
	defaultTimeout          = 5 * time.Second
)

// keepAlive finds a dead host where nothing else does: behind a ZMTP 3.0 connection
// that has nothing to say. A dead host is noticed after 30 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// Sub is one subscription at one publisher. The zero values of all fields but Address
// and Topics are usable. Its fields must not change while Run or Keep runs; apart from
// that it holds no state, so that both may be called again.
type Sub struct {
	Address string   // of the publisher: tcp://host:port, an IPv6 host in brackets
	Topics  []string // prefixes of the first frames that are wanted; "" wants everything

	MaxMessage int // bytes of all frames of a message; 1 MiB if zero
	MaxFrames  int // of a message; 64 if zero

	HandshakeTimeout time.Duration // bounds dialling, and again the handshake; 5 s if zero

	// A publisher that was silent for Ping is asked for a sign of life, and given up
	// when none comes within Timeout: one that is dead or stalled is noticed after the
	// sum of both. 5 s each if zero; a negative Ping asks never. Timeout also bounds
	// the arrival of the rest of a frame or message that has begun, and each write.
	PingInterval, Timeout time.Duration

	// Silence bounds the silence of a publisher that cannot be asked, because its ZMTP is
	// 3.0 or Ping is negative. Zero is no bound: it may have nothing to say for days. One
	// that pings us with a time to live has set its own.
	SilenceTimeout time.Duration

	// Connected, if not nil, is called each time the subscription is set: when the
	// publisher has answered behind it, or, if it cannot be asked, when it is sent.
	// libzmq answers from another thread than it publishes from, so that what is
	// published within the next millisecond or so may still be missed.
	OnConnected func()

	// Turn, if not nil, is called before each attempt to connect, and waits until that may
	// begin. What it returns is called once the subscription is set, or the attempt has
	// failed. It must return when ctx ends.
	BeforeDial func(ctx context.Context) (release func())

	// Failed, if not nil, hears why an attempt of Keep's, or a connection, came to its end.
	// Unlike status it hears each, also the same again.
	OnFailure func(error)

	// Dial, if not nil, connects, instead of TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Run is the life of one connection: it dials, shakes hands, subscribes, and calls
// deliver with the frames of each message until ctx ends, which is no error, or the
// connection is beyond repair. While deliver runs nothing is read and no ping is
// answered, so it must not block.
//
// The frames are valid during the call only. Messages up to 64 KiB are delivered
// without allocating. It is the publisher that selects by topic: what one sends that
// was not asked for is delivered all the same, and asking for "a" also gets "ab".
func (s *Sub) Run(ctx context.Context, deliver func(frames [][]byte)) error {
	err := s.run(ctx, deliver, s.callOnConnected)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// run is Run, but always ends with an error, whether ctx has ended or not.
func (s *Sub) run(ctx context.Context, deliver func(frames [][]byte), connected func()) error {
	address, err := s.validate()
	if err != nil {
		return err
	}
	release := func() {}
	if s.BeforeDial != nil {
		release = sync.OnceFunc(s.BeforeDial(ctx))
	}
	defer release()
	conn, err := s.dial(ctx, address)
	if err != nil {
		return s.wrapError("dial: ", err)
	}
	p := newPeer(s, conn) // only now: thousands may dial in vain
	defer p.conn.Close()
	defer context.AfterFunc(ctx, func() { p.conn.Close() })()

	if err := p.shakeHands(); err != nil {
		return s.wrapError("handshake: ", err)
	}
	return s.wrapError("", p.receive(deliver, func() { release(); connected() }))
}

// follow subscribes and delivers until there is an error.
func (p *peer) receive(deliver func(frames [][]byte), connected func()) error {
	if err := p.subscribe(p.sub.Topics); err != nil {
		return err
	}
	set := !p.canPing
	if set {
		connected()
	}
	for {
		frames, pong, err := p.nextMessage()
		if err != nil {
			return err
		}
		if !set {
			set = true
			connected()
		}
		if !pong {
			deliver(frames)
		}
	}
}

// check says what no attempt can mend.
func (s *Sub) validate() (address string, err error) {
	if len(s.Topics) == 0 {
		return "", fmt.Errorf(`subscription at %s: no topics; "" subscribes to everything`, s.Address)
	}
	address, err = hostPort(s.Address)
	if err != nil {
		return "", fmt.Errorf("subscription: %w", err)
	}
	return address, nil
}

func (s *Sub) callOnConnected() {
	if s.OnConnected != nil {
		s.OnConnected()
	}
}

func (s *Sub) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, orDefault(s.HandshakeTimeout, defaultHandshakeTimeout))
	defer cancel()
	if s.Dial != nil {
		return s.Dial(ctx, address)
	}
	d := net.Dialer{KeepAliveConfig: keepAlive}
	return d.DialContext(ctx, "tcp", address)
}

// failed says where and in which step something went wrong. Errors of package net
// repeat the address and name a port of ours that is another each time: without
// them the same trouble reads the same.
func (s *Sub) wrapError(step string, err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	switch err {
	case io.EOF:
		err = fmt.Errorf("closed by the peer: %w", err)
	case io.ErrUnexpectedEOF:
		err = fmt.Errorf("closed by the peer in the middle of something: %w", err)
	}
	return fmt.Errorf("subscription at %s: %s%w", s.Address, step, err)
}
