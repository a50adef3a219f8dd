package leader

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// etcdTest is an etcd server with a client. Programs compete for the leader's key in it.
type etcdTest struct {
	*devstacktest.Stack
	t      *testing.T
	client *clientv3.Client
}

func newEtcdTest(t *testing.T) *etcdTest {
	t.Helper()
	s := devstacktest.Start(t)
	return &etcdTest{s, t, s.Client(t)}
}

// newProgram returns another program that competes for the key.
func (e *etcdTest) newProgram() *EtcdKey {
	e.t.Helper()
	log := slog.New(slog.DiscardHandler)
	endpoints, err := connect.NewEtcdEndpoints(e.Etcd.Endpoint(), func(string) string { return "" }, log)
	if err != nil {
		e.t.Fatal(err)
	}
	st := new(stats.Stats)
	st.Etcd.MarkUsed()
	return &EtcdKey{Endpoints: endpoints, Namespaces: "dynamo", Stats: st, Log: log}
}

// put puts a key. It retries, because an etcd on a busy machine may time out on a large value.
func (e *etcdTest) put(key, value string) {
	e.t.Helper()
	testutil.Until(e.t, func() error {
		_, err := e.client.Put(e.t.Context(), key, value)
		if err != nil && !errors.Is(err, rpctypes.ErrTimeout) {
			e.t.Fatal(err)
		}
		return err
	})
}

func (e *etcdTest) delete(key string) {
	e.t.Helper()
	if _, err := e.client.Delete(e.t.Context(), key); err != nil {
		e.t.Fatal(err)
	}
}

// newLargeEtcdTest returns an etcdTest whose server accepts requests of 16 MiB.
func newLargeEtcdTest(t *testing.T) *etcdTest {
	t.Helper()
	s, client := devstacktest.LargeEtcd(t, 16<<20, 100*time.Millisecond)
	return &etcdTest{s, t, client}
}

// startHold starts a program's Hold.
func startHold(t *testing.T, k *EtcdKey, standby bool) (stop func(), ended <-chan error) {
	return testutil.Start(t, func(ctx context.Context) error { return k.Hold(ctx, []byte(`{"component_name": "a"}`), standby) })
}
