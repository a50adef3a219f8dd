package discovery

import (
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
)

// newLargeRegistry returns a registry on an etcd that accepts requests of 16 MiB.
func newLargeRegistry(t *testing.T) *registry { return newRegistryFor(t, 16<<20, 100*time.Millisecond) }

// newRegistryFor returns a registry on devstacktest.LargeEtcd.
func newRegistryFor(t *testing.T, bytes int, election time.Duration) *registry {
	t.Helper()
	s, ec := devstacktest.LargeEtcd(t, bytes, election)
	return &registry{s, newEtcdAt(t, s.Etcd.Endpoint()), t, ec}
}

// restart stops the etcd and starts it again with its data.
func (r *registry) restart() {
	r.t.Helper()
	config := r.Stack.Etcd.Config()
	r.Stack.Etcd.Close()
	s := devstacktest.StartWithRetry(r.t, func() (*devstack.EtcdServer, error) { return devstack.Etcd(config) })
	r.t.Cleanup(s.Close)
	r.Stack.Etcd = s
}

// putLargeValues registers 21 workers, and model cards of which three are too large and one is not
// JSON.
func putLargeValues(r *registry) {
	r.t.Helper()
	r.register(wire.LayoutV1, worker(1))
	for i, size := range []int{900_000, 1_400_000, 5 << 20, 10 << 20} {
		r.put(fmt.Sprintf("v1/mdc/dynamo/c/e/%x", 0x1000+i), strings.Repeat("x", size))
	}
	for id := range uint64(20) {
		r.register(wire.LayoutV1, worker(2+id))
	}
}

// Values that are too large are counted and logged, and affect no other key.
func TestEtcdListCountsLargeValues(t *testing.T) {
	t.Parallel()
	r := newLargeRegistry(t)
	log, out := testutil.NewLog()
	r.Log = log
	putLargeValues(r)
	testutil.Start(t, r.Watch)
	r.waitRegistered(21, func(uint64) bool { return true })
	st := &r.Fleet.Stats
	testutil.Until(t, func() error {
		if got := st.Rejected(stats.CardKeys, stats.TooLarge); got != 3 {
			return fmt.Errorf("%d cards rejected for their size, want 3", got)
		}
		if got := st.Rejected(stats.CardKeys, stats.BadJSON); got != 1 {
			return fmt.Errorf("%d cards rejected for their JSON, want 1", got)
		}
		return connected(r.Etcd)
	})
	if n := out.Count("is not read; further keys like it are not logged"); n != 1 || !strings.Contains(out.String(), "v1/mdc/dynamo/c/e/100") {
		t.Errorf("the log names %d keys, want one:\n%s", n, out)
	}
	r.register(wire.LayoutV1, worker(99))
	waitWorker(t, r.Etcd, 99)
	if n := st.Messages(stats.CardKeys); n != 4 {
		t.Errorf("%d cards received, want 4", n)
	}
}

func TestEtcdWatchCountsLargeValues(t *testing.T) {
	t.Parallel()
	r := newLargeRegistry(t)
	log, out := testutil.NewLog()
	r.Log = log
	testutil.Start(t, r.Watch)
	<-r.Fleet.Synced()
	testutil.Until(t, func() error { return connected(r.Etcd) })
	putLargeValues(r)
	r.waitRegistered(21, func(uint64) bool { return true })
	// Each value that is larger than a message causes one new listing at most, which reads and
	// counts the others again.
	testutil.Until(t, func() error {
		if got := r.Fleet.Stats.Rejected(stats.CardKeys, stats.TooLarge); got < 3 || got > 9 {
			return fmt.Errorf("%d cards rejected for their size, want 3 to 9", got)
		}
		return nil
	})
	if n := out.Count("is not read; further keys like it are not logged"); n != 1 {
		t.Errorf("the log names %d keys, want one:\n%s", n, out)
	}
	if n := r.Fleet.Stats.Etcd.Disconnects(); n != 0 {
		t.Errorf("the connection was lost %d times, want never", n)
	}
	r.register(wire.LayoutV1, worker(99))
	waitWorker(t, r.Etcd, 99)
}

// The watch, and a later listing, keep the last good value of a key until it is deleted.
func TestEtcdKeepsKeyThatBecomesInvalid(t *testing.T) {
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
			testutil.Start(t, r.Watch)
			r.waitKnown(want)
			for _, key := range all {
				r.put(key, bad)
			}
			rejected := func(k stats.Kind) uint64 {
				return r.Fleet.Stats.Rejected(k, stats.BadJSON) + r.Fleet.Stats.Rejected(k, stats.TooLarge)
			}
			kinds := []stats.Kind{stats.InstanceKeys, stats.CardKeys, stats.ChannelKeys}
			waitRejected := func(before map[stats.Kind]uint64) {
				t.Helper()
				for _, k := range kinds {
					testutil.Until(t, func() error {
						if got := rejected(k); got <= before[k] {
							return fmt.Errorf("%d of kind %s rejected", got, k)
						}
						return nil
					})
				}
			}
			waitRejected(nil)
			r.waitKnown(want)
			before := make(map[stats.Kind]uint64)
			for _, k := range kinds {
				before[k] = rejected(k)
			}
			r.restart() // so that the registry is listed again
			waitRejected(before)
			r.waitKnown(want)
			for _, key := range slices.Backward(all) {
				r.delete(key)
			}
			r.waitKnown(nothingKnown())
		})
	}
}
