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

// EtcdConfig says where an embedded etcd listens and keeps its data.
type EtcdConfig struct {
	Host string              // an IP address; default 127.0.0.1
	Port int                 // 0: a free one
	Dir  string              // empty: a temporary one, removed by Close
	Tune func(*embed.Config) // last word on the configuration; may be nil
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

// startTimeout bounds the wait for a server that never gets ready.
const startTimeout = 30 * time.Second

// Etcd starts an etcd and returns once it serves.
func Etcd(c EtcdConfig) (*EtcdServer, error) {
	for {
		s, err := startEtcd(c)
		// etcd must know its port before it listens: somebody may take the free
		// one first.
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
		return errors.New("it stopped")
	case err := <-s.etcd.Err():
		return err
	case <-time.After(startTimeout):
		return fmt.Errorf("not ready after %v", startTimeout)
	}
}

// embedded is the configuration of an etcd of one member that nobody needs to
// survive a power cut.
func (c EtcdConfig) embedded(dir string) *embed.Config {
	client := url.URL{Scheme: "http", Host: net.JoinHostPort(c.Host, fmt.Sprint(c.Port))}
	ec := embed.NewConfig()
	ec.Name = "devstack"
	ec.Dir = dir
	ec.ListenClientUrls = []url.URL{client}
	ec.AdvertiseClientUrls = []url.URL{client}

	// A lone member has no peers: it listens on any free port, so that it can clash
	// with nobody, and what it advertises is a name in its data that must only
	// stay the same over restarts.
	ec.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	ec.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:2380"}}
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)

	// The election is most of etcd's start, and lasts a few of these ticks. Leases
	// keep their meaning: etcd raises their TTL only to 1.5 election timeouts.
	ec.TickMs = 10
	ec.ElectionMs = 100
	ec.UnsafeNoFsync = true
	ec.BcryptCost = 4 // the least: passwords here guard nothing
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(crashLogger())
	return ec
}

// lastWords is a logger that writes nothing but what an etcd says before it ends the
// process that it is embedded in.
func crashLogger() *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), zapcore.DPanicLevel), zap.AddStacktrace(zapcore.DPanicLevel))
}

// Endpoint is what a client of the server connects to.
func (s *EtcdServer) Endpoint() string {
	return s.scheme + "://" + net.JoinHostPort(s.config.Host, fmt.Sprint(s.config.Port))
}

// Config is what the server was started with, with its real port: the same again
// restarts it. A temporary Dir is not in it, for Close has removed it by then.
func (s *EtcdServer) Config() EtcdConfig { return s.config }

// Close ends the server, cutting its clients' streams, and waits until its port is
// free again.
func (s *EtcdServer) Close() {
	s.closed.Do(func() {
		s.grpc.stop()
		if s.etcd != nil {
			s.etcd.Close()
		}
		s.remove()
	})
}

// grpcServers are the gRPC servers inside an etcd. etcd's own Close waits five
// seconds for the streams of its clients (watches, lease renewals) to end by
// themselves; stopped first, they end at once, as with a killed etcd.
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
