package connect

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// maxPending and maxPendingBytes bound what waits for the handlers of all subscriptions of a
	// connection. A waiting message takes some 200 bytes in addition to its own.
	maxPending      = 32 << 10
	maxPendingBytes = 16 << 20

	// maxReadPause is the longest time for which the connection is not read. A server disconnects
	// a client that reads nothing, as a slow consumer.
	maxReadPause = time.Second
)

// Subscribe subscribes on a connection that DialNATS or RunNATS made, and bounds what waits for
// its handler. nats.go itself continues to read however far a handler is behind, and then drops
// messages. Here a connection whose handlers are behind is not read, so that the server slows down
// the publishers. Messages are dropped only if that does not help and twice as many wait.
// Subscription.Dropped counts them.
func Subscribe(nc *nats.Conn, subject string, handler nats.MsgHandler) (*nats.Subscription, error) {
	s, err := nc.Subscribe(subject, handler)
	if err != nil {
		return nil, err
	}
	if d, ok := nc.Opts.CustomDialer.(*backpressureDialer); ok {
		d.add(s)
	}
	return s, s.SetPendingLimits(2*maxPending, 2*maxPendingBytes)
}

// backpressureDialer makes the network connections of one NATS connection, which are read only
// while its subscriptions are not too far behind.
type backpressureDialer struct {
	net.Dialer
	reporter *connReporter

	mu            sync.Mutex
	subscriptions []*nats.Subscription
}

// Dial implements nats.CustomDialer.
func (d *backpressureDialer) Dial(network, address string) (net.Conn, error) {
	c, err := d.Dialer.Dial(network, address)
	if err != nil {
		d.reporter.dialErrors.add(err)
		return nil, err
	}
	return &throttledConn{c, d.overloaded}, nil
}

func (d *backpressureDialer) add(s *nats.Subscription) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.subscriptions = append(d.subscriptions, s)
}

// overloaded reports whether too much is waiting for the handlers.
func (d *backpressureDialer) overloaded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	messages, bytes := 0, 0
	d.subscriptions = slices.DeleteFunc(d.subscriptions, func(s *nats.Subscription) bool {
		m, b, err := s.Pending()
		messages, bytes = messages+m, bytes+b
		return err != nil // the subscription has ended
	})
	return messages > maxPending || bytes > maxPendingBytes
}

// throttledConn is a connection that is not read while its subscriptions are too far behind.
type throttledConn struct {
	net.Conn
	overloaded func() bool
}

// Read implements net.Conn.
func (c *throttledConn) Read(b []byte) (int, error) {
	for begin := time.Now(); c.overloaded() && time.Since(begin) < maxReadPause; {
		time.Sleep(time.Millisecond) // short: meanwhile only a small part of the waiting messages is handled
	}
	return c.Conn.Read(b)
}
