// Package memnet is a network in memory, for tests that hold the clock: unlike a real one
// it lets a synctest bubble know that everybody waits, so that hours pass in no time.
package memnet

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// Network has one listener, which it is itself.
type Network struct {
	conns chan net.Conn
	once  sync.Once

	Closed chan struct{} // closed with the listener
}

// New makes a network that listens.
func New() *Network {
	return &Network{conns: make(chan net.Conn), Closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (n *Network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.Closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (n *Network) Close() error {
	n.once.Do(func() { close(n.Closed) })
	return nil
}

// Addr implements net.Listener.
func (n *Network) Addr() net.Addr { return memAddr{} }

type memAddr struct{}

func (memAddr) Network() string { return "pipe" }
func (memAddr) String() string  { return "pipe" }

// Dial connects to the listener; once it is closed nobody is there.
func (n *Network) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case n.conns <- server:
		return client, nil
	case <-n.Closed:
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
