package devstack

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
)

// EtcdConfig configures an embedded etcd.
type EtcdConfig struct {
	Host string              // an IP address; default 127.0.0.1
	Port int                 // 0: a free one
	Dir  string              // empty: a temporary one, removed by Close
	Tune func(*embed.Config) // changes the configuration before the start; may be nil
}

// EtcdServer is an embedded etcd of one member.
type EtcdServer struct {
	etcd   *embed.Etcd
	grpc   *grpcServers
	config EtcdConfig
	scheme string
	remove func()
	closed sync.Once
}

// startTimeout limits how long a server may take to become ready.
const startTimeout = 30 * time.Second

// Etcd starts an etcd and returns when it serves.
func Etcd(c EtcdConfig) (*EtcdServer, error) {
	for {
		s, err := startEtcd(c)
		// etcd needs its port before it listens, so that another process may take the free
		// port first.
		if c.Port != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			return s, err
		}
	}
}

func startEtcd(c EtcdConfig) (*EtcdServer, error) {
	c.Host = cmp.Or(c.Host, "127.0.0.1")
	port, err := FreePort(c.Host, c.Port)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	dir, remove, err := dataDir(c.Dir, "devstack-etcd-")
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	c.Port = port
	s := &EtcdServer{grpc: &grpcServers{}, config: c, remove: remove}
	if err := s.start(dir); err != nil {
		s.Close()
		return nil, fmt.Errorf("start etcd on %s:%d: %w", c.Host, port, err)
	}
	return s, nil
}

func (s *EtcdServer) start(dir string) error {
	ec := s.config.embedded(dir)
	ec.ServiceRegister = s.grpc.add
	if s.config.Tune != nil {
		s.config.Tune(ec)
	}
	s.scheme = ec.ListenClientUrls[0].Scheme
	var err error
	if s.etcd, err = embed.StartEtcd(ec); err != nil {
		return err
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
		return nil
	case <-s.etcd.Server.StopNotify():
		return errors.New("the server stopped")
	case err := <-s.etcd.Err():
		return err
	case <-time.After(startTimeout):
		return fmt.Errorf("not ready after %v", startTimeout)
	}
}

// embedded returns the configuration of an etcd with one member whose data need not survive
// a power failure.
func (c EtcdConfig) embedded(dir string) *embed.Config {
	client := url.URL{Scheme: "http", Host: net.JoinHostPort(c.Host, fmt.Sprint(c.Port))}
	ec := embed.NewConfig()
	ec.Name = "devstack"
	ec.Dir = dir
	ec.ListenClientUrls = []url.URL{client}
	ec.AdvertiseClientUrls = []url.URL{client}

	// A single member has no peers. It listens for them on any free port, to avoid clashes.
	// The advertised address is only an identity in its data, and must stay the same across
	// restarts.
	ec.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	ec.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:2380"}}
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)

	// Most of etcd's start is the election, which takes a few of these ticks. Leases of
	// Dynamo's length are not affected: etcd only raises TTLs below 1.5 election timeouts.
	ec.TickMs = 10
	ec.ElectionMs = 100
	ec.UnsafeNoFsync = true
	ec.BcryptCost = 4 // the minimum, because these passwords protect nothing
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(crashLogger())
	return ec
}

// crashLogger returns a logger that only writes what etcd logs before it ends the process.
func crashLogger() *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), zapcore.DPanicLevel), zap.AddStacktrace(zapcore.DPanicLevel))
}

// Endpoint returns the address for clients of the server.
func (s *EtcdServer) Endpoint() string {
	return s.scheme + "://" + net.JoinHostPort(s.config.Host, fmt.Sprint(s.config.Port))
}

// Config returns the configuration of the server, with its actual port. A server that is started
// with it continues where this one stopped. It does not contain a temporary Dir, because Close
// removes that.
func (s *EtcdServer) Config() EtcdConfig { return s.config }

// Close closes the streams of clients, stops the server, and waits until its port is free.
func (s *EtcdServer) Close() {
	s.closed.Do(func() {
		s.grpc.stop()
		if s.etcd != nil {
			s.etcd.Close()
		}
		s.remove()
	})
}

// grpcServers are the gRPC servers inside an etcd. etcd's own Close waits five seconds for
// the streams of its clients (watches, lease renewals) to end. If the gRPC servers are
// stopped first, the streams end immediately, as when etcd is killed.
type grpcServers struct {
	mu  sync.Mutex
	all []*grpc.Server
}

func (g *grpcServers) add(s *grpc.Server) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, s)
}

func (g *grpcServers) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.all {
		s.Stop()
	}
}
