package connect

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// What may wait in the client until it is handled, of all subscriptions together. A
// message that waits takes some 200 bytes beside its own.
const (
	maxPending      = 32 << 10
	maxPendingBytes = 16 << 20

	// longestHold is how long the connection is not read at most: the server takes a
	// client that reads nothing for a slow one, and cuts it off.
	maxReadPause = time.Second
)

// Subscribe subscribes on a connection that NATS made, and bounds what waits for its
// handler. nats.go reads on however far a handler is behind, until it drops messages.
// Here a connection whose handlers are behind is not read, and the server holds back
// those who publish. Only where that does not help messages are dropped, as
// Subscription.Dropped says: when twice as many wait.
func Subscribe(nc *nats.Conn, subject string, handler nats.MsgHandler) (*nats.Subscription, error) {
	s, err := nc.Subscribe(subject, handler)
	if err != nil {
		return nil, err
	}
	if f, ok := nc.Opts.CustomDialer.(*backpressureDialer); ok {
		f.add(s)
	}
	return s, s.SetPendingLimits(2*maxPending, 2*maxPendingBytes)
}

// flow makes the network connections of one NATS connection, which are read only while
// its subscriptions are not too far behind.
type backpressureDialer struct {
	net.Dialer
	reporter *connReporter

	mu            sync.Mutex
	subscriptions []*nats.Subscription
}

// Dial implements nats.CustomDialer.
func (f *backpressureDialer) Dial(network, address string) (net.Conn, error) {
	c, err := f.Dialer.Dial(network, address)
	if err != nil {
		f.reporter.dialErrors.add(err)
		return nil, err
	}
	return &throttledConn{c, f.overloaded}, nil
}

func (f *backpressureDialer) add(s *nats.Subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subscriptions = append(f.subscriptions, s)
}

// behind reports whether too much waits.
func (f *backpressureDialer) overloaded() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	messages, bytes := 0, 0
	f.subscriptions = slices.DeleteFunc(f.subscriptions, func(s *nats.Subscription) bool {
		m, b, err := s.Pending()
		messages, bytes = messages+m, bytes+b
		return err != nil // it has ended
	})
	return messages > maxPending || bytes > maxPendingBytes
}

// held is a connection that is read when the flow allows it.
type throttledConn struct {
	net.Conn
	overloaded func() bool
}

// Read implements net.Conn.
func (h *throttledConn) Read(b []byte) (int, error) {
	for begin := time.Now(); h.overloaded() && time.Since(begin) < maxReadPause; {
		time.Sleep(time.Millisecond) // in which a small part of what waits is handled
	}
	return h.Conn.Read(b)
}
