package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// another is another program on the same registry.
func (r *registry) newProgram() *Etcd {
	r.t.Helper()
	return newEtcdAt(r.t, r.Stack.Etcd.Endpoint())
}

// leads waits until the program takes itself for the unique instance, or does not.
func waitLeads(t *testing.T, e *Etcd, want bool) {
	t.Helper()
	testutil.Until(t, func() error {
		if got := e.Fleet.Stats.ActsAsLeader.Load(); got != want {
			return fmt.Errorf("unique: %v, want %v", got, want)
		}
		return nil
	})
}

// leading are those of the programs that take themselves for the only one, as two looks at all
// of them agree: between the looks at two programs one may have handed over to the other.
func leadersOf(programs []*Etcd) (now []int) {
	for range 2 {
		before := now
		now = nil
		for i, p := range programs {
			if p.Fleet.Stats.ActsAsLeader.Load() && (before == nil || slices.Contains(before, i)) {
				now = append(now, i)
			}
		}
	}
	return now
}

// reigns looks at two programs all the time: never do both take themselves for the only one.
// It returns how to see who has been that, in their order.
func watchLeaders(t *testing.T, programs ...*Etcd) (order func() []int) {
	t.Helper()
	var mu sync.Mutex
	var all []int
	start(t, func(ctx context.Context) error {
		for ctx.Err() == nil {
			now := leadersOf(programs)
			if len(now) > 1 {
				t.Errorf("the programs %v lead at once", now)
				return nil
			}
			mu.Lock()
			if len(now) == 1 && (len(all) == 0 || all[len(all)-1] != now[0]) {
				all = append(all, now[0])
			}
			mu.Unlock()
			backoff.Wait(ctx, time.Millisecond)
		}
		return nil
	})
	return func() []int { mu.Lock(); defer mu.Unlock(); return slices.Clone(all) }
}

func TestEtcdLockStandbyTakesOver(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	first, second := r.newProgram(), r.newProgram()
	watchLeaders(t, first, second)
	stop, _ := startHold(t, first, true)
	waitLeads(t, first, true)
	stopSecond, ended := startHold(t, second, true)
	testutil.Until(t, func() error {
		if !second.Fleet.Stats.OtherLeader.Load() {
			return errors.New("it does not stand by")
		}
		return nil
	})
	stop()
	waitLeads(t, second, true)
	select {
	case err := <-ended:
		t.Errorf("the standby ended: %v", err)
	default:
	}
	stopSecond()
	<-ended
	for _, p := range []*Etcd{first, second} {
		if n := p.Fleet.Stats.Failures(stats.PeerEtcd); n > 0 {
			t.Errorf("%d calls are counted as failed, where none was", n)
		}
	}
}

func TestEtcdLockStopsWhileEtcdIsDown(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	e := r.newProgram()
	startHold(t, e, true)
	waitLeads(t, e, true)
	r.StopEtcd()
	waitLeads(t, e, false)
	r.StartEtcd(t)
	waitLeads(t, e, true)
}

// losses are ways to lose the key, though the lease may live and the connection stands.
var losses = map[string]func(r *registry, key string) error{
	"the key is deleted": func(r *registry, key string) error {
		_, err := r.worker.Delete(r.t.Context(), key)
		return err
	},
	"everything is deleted": func(r *registry, _ string) error {
		_, err := r.worker.Delete(r.t.Context(), "", clientv3.WithPrefix())
		return err
	},
	"another lease has it, and ends": func(r *registry, key string) error {
		lease, err := r.worker.Grant(r.t.Context(), 60)
		if err == nil {
			_, err = r.worker.Put(r.t.Context(), key, "{}", clientv3.WithLease(lease.ID))
		}
		if err == nil {
			_, err = r.worker.Revoke(r.t.Context(), lease.ID)
		}
		return err
	},
	"it is put by hand, and deleted": func(r *registry, key string) error {
		_, err := r.worker.Put(r.t.Context(), key, "{}")
		if err == nil {
			_, err = r.worker.Delete(r.t.Context(), key)
		}
		return err
	},
	"its value is changed on its lease": func(r *registry, key string) error {
		_, err := r.worker.Put(r.t.Context(), key, "{}", clientv3.WithIgnoreLease())
		return err
	},
	"the lease is revoked": func(r *registry, key string) error {
		got, err := r.worker.Get(r.t.Context(), key)
		if err == nil {
			_, err = r.worker.Revoke(r.t.Context(), clientv3.LeaseID(got.Kvs[0].Lease))
		}
		return err
	},
}

// TestEtcdLockOneLeadsAfterLoss of a pair that stands by for each other.
func TestEtcdLockOneLeadsAfterLoss(t *testing.T) {
	t.Parallel()
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			pair := [2]*Etcd{r.newProgram(), r.newProgram()}
			order := watchLeaders(t, pair[:]...)
			for _, p := range pair {
				startHold(t, p, true)
			}
			leader, other := waitOneLeads(t, pair[0], pair[1])
			if err := lose(r, wire.LeaderKey("dynamo")); err != nil {
				t.Fatal(err)
			}
			waitLeads(t, leader, false)
			waitOneLeads(t, leader, other)
			if n := len(order()); n > 2 {
				t.Errorf("%v have led one after the other, want one more at most", order())
			}
		})
	}
}

// TestEtcdLockWithoutStandbyLeadsAgain where it finds the key free.
func TestEtcdLockWithoutStandbyLeadsAgain(t *testing.T) {
	t.Parallel()
	for name, lose := range losses {
		if strings.HasPrefix(name, "another") || strings.HasPrefix(name, "it is put") {
			continue // for a moment the key is another program's
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			p := r.newProgram()
			_, ended := startHold(t, p, false)
			waitLeads(t, p, true)
			if err := lose(r, wire.LeaderKey("dynamo")); err != nil {
				t.Fatal(err)
			}
			waitLeads(t, p, false)
			waitLeads(t, p, true)
			select {
			case err := <-ended:
				t.Errorf("it ended: %v", err)
			default:
			}
		})
	}
}

// TestEtcdLockWithoutStandbyEndsWhenTaken though its own lease lives.
func TestEtcdLockWithoutStandbyEndsWhenTaken(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	p := r.newProgram()
	_, ended := startHold(t, p, false)
	waitLeads(t, p, true)
	lease, err := r.worker.Grant(t.Context(), 60)
	if err == nil {
		_, err = r.worker.Put(t.Context(), wire.LeaderKey("dynamo"), "{}", clientv3.WithLease(lease.ID))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrExists) || p.Fleet.Stats.ActsAsLeader.Load() || p.Fleet.Stats.Leader.Load() {
		t.Errorf("it ended with %v", err)
	}
}
