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

// handovers are events that free the key of the first program for the second. waits is whether the
// second program then waits for the first to stop.
var handovers = []struct {
	name  string
	event func(r *etcdTest, first, third *etcdLock)
	waits bool
}{
	{"it releases the key", func(r *etcdTest, first, _ *etcdLock) { first.release(r.t.Context()) }, false},
	{"it resigns and is killed", func(r *etcdTest, first, _ *etcdLock) {
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
	{"it resigns and hangs", func(r *etcdTest, first, _ *etcdLock) {
		s, err := first.open(r.t.Context())
		if err == nil {
			err = first.resign(r.t.Context(), s)
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}, false},
	{"its key is deleted", func(r *etcdTest, first, _ *etcdLock) { r.delete(first.key) }, true},
	{"its key is replaced and deleted", func(r *etcdTest, first, _ *etcdLock) { r.put(first.key, "{}"); r.delete(first.key) }, true},
	{"the key of a third program is deleted", func(r *etcdTest, first, third *etcdLock) {
		first.release(r.t.Context())
		if err := third.tryAcquire(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		r.delete(first.key)
	}, true},
	{"a third program releases the key", func(r *etcdTest, first, third *etcdLock) {
		r.delete(first.key)
		if err := third.tryAcquire(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		third.release(r.t.Context())
	}, false},
}

// A new holder of the key does not wait if the watch shows that the previous one resigned.
func TestEtcdLockWaitsUnlessPredecessorResigned(t *testing.T) {
	t.Parallel()
	r := newEtcdTest(t)
	for i, c := range handovers {
		t.Run(c.name, func(t *testing.T) {
			r := *r
			r.t = t
			testHandover(&r, wire.Namespaces(fmt.Sprint("dynamo", i)), c.event, c.waits)
		})
	}
}

func testHandover(r *etcdTest, namespace wire.Namespaces, event func(r *etcdTest, first, third *etcdLock), waits bool) {
	t := r.t
	var keys [3]*etcdLock
	for j := range keys {
		p := r.newProgram()
		p.Namespaces = namespace
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
	event(r, first, keys[2])
	if err := second.tryAcquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := newLeadership(second.stats, true)
	h.leadAfter = time.Now().Add(time.Hour)
	_, ended := testutil.Start(t, func(ctx context.Context) error { return second.hold(ctx, h) })
	if waits {
		testutil.Until(t, func() error { return holdsKey(second.stats) })
	} else {
		devstacktest.WaitLeads(t, second.stats, true)
	}
	// When the watch reports this deletion, it has seen all earlier events.
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
	if got := time.Until(h.leadAfter) > time.Minute; got != waits {
		t.Errorf("the new holder waits: %v, want %v", got, waits)
	}
}

// An etcd that comes back without its data starts its revisions again, and another program may put
// the key at the same revision.
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
		t.Fatalf("created at %d, and the first at %d: the test needs the same revision", other.createdRevision, k.createdRevision)
	}
	s, err := k.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.verify(t.Context(), s, newLeadership(r.newProgram().Stats, true)); !errors.Is(err, errLost) {
		t.Errorf("got %v, want errLost", err)
	}
}

func holdsKey(st *stats.Stats) error {
	if !st.Leader.Load() {
		return errors.New("the program does not hold the key")
	}
	return nil
}

func TestEtcdLockReportsKeyWithoutLease(t *testing.T) {
	t.Parallel()
	r := newEtcdTest(t)
	key := wire.LeaderKey("dynamo")
	r.put(key, `{"component_name": "manual"}`)
	const want = `another instance exists, started for {"component_name": "manual"}: it has no lease, so nothing will ever delete it: ` +
		`it was put manually; if there is no such program: etcdctl del dynamo/components/metrics/instance`
	_, ended := startHold(t, r.newProgram(), false)
	if err := <-ended; !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	p := r.newProgram()
	log, out := testutil.NewLog()
	p.Log = log
	startHold(t, p, true)
	testutil.Until(t, out.HasCount("Standing by: ", 1))
	if !strings.Contains(out.String(), "it has no lease") {
		t.Errorf("the log says:\n%s", out)
	}
	st := p.Stats
	if !st.NoLease.Load() || st.OtherLeader.Load() {
		t.Error("the key counts as a program's")
	}
	r.delete(key)
	devstacktest.WaitLeads(t, p.Stats, true)
	if st.NoLease.Load() || !st.WasLeader.Load() {
		t.Error("it leads, and the key counts as one that was put manually")
	}

	// A standby logs when a key with a lease is replaced by one without.
	q := r.newProgram()
	q.Log, out = testutil.NewLog()
	startHold(t, q, true)
	testutil.Until(t, out.HasCount("a program that was killed leaves its key", 1))
	r.put(key, "{}")
	testutil.Until(t, out.HasCount("it has no lease", 1))
	devstacktest.WaitLeads(t, p.Stats, false)
	testutil.Until(t, func() error {
		if !st.NoLease.Load() {
			return errors.New("it does not know that the key has no lease")
		}
		return nil
	})
	if !st.WasLeader.Load() {
		t.Error("no program serves the fleet")
	}
}

// The error names the other instance's host, if its value has it. The original's values have none.
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
		if err := <-ended; !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), "with --standby, this instance waits until the other has ended and takes over") {
			t.Errorf("%s: got %v, want %s", value, err, want)
		}
	}
}

// The last leader serves the fleet until the next one does, which waits for two seconds before.
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
	for range 2 { // the key is deleted, and put again
		r.delete(key)
		devstacktest.WaitLeads(t, p.Stats, false)
		if !p.Stats.WasLeader.Load() {
			t.Error("no program serves the fleet")
		}
		devstacktest.WaitLeads(t, p.Stats, true)
	}
	if _, err := r.client.Put(t.Context(), key, "{}", clientv3.WithLease(lease.ID)); err != nil { // another program's
		t.Fatal(err)
	}
	devstacktest.WaitLeads(t, p.Stats, false)
	testutil.Until(t, func() error {
		if !p.Stats.OtherLeader.Load() || p.Stats.WasLeader.Load() {
			return errors.New("it serves the fleet although another program leads")
		}
		return nil
	})
	if other.Stats.WasLeader.Load() {
		t.Error("a program that never led serves the fleet")
	}
}

// A key whose value is too large to read is still another program's.
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
				return errors.New("it does not know that another program leads")
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
	// The response to an attempt may be lost although etcd has put the key. The key then has
	// this program's lease.
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
