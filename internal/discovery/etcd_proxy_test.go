package discovery

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// startGRPCProxy starts etcd's own grpc-proxy in front of a registry's etcd, and returns its
// endpoint. The proxy keeps its clients' connections while etcd is down.
func startGRPCProxy(t *testing.T, r *registry) string {
	t.Helper()
	ec := r.Stack.Client(t)
	kv, _ := grpcproxy.NewKvProxy(ec)
	watch, _ := grpcproxy.NewWatchProxy(ec.Ctx(), zap.NewNop(), ec)
	lease, _ := grpcproxy.NewLeaseProxy(ec.Ctx(), ec)
	server := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second})) // etcd's own value
	etcdserverpb.RegisterKVServer(server, kv)
	etcdserverpb.RegisterWatchServer(server, watch)
	etcdserverpb.RegisterLeaseServer(server, lease)
	return serveGRPC(t, server)
}

// serveGRPC serves gRPC until the test ends, and returns the address.
func serveGRPC(t *testing.T, server *grpc.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(l) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	return "http://" + l.Addr().String()
}

// silentGRPCServer accepts calls and never responds.
func silentGRPCServer(t *testing.T) string {
	t.Helper()
	return serveGRPC(t, grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, call grpc.ServerStream) error {
		<-call.Context().Done()
		return nil
	})))
}

// The registry is listed again although the connection to the proxy stays up.
func TestEtcdDataLossBehindProxy(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	for id := range uint64(5) {
		r.register(wire.LayoutV1, worker(1+id))
	}
	endpoint := startGRPCProxy(t, r)
	p := newEtcdAt(t, endpoint)
	log, out := testutil.NewLog()
	p.Log = log
	testutil.Start(t, p.Watch)
	r.Etcd = p
	r.waitRegistered(5, func(uint64) bool { return true })
	testutil.Until(t, func() error { return connected(p) })
	leader := newEtcdAt(t, endpoint)
	startHold(t, leader, true)
	devstacktest.WaitLeads(t, &leader.Fleet.Stats, true)

	r.StopEtcd()
	r.StartEmptyEtcd(t)
	testutil.Until(t, func() error {
		_, err := r.worker.Put(t.Context(), wire.LayoutV1.Key("dynamo", worker(9)), string(wire.LayoutV1.Value("dynamo", worker(9), "s")))
		return err
	})
	r.waitRegistered(9, func(id uint64) bool { return id == 9 })
	r.register(wire.LayoutV1, worker(7)) // to see that the watch works
	r.waitRegistered(9, func(id uint64) bool { return id == 9 || id == 7 })
	testutil.Until(t, func() error {
		got, err := r.worker.Get(t.Context(), wire.LeaderKey("dynamo"))
		if err == nil && len(got.Kvs) == 0 {
			err = errors.New("the leader's key was not put again")
		}
		return err
	})
	devstacktest.WaitLeads(t, &leader.Fleet.Stats, true)
	if n := p.Fleet.Stats.Etcd.Disconnects(); n == 0 && !strings.Contains(out.String(), "etcd has lost data") {
		t.Errorf("the log does not say why the registry was listed again:\n%s", out)
	}
}
