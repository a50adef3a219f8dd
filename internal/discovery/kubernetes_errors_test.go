package discovery

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

func TestKubernetesCountsGarbage(t *testing.T) {
	k := newKubeRegistry(t)
	k.setSlice("slice", sliceEntry0(true))
	endpoints := endpoints0(1)
	endpoints["lab/backend/generate/zz"] = kubetest.Object{}
	endpoints["lab/backend/other/9cf1b09034dc1"] = "text"
	k.setResource0(kubetest.Object{"endpoints": endpoints, "event_channels": kubetest.Object{"lab//kv_metrics/7": nil}})
	k.server.Put(kubetest.WorkerMetadata, kubetest.Object{"metadata": kubetest.Object{"name": "text", "namespace": "team-a"}, "spec": "text"})
	k.server.Put(kubetest.WorkerMetadata, kubetest.Object{"metadata": kubetest.Object{"name": "orphan", "namespace": "team-a"},
		"spec": kubetest.Object{"data": kubetest.Object{"endpoints": endpoints0(1)}}})
	k.watch()
	k.waitRegistered(summary{oneWorker, 0})
	st := &k.Fleet.Stats
	for _, c := range []struct {
		kind   stats.Kind
		reason stats.Reason
		want   uint64
	}{{stats.InstanceKeys, stats.BadName, 1}, {stats.InstanceKeys, stats.BadJSON, 2}, {stats.ChannelKeys, stats.BadID, 1}} {
		if got := st.Rejected(c.kind, c.reason); got != c.want {
			t.Errorf("rejected %s, %s: %d, want %d", c.kind, c.reason, got, c.want)
		}
	}
	k.setResource0(kubetest.Object{"endpoints": kubetest.Object{"lab/backend/generate/9cf1b09034dc1": "text"}})
	k.setSlice("slice", sliceEntry0(true), sliceEntry0(true))
	k.waitRegistered(summary{oneWorker, 0}) // the last good value stays
}

// The last good state of a resource and of a slice stays if they become unreadable, also after a
// new listing.
func TestKubernetesKeepsUnreadableObject(t *testing.T) {
	t.Parallel()
	k := newKubeRegistry(t)
	k.setSlice("slice", sliceEntry0(true))
	k.setResource0(kubetest.Object{"endpoints": endpoints0(1)})
	k.watch()
	k.waitRegistered(summary{oneWorker, 0})
	bad := k.server.Get(kubetest.WorkerMetadata, "team-a", "lab-vllmworker-0")
	bad["spec"] = "text"
	k.server.Put(kubetest.WorkerMetadata, bad)
	bad = k.server.Get(kubetest.EndpointSlices, "team-a", "slice")
	bad["endpoints"] = "text"
	k.server.Put(kubetest.EndpointSlices, bad)
	waitRejected := func(n uint64) {
		t.Helper()
		testutil.Until(t, func() error {
			if got := k.Fleet.Stats.Rejected(stats.InstanceKeys, stats.BadJSON); got != n {
				return fmt.Errorf("%d rejected, want %d", got, n)
			}
			return nil
		})
	}
	waitRejected(2)
	k.waitRegistered(summary{oneWorker, 0})
	for _, resource := range []string{kubetest.WorkerMetadata, kubetest.EndpointSlices} {
		k.server.Forbid(resource, true)
	}
	testutil.Until(t, func() error {
		if k.Fleet.Stats.Kubernetes.Up() {
			return fmt.Errorf("still connected")
		}
		return nil
	})
	k.setSlice("another", sliceEntry0(false))
	k.server.Compact() // so that only a listing has the changes
	for _, resource := range []string{kubetest.WorkerMetadata, kubetest.EndpointSlices} {
		k.server.Forbid(resource, false)
	}
	waitRejected(4)
	k.waitRegistered(summary{oneWorker, 0})
	k.server.Delete(kubetest.WorkerMetadata, "team-a", "lab-vllmworker-0")
	k.waitRegistered(summary{})
}

