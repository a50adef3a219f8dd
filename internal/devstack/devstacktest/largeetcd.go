package devstacktest

import (
	"testing"
	"time"

	"dynamo-metrics/internal/devstack"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// LargeEtcd starts an etcd that accepts requests of this many bytes, and a client that can send
// them. The etcd gives up a request after 5 s plus twice the time in election, and takes up to
// twice that time to start.
func LargeEtcd(t testing.TB, bytes int, election time.Duration) (*Stack, *clientv3.Client) {
	t.Helper()
	s, err := devstack.Etcd(devstack.EtcdConfig{Dir: t.TempDir(), Tune: func(c *embed.Config) {
		c.MaxRequestBytes = uint(bytes)
		c.ElectionMs = uint(election.Milliseconds())
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	ec, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, MaxCallSendMsgSize: bytes + 4<<20, MaxCallRecvMsgSize: 100 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ec.Close() })
	return &Stack{Etcd: s}, ec
}
