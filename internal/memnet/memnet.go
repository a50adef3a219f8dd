// Package memnet is an in-memory network for tests with a fake clock. A synctest bubble can tell
// that all goroutines are blocked, which it cannot with real sockets, and advances its clock at once.
package memnet

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// Network is a network with one listener: the Network itself.
type Network struct {
	conns chan net.Conn
	once  sync.Once

	Closed chan struct{} // closed by Close
}

// New returns a network that listens.
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

// Dial connects to the listener. After Close the connection is refused.
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
