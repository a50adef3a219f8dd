package discovery

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// registryChanges returns captured changes of a registry in etcd, while frontends and routers join
// and leave beside two workers.
func registryChanges(t *testing.T, release string) (all []registryChange) {
	t.Helper()
	b, err := os.ReadFile("testdata/changes/" + release + ".jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		var n registryChange
		if err := json.Unmarshal(lines.Bytes(), &n); err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// registryChange is one change: Key was listed, Added was put, or Gone was deleted; one is set.
// State names the step of the capture.
type registryChange struct{ State, Key, Added, Value, Gone string }

// countedWorkers returns how many workers are counted, by endpoint.
func countedWorkers(f *fleet.Fleet) map[string]int {
	all := make(map[string]int)
	for _, e := range f.Snapshot().Endpoints {
		if e.Counted {
			all[e.String()] = e.Answering + e.Silent + e.Unregistered + e.Malformed
		}
	}
	return all
}

func TestReaderRoutersAndFrontendsAreNoWorkers(t *testing.T) {
	for _, release := range []string{"0.6.1", "0.9.1", "1.0.2", "1.4.2", "1.5.1", "1.6.1"} {
		t.Run(release, func(t *testing.T) {
			f := fleet.New(fleet.Target{}, 100, true)
			f.Sync(newListing())
			r := reader{namespaces: "lab", fleet: f, log: slog.New(slog.DiscardHandler)}
			want := map[string]int{"backend/generate": 2}
			all := registryChanges(t, release)
			first := slices.IndexFunc(all, func(n registryChange) bool { return n.State != all[0].State })
			for i, n := range all {
				switch {
				case n.Gone != "":
					r.delete(n.Gone)
				default:
					r.upsert(n.Key+n.Added, []byte(n.Value))
				}
				// A router's other endpoints may be registered a moment before the one that
				// identifies it.
				if last := i+1 == len(all) || all[i+1].State != n.State; last {
					if got := countedWorkers(f); i >= first-1 && !maps.Equal(got, want) {
						t.Errorf("after %s: %v are counted, want %v", n.State, got, want)
					}
				}
			}
			for _, k := range []stats.Kind{stats.InstanceKeys, stats.CardKeys, stats.ChannelKeys} {
				for _, why := range stats.Reasons() {
					if n := f.Stats.Rejected(k, why); n > 0 {
						t.Errorf("%d of kind %s are rejected for %s", n, k, why)
					}
				}
			}
		})
	}
}

func TestReaderCountsUnknownKinds(t *testing.T) {
	f := fleet.New(fleet.Target{}, 100, true)
	f.Sync(newListing())
	r := reader{namespaces: "lab", fleet: f, log: slog.New(slog.DiscardHandler)}
	values := []string{`{"type":"VeloPeer","worker_id":7}`, `{"type":"MetricsEndpoint","namespace":"lab","instance_id":7,"url":"http://h/metrics"}`}
	for key, kind := range map[string]stats.Kind{
		"v1/instances/lab/backend/generate/7":     stats.InstanceKeys,
		"v1/instances/lab/7":                      stats.InstanceKeys,
		"v1/mdc/lab/backend/generate/7":           stats.CardKeys,
		"v1/event_channels/lab//kv_metrics/7":     stats.ChannelKeys,
		"v1/event_channels/namespace/lab/peers/7": stats.ChannelKeys,
	} {
		before := f.Stats.Rejected(kind, stats.UnknownKind)
		for _, value := range values {
			r.upsert(key, []byte(value))
		}
		if n := f.Stats.Rejected(kind, stats.UnknownKind) - before; n != 2 {
			t.Errorf("%s: %d of 2 count as an unknown kind", key, n)
		}
		r.delete(key)
	}
	r.upsert("v1/event_sources/namespace/lab/component/backend/endpoint/generate/topic/kv-events/7", []byte(`{"type":"EventSource"}`))
	for _, k := range stats.Kinds() {
		for _, why := range stats.Reasons() {
			if n := f.Stats.Rejected(k, why); n > 0 && why != stats.UnknownKind {
				t.Errorf("%d of kind %s are rejected for %s", n, k, why)
			}
		}
	}
	if all := f.Snapshot().Workers; len(all) > 0 {
		t.Errorf("workers: %+v", all)
	}
}

func TestKubernetesCountsUnknownPartsOnce(t *testing.T) {
	k := newKubeRegistry(t)
	k.setSlice("slice", sliceEntry0(true))
	k.watch()
	data := kubetest.Object{"endpoints": endpoints0(1), "event_sources": kubetest.Object{"a": 1, "b": nil}, "velo_peers": nil, "version": 7}
	k.setResource0(data)
	waitUnknownKinds := func(want uint64) {
		t.Helper()
		testutil.Until(t, func() error {
			if n := k.Fleet.Stats.Rejected(stats.OtherKeys, stats.UnknownKind); n != want || len(k.Fleet.RegisteredEndpoints()) != 1 {
				return fmt.Errorf("%d of other kinds, want %d; registered: %v", n, want, k.Fleet.RegisteredEndpoints())
			}
			return nil
		})
	}
	waitUnknownKinds(2)
	data["velo_peers"] = kubetest.Object{"c": kubetest.Object{"type": "VeloPeer"}}
	k.setResource0(data)
	waitUnknownKinds(3)
}
