package discovery

import (
	"errors"
	"slices"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// A worker with keys in two layouts (0.6 writes both) stays until both keys are deleted, in either
// order.
func TestEtcdWorkerUnderTwoLayouts(t *testing.T) {
	for _, first := range []wire.Layout{wire.LayoutInstances, wire.LayoutV1} {
		r := newRegistry(t)
		testutil.Start(t, r.Watch)
		<-r.Fleet.Synced()
		in := worker(7)
		r.register(wire.LayoutInstances, in)
		r.register(wire.LayoutV1, in)
		markerID := uint64(100)
		waitApplied := func(l wire.Layout) { // waits until the watch of a layout, whose events are in order, has reported all changes
			t.Helper()
			markerID++
			marker := fleet.Instance{Endpoint: fleet.Endpoint{Component: "marker", Name: "marker"}, ID: markerID}
			r.register(l, marker)
			testutil.Until(t, func() error {
				if !r.Fleet.IsRegistered(marker) {
					return errors.New("the marker is not registered")
				}
				return nil
			})
		}
		waitApplied(wire.LayoutInstances)
		waitApplied(wire.LayoutV1)
		r.Fleet.RecordLoad(fleet.Origin{Endpoint: in.Endpoint, Worker: in.ID}, fleet.FromActiveLoad, fleet.Load{KVActive: fleet.Some[uint64](5)})
		checkLoad := func(want bool) {
			t.Helper()
			got := slices.ContainsFunc(r.Fleet.Snapshot().Workers, func(w fleet.WorkerState) bool { return w.ID.Lease == in.ID && w.Load.OK })
			if got != want || r.Fleet.IsRegistered(in) != want {
				t.Errorf("after %v was deleted first: the worker has a load: %v, want %v", first, got, want)
			}
		}
		checkLoad(true)
		r.delete(first.Key("dynamo", in))
		waitApplied(first)
		checkLoad(true)
		r.register(first, in)
		waitApplied(first)
		checkLoad(true)
		r.delete(first.Key("dynamo", in))
		other := wire.LayoutInstances + wire.LayoutV1 - first
		r.delete(other.Key("dynamo", in))
		waitApplied(first)
		waitApplied(other)
		checkLoad(false)
	}
}

// The resources of two pods have the same key, as while one pod replaces the other.
func TestKubernetesWorkerInTwoResources(t *testing.T) {
	for _, first := range []string{"a", "b"} {
		k := newKubeRegistry(t)
		putResource := func(pod, id string, number int) {
			endpoints := kubetest.Object{"lab/backend/generate/" + id: kubetest.Object{
				"type": "Endpoint", "namespace": "lab", "component": "backend", "endpoint": "generate", "instance_id": number,
				"transport": kubetest.Object{"tcp": "192.0.2.2:1/" + id},
			}}
			k.server.Put(kubetest.WorkerMetadata, kubetest.Object{
				"metadata": kubetest.Object{"name": pod, "namespace": "team-a", "ownerReferences": []any{
					kubetest.Object{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": pod}}},
				"spec": kubetest.Object{"data": kubetest.Object{"endpoints": endpoints}},
			})
		}
		var ready []kubetest.Object
		for _, pod := range []string{"a", "b", "c"} {
			entry := sliceEntry0(true)
			entry["targetRef"] = kubetest.Object{"kind": "Pod", "name": pod, "namespace": "team-a", "uid": pod}
			ready = append(ready, entry)
		}
		k.setSlice("slice", ready...)
		k.watch()
		putResource("a", "9cf1b09034dc1", pod0)
		putResource("b", "9cf1b09034dc1", pod0)
		k.waitRegistered(summary{oneWorker, 0})
		k.server.Delete(kubetest.WorkerMetadata, "team-a", first)
		putResource("c", "5b1a7ba5c4fe", pod1) // when it is registered, the deletion has been applied
		k.waitRegistered(summary{[]string{"backend/generate 5b1a7ba5c4fe", "backend/generate 9cf1b09034dc1"}, 0})
		k.server.Delete(kubetest.WorkerMetadata, "team-a", map[string]string{"a": "b", "b": "a"}[first])
		k.waitRegistered(summary{[]string{"backend/generate 5b1a7ba5c4fe"}, 0})
	}
}