func TestKubernetesRefusalKeepsWorkers(t *testing.T) {
	t.Parallel()
	k := newKubeRegistry(t)
	log, out := testutil.NewLog()
	k.Log = log
	k.setSlice("slice", sliceEntry0(true))
	k.setResource0(kubetest.Object{"endpoints": endpoints0(1)})
	k.server.SetAbsent(kubetest.WorkerMetadata, true)
	k.watch()
	testutil.Until(t, out.HasCount("is their CustomResourceDefinition installed?", 1))
	if k.Fleet.IsSynced() || k.Fleet.Stats.Kubernetes.Up() {
		t.Error("the registry counts as known")
	}
	if why := k.Fleet.Stats.Kubernetes.LastError(); !strings.Contains(why, "CustomResourceDefinition") {
		t.Errorf("the last error of Kubernetes is %q", why)
	}
	k.server.SetAbsent(kubetest.WorkerMetadata, false)
	k.waitRegistered(summary{oneWorker, 0})
	k.server.Forbid(kubetest.EndpointSlices, true)
	testutil.Until(t, out.HasCount(`missing in a Role of namespace team-a: {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}`, 1))
	testutil.Until(t, func() error {
		if k.Fleet.Stats.Kubernetes.Up() {
			return fmt.Errorf("still connected")
		}
		return nil
	})
	if got := k.summary([]uint64{pod0}); !slices.Equal(got.instances, oneWorker) {
		t.Errorf("%v while nothing can be read", got)
	}
	if n := k.Fleet.Stats.Failures(stats.PeerKubernetes); n < 2 {
		t.Errorf("%d calls are counted as failed", n)
	}
	k.server.Forbid(kubetest.EndpointSlices, false)
	testutil.Until(t, out.HasCount("The Kubernetes API can be read again", 1))
	k.waitRegistered(summary{oneWorker, 0})
}

// A prefix finds both generations of a rolling update, a name finds one, and "*" finds all.
func TestKubernetesNamespacePatterns(t *testing.T) {
	for namespaces, want := range map[wire.Namespaces][]string{
		"lab-0c1d2e3f": {"backend/generate"},
		"lab*":         {"lab-0c1d2e3f/backend/generate", "lab-4b5c6d7e/backend/generate"},
		"*":            {"another/backend/generate", "lab-0c1d2e3f/backend/generate", "lab-4b5c6d7e/backend/generate"},
	} {
		t.Run(string(namespaces), func(t *testing.T) {
			k := newKubeRegistry(t)
			k.Namespaces = namespaces
			if namespaces.IsPattern() {
				k.Fleet = fleet.New(fleet.Target{Namespace: string(namespaces)}, 100, true)
				k.Fleet.Stats.Kubernetes.MarkUsed()
			}
			k.watch()
			for i, ns := range []string{"lab-0c1d2e3f", "lab-4b5c6d7e", "another"} {
				k.addPod(ns, uint64(i+1))
			}
			testutil.Until(t, func() error {
				var got []string
				for _, e := range k.Fleet.RegisteredEndpoints() {
					got = append(got, e.String())
				}
				if !slices.Equal(got, want) {
					return fmt.Errorf("registered %q, want %q", got, want)
				}
				return nil
			})
		})
	}
}

// addPod adds a ready pod that serves backend/generate in a Dynamo namespace.
func (k *kubeRegistry) addPod(namespace string, id uint64) {
	uid, name := fmt.Sprintf("uid-%d", id), fmt.Sprintf("pod-%d", id)
	k.server.Put(kubetest.WorkerMetadata, kubetest.Object{
		"metadata": kubetest.Object{"name": name, "namespace": "team-a", "ownerReferences": []any{kubetest.Object{"kind": "Pod", "name": name, "uid": uid}}},
		"spec": kubetest.Object{"data": kubetest.Object{"endpoints": kubetest.Object{fmt.Sprintf("%s/backend/generate/%x", namespace, id): kubetest.Object{
			"type": "Endpoint", "namespace": namespace, "component": "backend", "endpoint": "generate", "instance_id": id, "transport": kubetest.Object{"tcp": "h:1/x"}}}}},
	})
	k.setSlice(name, kubetest.Object{"conditions": kubetest.Object{"ready": true}, "targetRef": kubetest.Object{"kind": "Pod", "name": name, "uid": uid}})
}
