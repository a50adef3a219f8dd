package discovery

import (
	"fmt"
	"slices"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/testutil"
)

// setShadow replaces the resource of a second pod that has the first one's id.
func (k *kubeRegistry) setShadow(data any) {
	k.server.Put(kubetest.WorkerMetadata, kubetest.Object{
		"metadata": kubetest.Object{"name": "shadow", "namespace": "team-a", "ownerReferences": []any{
			kubetest.Object{"apiVersion": "v1", "kind": "Pod", "name": "shadow", "uid": "shadow"}}},
		"spec": kubetest.Object{"data": data},
	})
}

// waitChannelPorts waits until the known channels are at these ports.
func (k *kubeRegistry) waitChannelPorts(ports ...int) {
	k.t.Helper()
	var want []string
	for _, p := range ports {
		want = append(want, fmt.Sprintf("tcp://192.0.2.2:%d", p))
	}
	testutil.Until(k.t, func() error {
		var got []string
		channels, _ := k.Fleet.Channels()
		for _, c := range channels {
			got = append(got, c.Address)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("channels at %v, want %v", got, want)
		}
		return nil
	})
}

// A shadow worker that takes over is the same worker: two resources have one id and one publisher.
func TestKubernetesShadowTakesOver(t *testing.T) {
	k := newKubeRegistry(t)
	shadow := sliceEntry0(true)
	shadow["targetRef"].(kubetest.Object)["name"], shadow["targetRef"].(kubetest.Object)["uid"] = "shadow", "shadow"
	k.setSlice("slice", sliceEntry0(true))
	k.setResource0(kubetest.Object{"endpoints": endpoints0(1), "event_channels": channelAt(pod0, 2)})
	k.watch()
	k.waitRegistered(summary{oneWorker, 1})
	at := fleet.Endpoint{Component: "backend", Name: "generate"}
	load := func(blocks uint64) {
		k.Fleet.RecordLoad(fleet.Origin{Endpoint: at, Worker: pod0}, fleet.FromActiveLoad, fleet.Load{KVActive: fleet.Some(blocks)})
		k.Fleet.RecordForwardPass(fleet.Origin{Endpoint: at, Worker: pod0}, fleet.Pass{Counter: 1, Seconds: 0.1, DecodeTokens: 3})
	}
	load(5)
	k.Fleet.RecordHit(pod0, 8, 4)

	k.setShadow(kubetest.Object{"endpoints": endpoints0(11), "event_channels": channelAt(pod0, 12)})
	k.setSlice("slice", sliceEntry0(true), shadow)
	k.waitChannelPorts(12, 2) // sorted as strings
	if w := k.Fleet.Snapshot().Workers; len(w) != 1 || w[0].Load.OK || w[0].Hits.V.Events != 1 {
		t.Errorf("workers %+v, want one that is silent and keeps its counters", w)
	}
	load(6) // from the new process

	k.setSlice("slice", shadow)
	k.waitChannelPorts(12)
	k.waitRegistered(summary{oneWorker, 1})
	w := k.Fleet.Snapshot().Workers
	if len(w) != 1 || w[0].Load.V.KVActive.V != 6 || w[0].Passes.V.Count != 2 || w[0].Passes.V.DecodeTokens != 6 || w[0].Hits.V.Events != 1 {
		t.Errorf("workers %+v, want one with the load of the second and the counters of both", w)
	}
}
