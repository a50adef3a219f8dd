package leader

import (
	"errors"
	"strings"
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestEtcdLockStandbyTakesOver(t *testing.T) {
	t.Parallel()
	r := newEtcdTest(t)
	first, second := r.newProgram(), r.newProgram()
	devstacktest.WatchLeaders(t, first.Stats, second.Stats)
	stop, _ := startHold(t, first, true)
	devstacktest.WaitLeads(t, first.Stats, true)
	stopSecond, ended := startHold(t, second, true)
	testutil.Until(t, func() error {
		if !second.Stats.OtherLeader.Load() {
			return errors.New("the program does not stand by")
		}
		return nil
	})
	stop()
	devstacktest.WaitLeads(t, second.Stats, true)
	select {
	case err := <-ended:
		t.Errorf("the standby ended: %v", err)
	default:
	}
	stopSecond()
	<-ended
	for _, p := range []*EtcdKey{first, second} {
		if n := p.Stats.Failures(stats.PeerEtcd); n > 0 {
			t.Errorf("%d calls are counted as failed, want none", n)
		}
	}
}

func TestEtcdLockStopsWhileEtcdIsDown(t *testing.T) {
	t.Parallel()
	r := newEtcdTest(t)
	e := r.newProgram()
	startHold(t, e, true)
	devstacktest.WaitLeads(t, e.Stats, true)
	r.StopEtcd()
	devstacktest.WaitLeads(t, e.Stats, false)
	r.StartEtcd(t)
	devstacktest.WaitLeads(t, e.Stats, true)
}

// losses are ways to lose the key while the connection, and perhaps the lease, is alive.
var losses = map[string]func(r *etcdTest, key string) error{
	"the key is deleted": func(r *etcdTest, key string) error {
		_, err := r.client.Delete(r.t.Context(), key)
		return err
	},
	"everything is deleted": func(r *etcdTest, _ string) error {
		_, err := r.client.Delete(r.t.Context(), "", clientv3.WithPrefix())
		return err
	},
	"another program puts it on a lease that ends": func(r *etcdTest, key string) error {
		lease, err := r.client.Grant(r.t.Context(), 60)
		if err == nil {
			_, err = r.client.Put(r.t.Context(), key, "{}", clientv3.WithLease(lease.ID))
		}
		if err == nil {
			_, err = r.client.Revoke(r.t.Context(), lease.ID)
		}
		return err
	},
	"it is replaced and deleted": func(r *etcdTest, key string) error {
		_, err := r.client.Put(r.t.Context(), key, "{}")
		if err == nil {
			_, err = r.client.Delete(r.t.Context(), key)
		}
		return err
	},
	"its value is changed on its lease": func(r *etcdTest, key string) error {
		_, err := r.client.Put(r.t.Context(), key, "{}", clientv3.WithIgnoreLease())
		return err
	},
	"the lease is revoked": func(r *etcdTest, key string) error {
		got, err := r.client.Get(r.t.Context(), key)
		if err == nil {
			_, err = r.client.Revoke(r.t.Context(), clientv3.LeaseID(got.Kvs[0].Lease))
		}
		return err
	},
}

// One of a pair with --standby leads again, whatever happens to the key.
func TestEtcdLockOneLeadsAfterLoss(t *testing.T) {
	t.Parallel()
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newEtcdTest(t)
			pair := [2]*EtcdKey{r.newProgram(), r.newProgram()}
			order := devstacktest.WatchLeaders(t, pair[0].Stats, pair[1].Stats)
			for _, p := range pair {
				startHold(t, p, true)
			}
			leader := devstacktest.WaitOneLeads(t, pair[0].Stats, pair[1].Stats)
			if err := lose(r, wire.LeaderKey("dynamo")); err != nil {
				t.Fatal(err)
			}
			devstacktest.WaitLeads(t, pair[leader].Stats, false)
			devstacktest.WaitOneLeads(t, pair[0].Stats, pair[1].Stats)
			if n := len(order()); n > 2 {
				t.Errorf("%v have led in turn, want one more leader at most", order())
			}
		})
	}
}

// A program without --standby acquires the key again if it is free.
func TestEtcdLockWithoutStandbyLeadsAgain(t *testing.T) {
	t.Parallel()
	for name, lose := range losses {
		if strings.HasPrefix(name, "another") || strings.HasPrefix(name, "it is replaced") {
			continue // for a moment, another program has the key
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newEtcdTest(t)
			p := r.newProgram()
			_, ended := startHold(t, p, false)
			devstacktest.WaitLeads(t, p.Stats, true)
			if err := lose(r, wire.LeaderKey("dynamo")); err != nil {
				t.Fatal(err)
			}
			devstacktest.WaitLeads(t, p.Stats, false)
			devstacktest.WaitLeads(t, p.Stats, true)
			select {
			case err := <-ended:
				t.Errorf("it ended: %v", err)
			default:
			}
		})
	}
}

// A program without --standby ends if another program puts the key, although its own lease is
// alive.
func TestEtcdLockWithoutStandbyEndsWhenTaken(t *testing.T) {
	t.Parallel()
	r := newEtcdTest(t)
	p := r.newProgram()
	_, ended := startHold(t, p, false)
	devstacktest.WaitLeads(t, p.Stats, true)
	lease, err := r.client.Grant(t.Context(), 60)
	if err == nil {
		_, err = r.client.Put(t.Context(), wire.LeaderKey("dynamo"), "{}", clientv3.WithLease(lease.ID))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrExists) || p.Stats.ActsAsLeader.Load() || p.Stats.Leader.Load() {
		t.Errorf("it ended with %v", err)
	}
}
