package discovery

import (
	"context"
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// instanceOf is another program on the same registry, which may stand by.
func (r *registry) instanceOf() *Etcd {
	other := *r.Etcd
	other.Client = r.Stack.Client(r.t)
	other.Fleet = fleet.New(fleet.Target{}, 10_000, true)
	other.Standby = true
	return &other
}

// leads waits until the program takes itself for the unique instance, or does not.
func leads(t *testing.T, e *Etcd, want bool) {
	t.Helper()
	devstacktest.Until(t, func() error {
		if got := e.Fleet.Tally.Unique.Load(); got != want {
			return fmt.Errorf("unique: %v, want %v", got, want)
		}
		return nil
	})
}

func hold(t *testing.T, e *Etcd) (stop func(), ended <-chan error) {
	return run(t, func(ctx context.Context) error { return e.Hold(ctx, []byte("{}")) })
}

func TestAStandbyTakesOverWhenTheLeaderEnds(t *testing.T) {
	r := newRegistry(t)
	first, second := r.instanceOf(), r.instanceOf()
	stop, _ := hold(t, first)
	leads(t, first, true)
	_, ended := hold(t, second)
	stop()
	leads(t, second, true)
	select {
	case err := <-ended:
		t.Errorf("the standby ended: %v", err)
	default:
	}
}

func TestALeaderWhoseLeaseIsLostLeadsAgainOrStandsBy(t *testing.T) {
	r := newRegistry(t)
	first, second := r.instanceOf(), r.instanceOf()
	hold(t, first)
	leads(t, first, true)
	hold(t, second)
	key, err := r.worker.Get(t.Context(), wire.UniqueInstanceKey("dynamo"))
	if err != nil || len(key.Kvs) != 1 {
		t.Fatalf("key: %v, %v", key, err)
	}
	lost := clientv3.LeaseID(key.Kvs[0].Lease)
	if _, err := r.worker.Revoke(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	devstacktest.Until(t, func() error {
		key, err := r.worker.Get(t.Context(), wire.UniqueInstanceKey("dynamo"))
		if err != nil || len(key.Kvs) != 1 || clientv3.LeaseID(key.Kvs[0].Lease) == lost {
			return fmt.Errorf("key: %v, %v", key, err)
		}
		if a, b := first.Fleet.Tally.Unique.Load(), second.Fleet.Tally.Unique.Load(); a == b {
			return fmt.Errorf("the first is unique: %v, the second: %v", a, b)
		}
		return nil
	})
}

func TestALeaderThatHearsNothingOfItsLeaseDoubtsIt(t *testing.T) {
	t.Parallel() // it takes eight seconds
	r := newRegistry(t)
	e := r.instanceOf()
	hold(t, e)
	leads(t, e, true)
	r.StopEtcd()
	leads(t, e, false)
	r.StartEtcd(t)
	leads(t, e, true)
}
