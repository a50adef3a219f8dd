//go:build real

package real

import (
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/devstack/devstacktest"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// servers are a nats-server and an etcd of Debian's, and the test's own connections
// to them.
type servers struct {
	t                *testing.T
	natsURL, etcdURL string
	nats             *nats.Conn
	etcd             *clientv3.Client
}

func startServers(t *testing.T) *servers {
	t.Helper()
	s := &servers{t: t}
	natsServer := installed(t, "nats-server", "nats-server")
	etcd := installed(t, "etcd", "etcd-server")
	dir := t.TempDir()

	// Workers of 0.5.1 need JetStream.
	n := process.Start(t, nil, natsServer, "-a", "127.0.0.1", "-p", "-1", "-js", "-sd", filepath.Join(dir, "jetstream"))
	s.etcdURL = "http://" + freeAddress(t)
	peers := "http://" + freeAddress(t)
	process.Start(t, nil, etcd, "--data-dir", filepath.Join(dir, "etcd"), "--logger", "zap", "--log-level", "warn",
		"--listen-client-urls", s.etcdURL, "--advertise-client-urls", s.etcdURL,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default="+peers)
	s.natsURL = "nats://" + n.Says("Listening for client connections on ")
	n.Says("Server is ready")
	answers(t, s.etcdURL+"/health")
	s.connect()
	return s
}

// connect opens the test's own connections.
func (s *servers) connect() {
	s.t.Helper()
	nc, err := nats.Connect(s.natsURL)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	ec, err := clientv3.New(clientv3.Config{
		Endpoints: []string{s.etcdURL}, DialTimeout: devstacktest.Patience, Logger: zap.NewNop(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { ec.Close() })
	s.nats, s.etcd = nc, ec
}

// env tells programs where the servers are.
func (s *servers) env() []string {
	return []string{"NATS_SERVER=" + s.natsURL, "ETCD_ENDPOINTS=" + s.etcdURL}
}

// registered reports whether etcd has the key.
func (s *servers) registered(key string) bool {
	s.t.Helper()
	found, err := s.etcd.Get(s.t.Context(), key, clientv3.WithCountOnly())
	if err != nil {
		s.t.Fatal(err)
	}
	return found.Count > 0
}

// hit publishes a hit-rate event, as the KV router of the namespace does.
func (s *servers) hit(worker uint64, isl, overlap int) {
	s.t.Helper()
	event := fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, worker, isl, overlap)
	if err := s.nats.Publish("namespace.dynamo.kv-hit-rate", event); err != nil {
		s.t.Fatal(err)
	}
	if err := s.nats.FlushTimeout(10 * time.Second); err != nil {
		s.t.Fatal(err)
	}
}

// ports are those that freeAddress has given out.
var ports = struct {
	sync.Mutex
	given map[int]bool
}{given: make(map[int]bool)}

// freeAddress is a loopback address that nobody listens on. Its port is below those
// that the kernel gives to clients, so that none takes it while its server is down.
func freeAddress(t *testing.T) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		port := 15000 + rand.IntN(15000)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if ports.given[port] {
			continue
		}
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			ports.given[port] = true
			return address
		}
	}
	t.Fatal("no free port found")
	return ""
}
