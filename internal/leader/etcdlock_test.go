package leader

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestEtcdLockWaitsUnlessPredecessorResigned looks at what a program makes of the time
// between another's key and its own.
func TestEtcdLockWaitsUnlessPredecessorResigned(t *testing.T) {
	t.Parallel()
	r := newEtcdTest(t)
	for i, c := range []struct {
		name  string
		then  func(r *etcdTest, first, third *etcdLock)
		waits bool
	}{
		{"it ends in order", func(r *etcdTest, first, _ *etcdLock) { first.release(r.t.Context()) }, false},
		{"it resigns, and is killed", func(r *etcdTest, first, _ *etcdLock) {
			s, err := first.open(r.t.Context())
			if err == nil {
				err = first.resign(r.t.Context(), s)
			}
			if err == nil {
				_, err = r.client.Revoke(r.t.Context(), first.lease)
			}
			if err != nil {
				r.t.Fatal(err)
			}
		}, false},
		{"it resigns, and does no more", func(r *etcdTest, first, _ *etcdLock) {
			s, err := first.open(r.t.Context())
			if err == nil {
				err = first.resign(r.t.Context(), s)
			}
			if err != nil {
				r.t.Fatal(err)
			}
		}, false},
		{"its key is deleted", func(r *etcdTest, first, _ *etcdLock) { r.delete(first.key) }, true},
		{"its key is put by hand, and deleted", func(r *etcdTest, first, _ *etcdLock) { r.put(first.key, "{}"); r.delete(first.key) }, true},
		{"a third has had it, whose key is deleted", func(r *etcdTest, first, third *etcdLock) {
			first.release(r.t.Context())
			if err := third.tryAcquire(r.t.Context()); err != nil {
				r.t.Fatal(err)
			}
			r.delete(first.key)
		}, true},
		{"a third has had it, and ends in order", func(r *etcdTest, first, third *etcdLock) {
			r.delete(first.key)
			if err := third.tryAcquire(r.t.Context()); err != nil {
				r.t.Fatal(err)
			}
			third.release(r.t.Context())
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := *r
			r.t = t
			var keys [3]*etcdLock
			for j := range keys {
				p := r.newProgram()
				p.Namespaces = wire.Namespaces(fmt.Sprint("dynamo", i))
				keys[j] = p.lock([]byte(`{"component_name": "a"}`))
				t.Cleanup(keys[j].close)
			}
			first, second := keys[0], keys[1]
			if err := first.tryAcquire(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := second.tryAcquire(t.Context()); !errors.Is(err, ErrExists) {
				t.Fatalf("got %v", err)
			}
			c.then(&r, first, keys[2])
			if err := second.tryAcquire(t.Context()); err != nil {
				t.Fatal(err)
			}
			h := newLeadership(second.stats, true)
			h.leadAfter = time.Now().Add(time.Hour)
			_, ended := testutil.Start(t, func(ctx context.Context) error { return second.hold(ctx, h) })
			if c.waits {
				testutil.Until(t, func() error { return holdsKey(second.stats) })
			} else {
				devstacktest.WaitLeads(t, second.stats, true)
			}
			// By the end of this key its watch has come past all that was before.
			s, err := keys[0].open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Delete(t.Context(), second.key); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, errLost) {
				t.Errorf("ended with %v", err)
			}
			if waits := time.Until(h.leadAfter) > time.Minute; waits != c.waits {
				t.Errorf("it waits for the other: %v, want %v", waits, c.waits)
			}
		})
	}
}

// TestEtcdLockOtherKeyAtSameRevision: an etcd that comes back without its data counts
// its revisions anew, and another program may be the first to put the key.
func TestEtcdLockOtherKeyAtSameRevision(t *testing.T) {
	t.Parallel()
	r := newEtcdTest(t)
	k := r.newProgram().lock([]byte("{}"))
	t.Cleanup(k.close)
	if err := k.tryAcquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.close()
	r.StopEtcd()
	r.StartEmptyEtcd(t)
	other := r.newProgram().lock([]byte("{}"))
	t.Cleanup(other.close)
	testutil.Until(t, func() error { return other.tryAcquire(t.Context()) })
	if other.createdRevision != k.createdRevision {
		t.Fatalf("created at %d, and the first at %d: this proves nothing", other.createdRevision, k.createdRevision)
	}
	s, err := k.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.verify(t.Context(), s, newLeadership(r.newProgram().Stats, true)); !errors.Is(err, errLost) {
		t.Errorf("got %v, want that it is lost", err)
	}
}

