//go:build real

package real

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// servers are what a fleet connects to: a nats-server and an etcd, with the test's own
// connections to them, or a directory. What the fleet does not use is empty.
type servers struct {
	t                *testing.T
	natsURL, etcdURL string
	nats             *nats.Conn
	etcd             *clientv3.Client
	etcdFlags        []string // in addition to the addresses to listen on
	files            string   // the directory of file discovery
	kube             *cluster
}

// startServers starts Debian's nats-server and etcd.
func startServers(t *testing.T) *servers {
	t.Helper()
	s := &servers{t: t}
	s.startNATS(debianNATSServer(t))
	s.startEtcd()
	return s
}

// startNATS starts a nats-server. Workers from 0.5.1 on need JetStream.
func (s *servers) startNATS(path string) {
	s.t.Helper()
	n := process.Start(s.t, nil, path, "-a", "127.0.0.1", "-p", "-1", "-js", "-sd", s.t.TempDir())
	s.natsURL = "nats://" + n.WaitForLine("Listening for client connections on ")
	n.WaitForLine("Server is ready")
	nc, err := nats.Connect(s.natsURL, nats.Timeout(testutil.WaitTimeout))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	s.nats = nc
}

// startEtcd starts Debian's etcd.
func (s *servers) startEtcd() {
	s.t.Helper()
	s.etcdURL = "http://" + process.FreeAddress(s.t)
	peers := "http://" + process.FreeAddress(s.t)
	process.Start(s.t, nil, process.Installed(s.t, "etcd", "etcd-server"), append(s.etcdFlags,
		"--data-dir", filepath.Join(s.t.TempDir(), "etcd"), "--logger", "zap", "--log-level", "warn",
		"--listen-client-urls", s.etcdURL, "--advertise-client-urls", s.etcdURL,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default="+peers)...)
	waitUntilServing(s.t, s.etcdURL+"/health")
	ec, err := clientv3.New(clientv3.Config{
		Endpoints: []string{s.etcdURL}, DialTimeout: testutil.WaitTimeout, Logger: zap.NewNop(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { ec.Close() })
	s.etcd = ec
}

// debianNATSServer returns the path of Debian's nats-server.
func debianNATSServer(t *testing.T) string {
	t.Helper()
	return process.Installed(t, "nats-server", "nats-server")
}

// env returns the variables with the addresses of the servers. Without a NATS server it has
// no address of one, because a worker would wait for it.
func (s *servers) env() (env []string) {
	if s.natsURL != "" {
		env = append(env, "NATS_SERVER="+s.natsURL)
	}
	if s.etcdURL != "" {
		env = append(env, "ETCD_ENDPOINTS="+s.etcdURL)
	}
	if s.files != "" {
		env = append(env, "DYN_DISCOVERY_BACKEND=file", "DYN_FILE_KV="+s.files)
	}
	if s.kube != nil {
		env = append(env, s.kube.env()...)
	}
	return env
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

// publishHit publishes a hit-rate event, as the KV router of the namespace does.
func (s *servers) publishHit(worker uint64, isl, overlap int) {
	s.t.Helper()
	event := fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, worker, isl, overlap)
	if err := s.nats.Publish("namespace.dynamo.kv-hit-rate", event); err != nil {
		s.t.Fatal(err)
	}
	if err := s.nats.FlushTimeout(10 * time.Second); err != nil {
		s.t.Fatal(err)
	}
}
