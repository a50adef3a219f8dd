package discovery

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// Keys of any length are skipped, even one that fits into no page. The test is not parallel: under
// the race detector such large keys are slow, and etcd would time out.
func TestEtcdListSkipsLongKeys(t *testing.T) {
	r := newRegistryFor(t, 40<<20, 5*time.Second)
	r.register(wire.LayoutV1, worker(1))
	for i, length := range []int{5 << 10, 5 << 20, 17 << 20} {
		key := fmt.Sprintf("v1/instances/dynamo/%c", 'x'+rune(i)) + strings.Repeat("y", length)
		testutil.Until(t, func() error { // a busy etcd may time out on such a large key
			_, err := r.worker.Put(t.Context(), key, "{}")
			return err
		})
	}
	r.put("v1/instances/dynamo/zzz/generate/2", "garbage") // sorted after them
	testutil.Start(t, r.Watch)
	r.waitRegistered(1, func(uint64) bool { return true })
	testutil.Until(t, func() error {
		st := &r.Fleet.Stats
		if name, json := st.Rejected(stats.InstanceKeys, stats.BadName), st.Rejected(stats.InstanceKeys, stats.BadJSON); name+json < 2 || json != 1 {
			return fmt.Errorf("%d rejected for their names, %d for their JSON", name, json)
		}
		return connected(r.Etcd)
	})
}

// A listing is bounded by the Fleet's limit, however many keys there are.
func TestEtcdListIsBounded(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	r.MaxWorkers = 2
	r.Fleet = fleet.New(fleet.Target{}, 65_536, true)
	r.registerMany(16*1024 + 5)
	testutil.Start(t, r.Watch)
	testutil.Until(t, func() error {
		if n := r.Fleet.Stats.Refused(stats.AttachmentLimit); n != 5 {
			return fmt.Errorf("%d keys turned away, want 5", n)
		}
		return nil
	})
	<-r.Fleet.Synced()
	if n := len(r.Fleet.Snapshot().Workers); n != 16*1024 {
		t.Errorf("%d workers, want %d", n, 16*1024)
	}
}

// The resources, and the entries of all of them, are bounded.
func TestKubernetesResourcesAreBounded(t *testing.T) {
	t.Parallel()
	const most = 16 * 1024
	f := fleet.New(fleet.Target{}, 65_536, true)
	c := newCluster(reader{namespaces: "lab", fleet: f, log: slog.New(slog.DiscardHandler)}, false, 2)
	put := func(name string, from, to int) {
		var m workerMetadata
		m.Metadata.Name, m.Metadata.OwnerReferences = name, []kube.Owner{{Kind: "Pod", UID: name}}
		instances := make(map[string]json.RawMessage)
		for i := from; i < to; i++ {
			key := fmt.Sprintf("lab/c/e/%x", 1+i)
			instances[key] = json.RawMessage(fmt.Sprintf(`{"namespace":"lab","component":"c","endpoint":"e","instance_id":%d,"transport":{"tcp":"h:1/x"}}`, 1+i))
		}
		m.Spec.Data = &workerData{values: map[string]map[string]json.RawMessage{wire.InstancesRoot: instances}}
		c.upsertResource(&m)
	}
	check := func(resources, entries int, turnedAway uint64) {
		t.Helper()
		if n := f.Stats.Refused(stats.AttachmentLimit); len(c.resources) != resources || c.entryCount != entries || n != turnedAway {
			t.Errorf("%d resources with %d entries, and %d turned away; want %d, %d, %d", len(c.resources), c.entryCount, n, resources, entries, turnedAway)
		}
	}
	put("a", 0, 10_000)
	put("b", 10_000, 20_000)
	check(2, most, 20_000-most)
	put("a", 0, 10_000) // unchanged
	check(2, most, 20_000-most)
	put("a", 0, 9000)
	check(2, most-1000, 20_000-most)
	c.forget("b")
	check(1, 9000, 20_000-most)
	for i := range most + 5 {
		put(fmt.Sprint("r", i), 0, 0)
	}
	check(most, 9000, 20_000-most+6)
}
