// Package devstacktest gives a test its own NATS server and etcd. It is separate from
// package devstack so that no program links package testing.
package devstacktest

import (
	"errors"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/testutil"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Stack is a NATS server and an etcd on free ports of 127.0.0.1, for one test. A test
// should close its connections to them in cleanups, because these run first.
type Stack struct {
	NATS *devstack.NATSServer
	Etcd *devstack.EtcdServer

	natsConfig devstack.NATSConfig
	etcdConfig devstack.EtcdConfig
	natsDown   bool
	etcdDown   bool
}

// Start starts both servers and closes them at the end of the test.
func Start(t testing.TB) *Stack {
	t.Helper()
	s := &Stack{
		natsConfig: devstack.NATSConfig{Dir: t.TempDir()},
		etcdConfig: devstack.EtcdConfig{Dir: t.TempDir()},
		natsDown:   true,
		etcdDown:   true,
	}
	t.Cleanup(func() { s.StopNATS(); s.StopEtcd() })
	s.StartNATS(t)
	s.StartEtcd(t)
	return s
}

// StopNATS stops the NATS server until StartNATS. Nothing reserves its port in between.
func (s *Stack) StopNATS() {
	if !s.natsDown {
		s.NATS.Close()
		s.natsDown = true
	}
}

// StartNATS starts the NATS server again on the same port with the same streams.
func (s *Stack) StartNATS(t testing.TB) {
	t.Helper()
	srv := StartWithRetry(t, func() (*devstack.NATSServer, error) { return devstack.NATS(s.natsConfig) })
	s.NATS, s.natsConfig, s.natsDown = srv, srv.Config(), false
}

// StartWithRetry starts a server, and tries again while its port is in use: another
// parallel test may have taken it while the server was down.
func StartWithRetry[S any](t testing.TB, start func() (S, error)) (server S) {
	t.Helper()
	testutil.Until(t, func() error {
		var err error
		server, err = start()
		if inUse := new(devstack.InUseError); err != nil && !errors.As(err, &inUse) {
			t.Fatal(err)
		}
		return err
	})
	return server
}

// StopEtcd stops etcd until StartEtcd or StartEmptyEtcd.
func (s *Stack) StopEtcd() {
	if !s.etcdDown {
		s.Etcd.Close()
		s.etcdDown = true
	}
}

// StartEtcd starts etcd again on the same port with the same keys and leases.
func (s *Stack) StartEtcd(t testing.TB) {
	t.Helper()
	srv := StartWithRetry(t, func() (*devstack.EtcdServer, error) { return devstack.Etcd(s.etcdConfig) })
	s.Etcd, s.etcdConfig, s.etcdDown = srv, srv.Config(), false
}

// StartEmptyEtcd starts etcd again on the same port, without any of its keys and leases.
func (s *Stack) StartEmptyEtcd(t testing.TB) {
	t.Helper()
	s.etcdConfig.Dir = t.TempDir()
	s.StartEtcd(t)
}

// Conn returns a connection to the NATS server. It survives restarts of the server, and is
// closed at the end of the test.
func (s *Stack) Conn(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.NATS.URL(), nats.MaxReconnects(-1), nats.Timeout(testutil.WaitTimeout), nats.ReconnectWait(20*time.Millisecond),
		nats.ReconnectJitter(0, 0), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// Client returns an etcd client. It survives restarts of the server, and is closed at the
// end of the test.
func (s *Stack) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	return EtcdClient(t, s.Etcd.Endpoint())
}

// EtcdClient returns a client like that of Client, for any etcd.
func EtcdClient(t testing.TB, endpoints ...string) *clientv3.Client {
	t.Helper()
	ec, err := clientv3.New(clientv3.Config{
		Endpoints:          endpoints,
		Logger:             zap.NewNop(),
		MaxCallSendMsgSize: 8 << 20,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1, MaxDelay: 20 * time.Millisecond},
			MinConnectTimeout: time.Second,
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ec.Close() })
	return ec
}