func holdsKey(st *stats.Stats) error {
	if !st.Leader.Load() {
		return errors.New("it does not hold the key")
	}
	return nil
}

func TestEtcdLockReportsKeyWithoutLease(t *testing.T) {
	t.Parallel()
	r := newEtcdTest(t)
	key := wire.LeaderKey("dynamo")
	r.put(key, `{"component_name": "by hand"}`)
	const said = `another instance exists, started for {"component_name": "by hand"}: it hangs on no lease, so that nothing will ever delete it: ` +
		`it was put by hand; if there is no such program: etcdctl del dynamo/components/metrics/instance`
	_, ended := startHold(t, r.newProgram(), false)
	if err := <-ended; !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), said) {
		t.Errorf("got %v, want %s", err, said)
	}
	p := r.newProgram()
	log, out := testutil.NewLog()
	p.Log = log
	startHold(t, p, true)
	testutil.Until(t, out.HasCount("Standing by: ", 1))
	if !strings.Contains(out.String(), "it hangs on no lease") {
		t.Errorf("the log says:\n%s", out)
	}
	st := p.Stats
	if !st.NoLease.Load() || st.OtherLeader.Load() {
		t.Error("it takes the key for a program's")
	}
	r.delete(key)
	devstacktest.WaitLeads(t, p.Stats, true)
	if st.NoLease.Load() || !st.WasLeader.Load() {
		t.Error("it leads, and takes the key for one that was put by hand")
	}

	// A program that stands by one with a lease says so when that is no longer so.
	q := r.newProgram()
	q.Log, out = testutil.NewLog()
	startHold(t, q, true)
	testutil.Until(t, out.HasCount("a program that was killed leaves its key", 1))
	r.put(key, "{}")
	testutil.Until(t, out.HasCount("it hangs on no lease", 1))
	devstacktest.WaitLeads(t, p.Stats, false)
	testutil.Until(t, func() error {
		if !st.NoLease.Load() {
			return errors.New("it does not know that it cannot lead any more")
		}
		return nil
	})
	if !st.WasLeader.Load() {
		t.Error("no program shows the fleet")
	}
}

// TestEtcdLockNamesHostOfOtherInstance, where it says so: the original does not.
func TestEtcdLockNamesHostOfOtherInstance(t *testing.T) {
	t.Parallel()
	r := newEtcdTest(t)
	key := wire.LeaderKey("dynamo")
	for value, want := range map[string]string{
		`{"component_name": "a", "host": "gpu-3"}`:          "another instance exists on host gpu-3, started for {",
		`{"component_name": "a"}`:                           "another instance exists, started for {",
		`{"component_name": "a", "host": 3}`:                "another instance exists, started for {",
		"not JSON":                                          "another instance exists, started for not JSON",
		`{"host": "a\nb ` + strings.Repeat("c", 500) + `"}`: "another instance exists on host a b " + strings.Repeat("c", 196) + "…, started for {",
	} {
		lease, err := r.client.Grant(t.Context(), 60)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.client.Put(t.Context(), key, value, clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
		_, ended := startHold(t, r.newProgram(), false)
		if err := <-ended; !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), "with --standby this one waits until that is gone, and takes over") {
			t.Errorf("%s: got %v, want %s", value, err, want)
		}
	}
}

