package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// registry is a registry of the program's on an embedded etcd.
type registry struct {
	*devstacktest.Stack
	*Etcd
	t      *testing.T
	worker *clientv3.Client
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	s := devstacktest.Start(t)
	return &registry{s, &Etcd{
		Client:     s.Client(t),
		Namespaces: "dynamo",
		Fleet:      fleet.New(fleet.Target{}, 10_000, true),
		Log:        slog.New(slog.DiscardHandler),
	}, t, s.Client(t)}
}

// run lets loop work until stop is called, or the test ends, and hands on its error.
func run(t *testing.T, loop func(context.Context) error) (stop func(), ended <-chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { result <- loop(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return cancel, result
}

func (r *registry) put(key, value string) {
	r.t.Helper()
	if _, err := r.worker.Put(r.t.Context(), key, value); err != nil {
		r.t.Fatal(err)
	}
}

func (r *registry) register(l wire.Layout, in fleet.Instance) {
	r.t.Helper()
	r.put(l.Key("dynamo", in), string(l.Value("dynamo", in, "s")))
}

func worker(id uint64) fleet.Instance {
	return fleet.Instance{Endpoint: fleet.Endpoint{Component: "c", Name: "e"}, ID: id}
}

// has waits until exactly these workers of c/e, of those with ids up to most, are registered.
func (r *registry) has(most uint64, want func(id uint64) bool) {
	r.t.Helper()
	devstacktest.Until(r.t, func() error {
		for id := uint64(1); id <= most; id++ {
			if got := r.Fleet.IsRegistered(worker(id)); got != want(id) {
				return fmt.Errorf("worker %d registered: %v, want %v", id, got, want(id))
			}
		}
		return nil
	})
}

func TestMoreWorkersThanAPageHolds(t *testing.T) {
	r := newRegistry(t)
	const workers = 2*pageSize + 10
	for from := uint64(1); from <= workers; from += 100 { // a transaction takes 128 operations
		var puts []clientv3.Op
		for id := from; id < from+100 && id <= workers; id++ {
			puts = append(puts, clientv3.OpPut(wire.LayoutInstances.Key("dynamo", worker(id)),
				string(wire.LayoutInstances.Value("dynamo", worker(id), "s"))))
		}
		if _, err := r.worker.Txn(t.Context()).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	run(t, r.Watch)
	r.has(workers, func(uint64) bool { return true })
}

func TestEveryLayoutIsFollowed(t *testing.T) {
	r := newRegistry(t)
	run(t, r.Watch)
	for i, l := range wire.Layouts {
		r.register(l, worker(uint64(i+1)))
	}
	r.has(3, func(uint64) bool { return true })
	for i, l := range wire.Layouts {
		r.delete(l.Key("dynamo", worker(uint64(i+1))))
	}
	r.has(3, func(uint64) bool { return false })
}

func TestGarbageIsCountedByReasonAndRegistersNobody(t *testing.T) {
	r := newRegistry(t)
	run(t, r.Watch)
	good := string(wire.LayoutInstances.Value("dynamo", worker(1), "s"))
	r.put("instances/dynamo/c/e:1", "garbage")
	r.put("instances/dynamo/c/e:2", good)
	r.put("instances/dynamo/c/e:zz", good)
	r.put("dynamo/components/nothing", "")
	r.put(wire.UniqueInstanceKey("dynamo"), "{}") // ours: no garbage
	r.register(wire.LayoutInstances, worker(3))
	r.has(3, func(id uint64) bool { return id == 3 })
	tally := &r.Fleet.Tally
	for reason, want := range map[fleet.Reason]uint64{fleet.BadJSON: 1, fleet.BadID: 1, fleet.BadName: 2} {
		devstacktest.Until(t, func() error { // the layouts are watched apart, in no common order
			if got := tally.Rejected(fleet.Instances, reason); got != want {
				return fmt.Errorf("%d rejected for %s, want %d", got, reason, want)
			}
			return nil
		})
	}
}

func TestHoldRefusesASecondAndGivesTheKeyBack(t *testing.T) {
	r := newRegistry(t)
	stop, ended := run(t, func(ctx context.Context) error { return r.Hold(ctx, []byte(`{"component_name": "a"}`)) })
	devstacktest.Until(t, func() error {
		if !r.Fleet.Tally.Leader.Load() {
			return errors.New("does not hold the key")
		}
		return nil
	})
	key := wire.UniqueInstanceKey("dynamo")
	got, err := r.worker.Get(t.Context(), key)
	if err != nil || len(got.Kvs) != 1 || got.Kvs[0].Lease == 0 || string(got.Kvs[0].Value) != `{"component_name": "a"}` {
		t.Fatalf("key: %v, %v; want the value, on a lease", got, err)
	}
	second := *r.Etcd
	err = second.Hold(t.Context(), []byte("{}"))
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), `"component_name": "a"`) {
		t.Errorf("the second got %v, want ErrExists with key and value", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	got, err = r.worker.Get(t.Context(), key)
	if err != nil || len(got.Kvs) != 0 {
		t.Errorf("after the end: %v, %v; want no key", got, err)
	}
	leases, err := r.worker.Leases(t.Context())
	if err != nil || len(leases.Leases) != 0 {
		t.Errorf("leases left behind: %v, %v", leases, err)
	}
}

func TestOurOwnOldKeyIsNoOtherInstance(t *testing.T) {
	// The answer to an attempt may be lost after etcd has carried it out: then the
	// key hangs on a lease of ours.
	r := newRegistry(t)
	k := r.place([]byte("{}"))
	if err := k.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.take(t.Context()); err != nil {
		t.Errorf("with the same lease: %v", err)
	}
	k.lease = 0
	u := unique{place: k, tally: &r.Fleet.Tally, log: r.Log}
	if err := u.acquire(t.Context()); err != nil {
		t.Errorf("with a new lease: %v", err)
	}
	if len(k.leases) != 1 {
		t.Errorf("leases %v, want only the new one", k.leases)
	}
}
