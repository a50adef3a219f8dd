package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/leader"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// registry is a registry on an embedded etcd, with a program's Etcd and a client for the workers.
type registry struct {
	*devstacktest.Stack
	*Etcd
	t      *testing.T
	worker *clientv3.Client
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	s := devstacktest.Start(t)
	return &registry{s, newEtcdAt(t, s.Etcd.Endpoint()), t, s.Client(t)}
}

// newEtcdAt returns a program's registry at a comma-separated list of endpoints. environment is
// pairs of names and values.
func newEtcdAt(t *testing.T, endpoints string, environment ...string) *Etcd {
	t.Helper()
	getenv := func(name string) string {
		for i := 0; i < len(environment); i += 2 {
			if environment[i] == name {
				return environment[i+1]
			}
		}
		return ""
	}
	log := slog.New(slog.DiscardHandler)
	e, err := connect.NewEtcdEndpoints(endpoints, getenv, log)
	if err != nil {
		t.Fatal(err)
	}
	f := fleet.New(fleet.Target{}, 10_000, true)
	f.Stats.Etcd.MarkUsed()
	return &Etcd{Endpoints: e, Namespaces: "dynamo", Fleet: f, Log: log}
}

// startHold starts a program that competes for the leader's key.
func startHold(t *testing.T, r *Etcd, standby bool) (stop func(), ended <-chan error) {
	return testutil.Start(t, func(ctx context.Context) error { return keyOf(r).Hold(ctx, []byte("{}"), standby) })
}

// keyOf returns the leader's key at the etcd of a registry.
func keyOf(r *Etcd) *leader.EtcdKey {
	return &leader.EtcdKey{Endpoints: r.Endpoints, Namespaces: r.Namespaces, Stats: &r.Fleet.Stats, Log: r.Log, Lost: r.RequestRelist}
}

// put puts a key. It retries, because an etcd on a busy machine may time out on a large value.
func (r *registry) put(key, value string) {
	r.t.Helper()
	testutil.Until(r.t, func() error {
		_, err := r.worker.Put(r.t.Context(), key, value)
		if err != nil && !errors.Is(err, rpctypes.ErrTimeout) {
			r.t.Fatal(err)
		}
		return err
	})
}

func (r *registry) register(l wire.Layout, in fleet.Instance) {
	r.t.Helper()
	r.put(l.Key("dynamo", in), string(l.Value("dynamo", in, "s")))
}

func worker(id uint64) fleet.Instance {
	return fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: id}
}

// waitRegistered waits until exactly these workers of c/e are registered, among the ids up to most.
func (r *registry) waitRegistered(most uint64, want func(id uint64) bool) {
	r.t.Helper()
	testutil.Until(r.t, func() error {
		for id := uint64(1); id <= most; id++ {
			if got := r.Fleet.IsRegistered(worker(id)); got != want(id) {
				return fmt.Errorf("worker %d registered: %v, want %v", id, got, want(id))
			}
		}
		return nil
	})
}

// registerMany registers the workers of c/e with the ids 1 to most.
func (r *registry) registerMany(most uint64) {
	r.t.Helper()
	for from := uint64(1); from <= most; from += 100 { // a transaction takes 128 operations at most
		var puts []clientv3.Op
		for id := from; id < from+100 && id <= most; id++ {
			puts = append(puts, clientv3.OpPut(wire.LayoutInstances.Key("dynamo", worker(id)),
				string(wire.LayoutInstances.Value("dynamo", worker(id), "s"))))
		}
		if _, err := r.worker.Txn(r.t.Context()).Then(puts...).Commit(); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestEtcdListsSeveralPages(t *testing.T) {
	r := newRegistry(t)
	const workers = 2*pageSize + 10
	r.registerMany(workers)
	testutil.Start(t, r.Watch)
	r.waitRegistered(workers, func(uint64) bool { return true })
}

func TestEtcdWatchesEveryLayout(t *testing.T) {
	r := newRegistry(t)
	testutil.Start(t, r.Watch)
	for i, l := range wire.Layouts {
		r.register(l, worker(uint64(i+1)))
	}
	r.waitRegistered(3, func(uint64) bool { return true })
	for i, l := range wire.Layouts {
		r.delete(l.Key("dynamo", worker(uint64(i+1))))
	}
	r.waitRegistered(3, func(uint64) bool { return false })
}

func TestEtcdCountsGarbageByReason(t *testing.T) {
	r := newRegistry(t)
	testutil.Start(t, r.Watch)
	good := string(wire.LayoutInstances.Value("dynamo", worker(1), "s"))
	r.put("instances/dynamo/c/e:1", "garbage")
	r.put("instances/dynamo/c/e:2", good)
	r.put("instances/dynamo/c/e:zz", good)
	r.put("dynamo/components/nothing", "")
	r.put(wire.LeaderKey("dynamo"), "{}") // the leader's key is not garbage
	r.register(wire.LayoutInstances, worker(3))
	r.waitRegistered(3, func(id uint64) bool { return id == 3 })
	st := &r.Fleet.Stats
	for reason, want := range map[stats.Reason]uint64{stats.BadJSON: 1, stats.BadID: 1, stats.BadName: 2} {
		testutil.Until(t, func() error { // the layouts have separate watches without a common order
			if got := st.Rejected(stats.InstanceKeys, reason); got != want {
				return fmt.Errorf("%d rejected for %s, want %d", got, reason, want)
			}
			return nil
		})
	}
}