// TestEtcdLockLastLeaderServesUntilNext: that one waits for two seconds before it does.
func TestEtcdLockLastLeaderServesUntilNext(t *testing.T) {
	t.Parallel()
	r := newEtcdTest(t)
	p := r.newProgram()
	startHold(t, p, true)
	devstacktest.WaitLeads(t, p.Stats, true)
	key, other := wire.LeaderKey("dynamo"), r.newProgram()
	lease, err := r.client.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it is deleted, and comes back
		r.delete(key)
		devstacktest.WaitLeads(t, p.Stats, false)
		if !p.Stats.WasLeader.Load() {
			t.Error("no program shows the fleet")
		}
		devstacktest.WaitLeads(t, p.Stats, true)
	}
	if _, err := r.client.Put(t.Context(), key, "{}", clientv3.WithLease(lease.ID)); err != nil { // another program's
		t.Fatal(err)
	}
	devstacktest.WaitLeads(t, p.Stats, false)
	testutil.Until(t, func() error {
		if !p.Stats.OtherLeader.Load() || p.Stats.WasLeader.Load() {
			return errors.New("it shows the fleet although another program leads")
		}
		return nil
	})
	if other.Stats.WasLeader.Load() {
		t.Error("a program that never led shows the fleet")
	}
}

// TestEtcdLockKeyTooLargeToRead is another program's all the same.
func TestEtcdLockKeyTooLargeToRead(t *testing.T) {
	t.Parallel()
	r := newLargeEtcdTest(t)
	pair := [2]*EtcdKey{r.newProgram(), r.newProgram()}
	devstacktest.WatchLeaders(t, pair[0].Stats, pair[1].Stats)
	for _, p := range pair {
		startHold(t, p, true)
	}
	devstacktest.WaitOneLeads(t, pair[0].Stats, pair[1].Stats)
	key := wire.LeaderKey("dynamo")
	r.put(key, strings.Repeat("x", 5<<20))
	for _, p := range pair {
		devstacktest.WaitLeads(t, p.Stats, false)
		testutil.Until(t, func() error {
			if !p.Stats.OtherLeader.Load() {
				return errors.New("it does not know who holds the key")
			}
			return nil
		})
	}
	_, ended := startHold(t, r.newProgram(), false)
	if err := <-ended; !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "4194304 bytes") {
		t.Errorf("got %v", err)
	}
	r.delete(key)
	devstacktest.WaitOneLeads(t, pair[0].Stats, pair[1].Stats)
}

func TestEtcdLockRefusesSecondAndReleases(t *testing.T) {
	t.Parallel()
	r := newEtcdTest(t)
	p := r.newProgram()
	stop, ended := startHold(t, p, false)
	devstacktest.WaitLeads(t, p.Stats, true)
	key := wire.LeaderKey("dynamo")
	got, err := r.client.Get(t.Context(), key)
	if err != nil || len(got.Kvs) != 1 || got.Kvs[0].Lease == 0 || string(got.Kvs[0].Value) != `{"component_name": "a"}` {
		t.Fatalf("key: %v, %v; want the value, on a lease", got, err)
	}
	_, second := startHold(t, r.newProgram(), false)
	err = <-second
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), `"component_name": "a"`) {
		t.Errorf("the second got %v, want ErrExists with key and value", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	got, err = r.client.Get(t.Context(), key)
	if err != nil || len(got.Kvs) != 0 {
		t.Errorf("after the end: %v, %v; want no key", got, err)
	}
	leases, err := r.client.Leases(t.Context())
	if err != nil || len(leases.Leases) != 0 {
		t.Errorf("leases left behind: %v, %v", leases, err)
	}
}

func TestEtcdLockAcceptsOwnOldKey(t *testing.T) {
	// The answer to an attempt may be lost after etcd has carried it out: then the
	// key hangs on our lease.
	r := newEtcdTest(t)
	k := r.newProgram().lock([]byte("{}"))
	t.Cleanup(k.close)
	for range 2 {
		if err := k.tryAcquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s, err := k.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := k.createdRevision
	if err := k.create(t.Context(), s); err != nil || k.createdRevision != first {
		t.Errorf("created at %d again (%v), want at %d", k.createdRevision, err, first)
	}
	leases, err := r.client.Leases(t.Context())
	if err != nil || len(leases.Leases) != 1 {
		t.Errorf("leases %v, %v; want one", leases, err)
	}
}
