// Package zmtp implements ZeroMQ's SUB socket: it connects to one publisher over TCP,
// subscribes, and delivers the messages that it receives.
//
// It implements ZMTP 3.1 and 3.0 (RFC 37 and 23) with the NULL mechanism, which zeromq.rs
// and every libzmq from 4.0 on support. It does not trust publishers: a publisher that
// violates the protocol or stalls loses its own connection only, and never costs more
// memory than the limits of its Sub.
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

// keepAlive detects a dead host on an idle ZMTP 3.0 connection, where nothing else does,
// within 30 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// Sub is one subscription at one publisher. Address and Topics are required; all other
// fields may be zero. The fields must not change while Run or RunReconnecting runs. A Sub
// has no other state, so both may be called again.
type Sub struct {
	Address string   // of the publisher: tcp://host:port, an IPv6 host in brackets
	Topics  []string // prefixes of the messages' first frames; "" subscribes to everything

	MaxMessage int // limit of the bytes of all frames of a message; 1 MiB if zero
	MaxFrames  int // limit of the frames of a message; 64 if zero

	HandshakeTimeout time.Duration // limit of dialling, and again of the handshake; 5 s if zero

	// If nothing is received for PingInterval, the publisher gets a ping. If then nothing is
	// received for Timeout, the connection is closed. So a dead or stalled publisher is
	// detected after the sum of both. Each is 5 s if zero; a negative PingInterval disables
	// pings. Timeout also limits each write, and the time in which the rest of a frame or
	// message must arrive.
	PingInterval, Timeout time.Duration

	// SilenceTimeout limits how long nothing may be received from a publisher that gets no
	// pings, because its ZMTP is 3.0 or PingInterval is negative. Zero is no limit, since
	// such a publisher may have nothing to publish for days. The time to live in a
	// publisher's own ping takes precedence.
	SilenceTimeout time.Duration

	// OnConnected, if not nil, is called each time the subscription is set. That is when the
	// publisher has answered a ping sent after the subscription, or, without pings, when the
	// subscription has been sent. libzmq answers pings and publishes from different threads,
	// so messages published within about the next millisecond may still be missed.
	OnConnected func()

	// BeforeDial, if not nil, is called before each attempt to connect, and blocks until the
	// attempt may begin. It must return when ctx ends. Release is called once the
	// subscription is set or the attempt has failed.
	BeforeDial func(ctx context.Context) (release func())

	// OnFailure, if not nil, is called by RunReconnecting with the error of each attempt and
	// each connection that failed. Unlike status, it is called for repeated errors, too.
	OnFailure func(error)

	// Dial, if not nil, replaces dialling over TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Run makes one connection and subscribes. It calls deliver with the frames of each message
// until ctx ends, which is no error, or the connection fails. While deliver runs, nothing
// is read and no ping is answered, so it must not block.
//
// The frames are valid during the call only. Messages up to 64 KiB are delivered without
// allocating. The publisher filters by topic: messages of other topics that it sends are
// delivered, too. A subscription to "a" includes "ab".
func (s *Sub) Run(ctx context.Context, deliver func(frames [][]byte)) error {
	err := s.run(ctx, deliver, s.callOnConnected)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// run is like Run, but always returns an error, even if ctx has ended.
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
	p := newPeer(s, conn) // not earlier, to save memory: thousands of attempts may fail to dial
	defer p.conn.Close()
	defer context.AfterFunc(ctx, func() { p.conn.Close() })()

	if err := p.shakeHands(); err != nil {
		return s.wrapError("handshake: ", err)
	}
	return s.wrapError("", p.receive(deliver, func() { release(); connected() }))
}

// receive subscribes, and delivers messages until there is an error.
func (p *peer) receive(deliver func(frames [][]byte), connected func()) error {
	if err := p.subscribe(p.sub.Topics); err != nil {
		return err
	}
	subscribed := !p.canPing
	if subscribed {
		connected()
	}
	for {
		frames, pong, err := p.nextMessage()
		if err != nil {
			return err
		}
		if !subscribed {
			subscribed = true
			connected()
		}
		if !pong {
			deliver(frames)
		}
	}
}

// validate returns the address to dial, or an error if no attempt can succeed.
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

// wrapError adds the publisher and the step to an error. It removes the addresses from
// errors of package net: they repeat the publisher's address and name the local port, which
// differs each time, so that equal errors would have different texts.
func (s *Sub) wrapError(step string, err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	switch err {
	case io.EOF:
		err = fmt.Errorf("closed by the peer: %w", err)
	case io.ErrUnexpectedEOF:
		err = fmt.Errorf("closed by the peer within a message or command: %w", err)
	}
	return fmt.Errorf("subscription at %s: %s%w", s.Address, step, err)
}
