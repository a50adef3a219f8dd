package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// TestEtcdLockWaitsUnlessPredecessorResigned looks at what a program makes of the time
// between another's key and its own.
func TestEtcdLockWaitsUnlessPredecessorResigned(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	for i, c := range []struct {
		name  string
		then  func(r *registry, first, third *etcdLock)
		waits bool
	}{
		{"it ends in order", func(r *registry, first, _ *etcdLock) { first.release(r.t.Context()) }, false},
		{"it resigns, and is killed", func(r *registry, first, _ *etcdLock) {
			s, err := first.open(r.t.Context())
			if err == nil {
				err = first.resign(r.t.Context(), s)
			}
			if err == nil {
				_, err = r.worker.Revoke(r.t.Context(), first.lease)
			}
			if err != nil {
				r.t.Fatal(err)
			}
		}, false},
		{"it resigns, and does no more", func(r *registry, first, _ *etcdLock) {
			s, err := first.open(r.t.Context())
			if err == nil {
				err = first.resign(r.t.Context(), s)
			}
			if err != nil {
				r.t.Fatal(err)
			}
		}, false},
		{"its key is deleted", func(r *registry, first, _ *etcdLock) { r.delete(first.key) }, true},
		{"its key is put by hand, and deleted", func(r *registry, first, _ *etcdLock) { r.put(first.key, "{}"); r.delete(first.key) }, true},
		{"a third has had it, whose key is deleted", func(r *registry, first, third *etcdLock) {
			first.release(r.t.Context())
			if err := third.tryAcquire(r.t.Context()); err != nil {
				r.t.Fatal(err)
			}
			r.delete(first.key)
		}, true},
		{"a third has had it, and ends in order", func(r *registry, first, third *etcdLock) {
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
				keys[j] = p.lock([]byte(`{"component_name": "a"}`), p.Log)
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
			h := newLeadership(&second.etcd.Fleet.Stats, true)
			h.leadAfter = time.Now().Add(time.Hour)
			_, ended := start(t, func(ctx context.Context) error { return second.hold(ctx, h) })
			if c.waits {
				testutil.Until(t, func() error { return holdsKey(second.etcd) })
			} else {
				waitLeads(t, second.etcd, true)
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
	r := newRegistry(t)
	k := r.lock([]byte("{}"), r.Log)
	t.Cleanup(k.close)
	if err := k.tryAcquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.close()
	r.StopEtcd()
	r.StartEmptyEtcd(t)
	other := r.newProgram().lock([]byte("{}"), r.Log)
	t.Cleanup(other.close)
	testutil.Until(t, func() error { return other.tryAcquire(t.Context()) })
	if other.createdRevision != k.createdRevision {
		t.Fatalf("created at %d, and the first at %d: this proves nothing", other.createdRevision, k.createdRevision)
	}
	s, err := k.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.verify(t.Context(), s, newLeadership(&r.Fleet.Stats, true)); !errors.Is(err, errLost) {
		t.Errorf("got %v, want that it is lost", err)
	}
}

func holdsKey(p *Etcd) error {
	if !p.Fleet.Stats.Leader.Load() {
		return errors.New("it does not hold the key")
	}
	return nil
}

func TestEtcdLockReportsKeyWithoutLease(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
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
	st := &p.Fleet.Stats
	if !st.NoLease.Load() || st.OtherLeader.Load() {
		t.Error("it takes the key for a program's")
	}
	r.delete(key)
	waitLeads(t, p, true)
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
	waitLeads(t, p, false)
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
	r := newRegistry(t)
	key := wire.LeaderKey("dynamo")
	for value, want := range map[string]string{
		`{"component_name": "a", "host": "gpu-3"}`:          "another instance exists on host gpu-3, started for {",
		`{"component_name": "a"}`:                           "another instance exists, started for {",
		`{"component_name": "a", "host": 3}`:                "another instance exists, started for {",
		"not JSON":                                          "another instance exists, started for not JSON",
		`{"host": "a\nb ` + strings.Repeat("c", 500) + `"}`: "another instance exists on host a b " + strings.Repeat("c", 196) + "…, started for {",
	} {
		lease, err := r.worker.Grant(t.Context(), 60)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.worker.Put(t.Context(), key, value, clientv3.WithLease(lease.ID)); err != nil {
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
	r := newRegistry(t)
	p := r.newProgram()
	startHold(t, p, true)
	waitLeads(t, p, true)
	key, other := wire.LeaderKey("dynamo"), r.newProgram()
	lease, err := r.worker.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it is deleted, and comes back
		r.delete(key)
		waitLeads(t, p, false)
		if !p.Fleet.Stats.WasLeader.Load() {
			t.Error("no program shows the fleet")
		}
		waitLeads(t, p, true)
	}
	if _, err := r.worker.Put(t.Context(), key, "{}", clientv3.WithLease(lease.ID)); err != nil { // another program's
		t.Fatal(err)
	}
	waitLeads(t, p, false)
	testutil.Until(t, func() error {
		if !p.Fleet.Stats.OtherLeader.Load() || p.Fleet.Stats.WasLeader.Load() {
			return errors.New("it shows the fleet although another program leads")
		}
		return nil
	})
	if other.Fleet.Stats.WasLeader.Load() {
		t.Error("a program that never led shows the fleet")
	}
}

// roomy is a registry on an etcd that takes requests of 16 MiB.
func newLargeRegistry(t *testing.T) *registry { return newRegistryFor(t, 16<<20, 100*time.Millisecond) }

// roomyFor is roomy for requests of so many bytes. Its etcd gives a request up after 5 s and
// twice election, and takes up to twice election to start.
func newRegistryFor(t *testing.T, bytes int, election time.Duration) *registry {
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
	return &registry{&devstacktest.Stack{Etcd: s}, newEtcdAt(t, s.Endpoint()), t, ec}
}

// restart takes the etcd down, and brings it back as it was.
func (r *registry) restart() {
	r.t.Helper()
	config := r.Stack.Etcd.Config()
	r.Stack.Etcd.Close()
	s := devstacktest.StartWithRetry(r.t, func() (*devstack.EtcdServer, error) { return devstack.Etcd(config) })
	r.t.Cleanup(s.Close)
	r.Stack.Etcd = s
}

// TestEtcdLockKeyTooLargeToRead is another program's all the same.
func TestEtcdLockKeyTooLargeToRead(t *testing.T) {
	t.Parallel()
	r := newLargeRegistry(t)
	pair := [2]*Etcd{r.newProgram(), r.newProgram()}
	watchLeaders(t, pair[:]...)
	for _, p := range pair {
		startHold(t, p, true)
	}
	waitOneLeads(t, pair[0], pair[1])
	key := wire.LeaderKey("dynamo")
	r.put(key, strings.Repeat("x", 5<<20))
	for _, p := range pair {
		waitLeads(t, p, false)
		testutil.Until(t, func() error {
			if !p.Fleet.Stats.OtherLeader.Load() {
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
	waitOneLeads(t, pair[0], pair[1])
}

// TestEtcdCountsLargeValues in the listing, and in the watch.
func TestEtcdCountsLargeValues(t *testing.T) {
	t.Parallel()
	sizes := []int{900_000, 1_400_000, 5 << 20, 10 << 20}
	card := func(i int) string { return fmt.Sprintf("v1/mdc/dynamo/c/e/%x", 0x1000+i) }
	puts := func(r *registry) {
		r.register(wire.LayoutV1, worker(1))
		for i, size := range sizes {
			r.put(card(i), strings.Repeat("x", size))
		}
		for id := range uint64(20) {
			r.register(wire.LayoutV1, worker(2+id))
		}
	}
	check := func(r *registry, out *testutil.Log) {
		r.t.Helper()
		r.waitRegistered(21, func(uint64) bool { return true })
		st := &r.Fleet.Stats
		testutil.Until(r.t, func() error {
			if got := st.Rejected(stats.CardKeys, stats.TooLarge); got != 3 {
				return fmt.Errorf("%d cards rejected for their size, want 3", got)
			}
			if got := st.Rejected(stats.CardKeys, stats.BadJSON); got != 1 {
				return fmt.Errorf("%d cards rejected for what they say, want 1", got)
			}
			return connected(r.Etcd)
		})
		if n := out.Count("is not read; of others like it nothing more is said"); n != 1 || !strings.Contains(out.String(), "v1/mdc/dynamo/c/e/100") {
			r.t.Errorf("the log names %d keys:\n%s", n, out)
		}
		r.put(wire.LayoutV1.Key("dynamo", worker(99)), string(wire.LayoutV1.Value("dynamo", worker(99), "s")))
		waitWorker(r.t, r.Etcd, 99)
	}
	t.Run("listed", func(t *testing.T) {
		t.Parallel()
		r := newLargeRegistry(t)
		log, out := testutil.NewLog()
		r.Log = log
		puts(r)
		start(t, r.Watch)
		check(r, out)
		if n := r.Fleet.Stats.Messages(stats.CardKeys); n != 4 {
			t.Errorf("%d cards received, want 4", n)
		}
	})
	t.Run("watched", func(t *testing.T) {
		t.Parallel()
		r := newLargeRegistry(t)
		log, out := testutil.NewLog()
		r.Log = log
		start(t, r.Watch)
		<-r.Fleet.Synced()
		testutil.Until(t, func() error { return connected(r.Etcd) })
		puts(r)
		r.waitRegistered(21, func(uint64) bool { return true })
		// What was larger than a message has had the registry listed anew, once for each at
		// most: then the others are read, and counted, again.
		testutil.Until(t, func() error {
			if got := r.Fleet.Stats.Rejected(stats.CardKeys, stats.TooLarge); got < 3 || got > 9 {
				return fmt.Errorf("%d cards rejected for their size", got)
			}
			return nil
		})
		if n := out.Count("is not read; of others like it nothing more is said"); n != 1 {
			t.Errorf("the log names %d keys:\n%s", n, out)
		}
		if n := r.Fleet.Stats.Etcd.Disconnects(); n != 0 {
			t.Errorf("the connection was lost %d times, want never", n)
		}
		r.register(wire.LayoutV1, worker(99))
		waitWorker(t, r.Etcd, 99)
	})
}

// TestEtcdKeepsKeyThatTurnsBad by the watch, and by the listing after it, until it is gone.
func TestEtcdKeepsKeyThatTurnsBad(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{"garbage": "garbage", "too large": strings.Repeat("x", 1_400_000), "larger than a message": strings.Repeat("x", 5<<20)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newLargeRegistry(t)
			r.Namespaces = "lab"
			keys := etcdKeys(t, "1.6.1")
			want := known{map[uint64]string{id: "tiny"}, channels(t, map[string]string{loads: keys[loads]})}
			all := []string{generate, card, loads}
			for _, key := range all {
				r.put(key, keys[key])
			}
			start(t, r.Watch)
			r.waitKnown(want)
			for _, key := range all {
				r.put(key, bad)
			}
			rejected := func(k stats.Kind) uint64 {
				return r.Fleet.Stats.Rejected(k, stats.BadJSON) + r.Fleet.Stats.Rejected(k, stats.TooLarge)
			}
			kinds := []stats.Kind{stats.InstanceKeys, stats.CardKeys, stats.ChannelKeys}
			more := func(than map[stats.Kind]uint64) {
				t.Helper()
				for _, k := range kinds {
					testutil.Until(t, func() error {
						if got := rejected(k); got <= than[k] {
							return fmt.Errorf("%d of kind %s rejected", got, k)
						}
						return nil
					})
				}
			}
			more(nil)
			r.waitKnown(want)
			before := make(map[stats.Kind]uint64)
			for _, k := range kinds {
				before[k] = rejected(k)
			}
			r.restart() // has it listed anew
			more(before)
			r.waitKnown(want)
			for _, key := range slices.Backward(all) {
				r.delete(key)
			}
			r.waitKnown(nothingKnown())
		})
	}
}
