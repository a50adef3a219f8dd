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

// TestEtcdListSkipsLongKeys, even one that fits into no page. It is not parallel: etcd
// gives up what it cannot do in time, and keys so large are much to do under the race detector.
func TestEtcdListSkipsLongKeys(t *testing.T) {
	r := newRegistryFor(t, 40<<20, 5*time.Second)
	r.register(wire.LayoutV1, worker(1))
	for i, length := range []int{5 << 10, 5 << 20, 17 << 20} {
		key := fmt.Sprintf("v1/instances/dynamo/%c", 'x'+rune(i)) + strings.Repeat("y", length)
		testutil.Until(t, func() error { // a busy etcd may take too long for one that is so large
			_, err := r.worker.Put(t.Context(), key, "{}")
			return err
		})
	}
	r.put("v1/instances/dynamo/zzz/generate/2", "garbage") // behind them
	testutil.Start(t, r.Watch)
	r.waitRegistered(1, func(uint64) bool { return true })
	testutil.Until(t, func() error {
		st := &r.Fleet.Stats
		if name, json := st.Rejected(stats.InstanceKeys, stats.BadName), st.Rejected(stats.InstanceKeys, stats.BadJSON); name+json < 2 || json != 1 {
			return fmt.Errorf("%d rejected for their names, %d for what they say", name, json)
		}
		return connected(r.Etcd)
	})
}

// TestEtcdListIsBounded however many keys there are.
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

// TestKubernetesResourcesAreBounded in resources, and in what all of them say.
func TestKubernetesResourcesAreBounded(t *testing.T) {
	t.Parallel()
	const most = 16 * 1024
	f := fleet.New(fleet.Target{}, 65_536, true)
	c := newCluster(reader{namespaces: "lab", fleet: f, log: slog.New(slog.DiscardHandler)}, false, 2)
	put := func(name string, from, to int) {
		var m workerMetadata
		m.Metadata.Name, m.Metadata.OwnerReferences = name, []kube.Owner{{Kind: "Pod", UID: name}}
		said := make(map[string]json.RawMessage)
		for i := from; i < to; i++ {
			key := fmt.Sprintf("lab/c/e/%x", 1+i)
			said[key] = json.RawMessage(fmt.Sprintf(`{"namespace":"lab","component":"c","endpoint":"e","instance_id":%d,"transport":{"tcp":"h:1/x"}}`, 1+i))
		}
		m.Spec.Data = &workerData{values: map[string]map[string]json.RawMessage{wire.InstancesRoot: said}}
		c.upsertResource(&m)
	}
	is := func(resources, statements int, turnedAway uint64) {
		t.Helper()
		if n := f.Stats.Refused(stats.AttachmentLimit); len(c.resources) != resources || c.statementCount != statements || n != turnedAway {
			t.Errorf("%d resources say %d things, and %d were turned away: want %d, %d, %d", len(c.resources), c.statementCount, n, resources, statements, turnedAway)
		}
	}
	put("a", 0, 10_000)
	put("b", 10_000, 20_000)
	is(2, most, 20_000-most)
	put("a", 0, 10_000) // is known
	is(2, most, 20_000-most)
	put("a", 0, 9000)
	is(2, most-1000, 20_000-most)
	c.forget("b")
	is(1, 9000, 20_000-most)
	for i := range most + 5 {
		put(fmt.Sprint("r", i), 0, 0)
	}
	is(most, 9000, 20_000-most+6)
}
