package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// kubeRegistry is a registry in a fake API server, in the Kubernetes namespace team-a.
type kubeRegistry struct {
	t *testing.T
	*Kubernetes
	server *kubetest.Server
	web    *httptest.Server
}

func newKubeRegistry(t *testing.T) *kubeRegistry {
	t.Helper()
	s := new(kubetest.Server)
	web := httptest.NewServer(s)
	t.Cleanup(func() { s.EndWatches(); web.CloseClientConnections(); web.Close() })
	k := &kubeRegistry{t: t, server: s, web: web}
	k.Kubernetes = k.newProgram()
	return k
}

// newProgram returns another program at the same API server.
func (k *kubeRegistry) newProgram() *Kubernetes {
	k.t.Helper()
	client, err := kube.New(k.web.URL)
	if err != nil {
		k.t.Fatal(err)
	}
	f := fleet.New(fleet.Target{}, 10_000, true)
	f.Stats.Kubernetes.MarkUsed()
	return &Kubernetes{Client: client, In: "team-a", Namespaces: "lab", Fleet: f, Log: slog.New(slog.DiscardHandler)}
}

func (k *kubeRegistry) watch() (stop func()) {
	stop, _ = testutil.Start(k.t, func(ctx context.Context) error { k.Watch(ctx); return nil })
	return stop
}

// loadCapture puts the objects of a captured file.
func (k *kubeRegistry) loadCapture(file string) {
	k.t.Helper()
	var step map[string]json.RawMessage
	if err := json.Unmarshal(kubeCapture(k.t, file), &step); err != nil {
		k.t.Fatal(err)
	}
	for _, resource := range []string{kubetest.WorkerMetadata, kubetest.EndpointSlices, kubetest.Pods} {
		if step[resource] == nil {
			continue
		}
		objects, err := kubetest.Decode(step[resource])
		if err != nil {
			k.t.Fatal(err)
		}
		for _, o := range objects {
			k.server.Put(resource, o)
		}
	}
}

func kubeCapture(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "kubernetes", file))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// summary is what is registered: endpoints with their workers, and the number of channels.
type summary struct {
	instances []string
	channels  int
}

func (k *kubeRegistry) summary(ids []uint64) summary {
	var s summary
	for _, id := range ids {
		for _, e := range k.Fleet.EndpointsOf(id) {
			s.instances = append(s.instances, fmt.Sprintf("%s %x", e, id))
		}
	}
	slices.Sort(s.instances)
	channels, _ := k.Fleet.Channels()
	s.channels = len(channels)
	return s
}

// The ids of the captured pods.
const (
	pod0    = 0x9cf1b09034dc1
	pod1    = 0x5b1a7ba5c4fe
	engine1 = 0x595b0c42f51b7
)

func (k *kubeRegistry) waitRegistered(want summary) {
	k.t.Helper()
	testutil.Until(k.t, func() error {
		if !k.Fleet.Stats.Kubernetes.Up() {
			return fmt.Errorf("not connected")
		}
		if got := k.summary([]uint64{pod0, pod1, engine1}); !slices.Equal(got.instances, want.instances) || got.channels != want.channels {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	})
}

// expected returns the summary that the API server's objects should result in: the endpoints and
// channels of each resource whose pod is ready.
func (k *kubeRegistry) expected() (want summary) {
	ready := make(map[string]bool)
	for _, name := range k.server.Names(kubetest.EndpointSlices, "team-a") {
		endpoints, _ := k.server.Get(kubetest.EndpointSlices, "team-a", name)["endpoints"].([]any)
		for _, e := range endpoints {
			e := e.(kubetest.Object)
			if e["conditions"].(kubetest.Object)["ready"] == true {
				ready[e["targetRef"].(kubetest.Object)["uid"].(string)] = true
			}
		}
	}
	for _, name := range k.server.Names(kubetest.WorkerMetadata, "team-a") {
		o := k.server.Get(kubetest.WorkerMetadata, "team-a", name)
		owner := o["metadata"].(kubetest.Object)["ownerReferences"].([]any)[0].(kubetest.Object)
		if !ready[owner["uid"].(string)] {
			continue
		}
		data := o["spec"].(kubetest.Object)["data"].(kubetest.Object)
		endpoints, _ := data["endpoints"].(kubetest.Object)
		for key := range endpoints {
			if parts := strings.Split(key, "/"); !strings.HasPrefix(parts[2], "worker_kv_query_source_") {
				want.instances = append(want.instances, parts[1]+"/"+parts[2]+" "+parts[3])
			}
		}
		channels, _ := data["event_channels"].(kubetest.Object)
		want.channels += len(channels)
	}
	slices.Sort(want.instances)
	return want
}

// The test replays what a real API server sent about two workers of 1.6.1. They write their
// resources several times at the start. One pod is unready for a while. The other is killed and
// its container is restarted, so that emptied maps become null. Then it is stopped with SIGTERM,
// which deletes the endpoints and then the channels, but not the card. At last it is deleted.
func TestKubernetesFollowsRealWorkers(t *testing.T) {
	k := newKubeRegistry(t)
	k.loadCapture("1.6.1/life_before.json")
	k.watch()
	k.waitRegistered(summary{})
	seen := make(map[string]bool)
	for line := range bytes.Lines(kubeCapture(t, "1.6.1/life_watch.jsonl")) {
		var event struct {
			Watch, Type string
			Object      kubetest.Object
		}
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatal(err)
		}
		meta := event.Object["metadata"].(kubetest.Object)
		if event.Type == "DELETED" {
			k.server.Delete(event.Watch, "team-a", meta["name"].(string))
		} else {
			k.server.Put(event.Watch, event.Object)
		}
		want := k.expected()
		seen[fmt.Sprint(want)] = true
		k.waitRegistered(want)
	}
	if len(seen) != 8 {
		t.Errorf("%d different states were seen, want 8: %v", len(seen), slices.Collect(maps.Keys(seen)))
	}
	if n := k.Fleet.Stats.Rejected(stats.InstanceKeys, stats.BadJSON) + k.Fleet.Stats.Rejected(stats.ChannelKeys, stats.BadJSON); n > 0 {
		t.Errorf("%d parts of resources were rejected", n)
	}
}

func TestKubernetesCardsGiveTotals(t *testing.T) {
	k := newKubeRegistry(t)
	k.loadCapture("1.6.1/pipeline.json")
	k.watch()
	k.waitRegistered(summary{[]string{"backend/generate 5b1a7ba5c4fe", "backend/generate 9cf1b09034dc1"}, 8})
	k.Fleet.RecordLoad(fleet.Origin{Endpoint: fleet.Endpoint{Component: "backend", Name: "generate"}, Worker: pod0}, fleet.FromActiveLoad,
		fleet.Load{KVActive: fleet.Some[uint64](5)})
	w := k.Fleet.Snapshot().Workers
	if len(w) != 2 || w[1].ID.Lease != pod0 || w[1].Model != "tiny" || !w[1].Load.V.KVTotal.OK {
		t.Errorf("workers %+v, want the model and the totals of their cards", w)
	}
}

func TestKubernetesWorkerOf12StaysUntilUnready(t *testing.T) {
	k := newKubeRegistry(t)
	k.loadCapture("1.2.1/ready.json")
	k.watch()
	k.waitRegistered(summary{[]string{"backend/generate 9cf1b09034dc1"}, 1})
	k.loadCapture("1.2.1/after_sigterm.json")
	k.waitRegistered(summary{[]string{"backend/generate 9cf1b09034dc1"}, 0})
	k.setSlice("lab-vllmworker-abc12", sliceEntry0(false))
	k.waitRegistered(summary{})
}

func TestKubernetesContainerMode(t *testing.T) {
	k := newKubeRegistry(t)
	k.Containers = true
	k.loadCapture("1.6.1/containers_ready.json")
	k.watch()
	both := []string{"backend/generate 595b0c42f51b7", "backend/generate 9cf1b09034dc1"}
	k.waitRegistered(summary{both, 2})
	k.setContainers(map[string]bool{"main": true, "engine-1": false})
	k.waitRegistered(summary{both[1:], 1})
	k.setContainers(map[string]bool{"main": false, "engine-1": true})
	k.waitRegistered(summary{both[:1], 1})
	k.server.Delete(kubetest.Pods, "team-a", "lab-vllmworker-0")
	k.waitRegistered(summary{})
	for _, r := range k.server.Requests() {
		if strings.Contains(r, "endpointslices") {
			t.Errorf("%s: the program may have no permission for it", r)
		}
	}
}

// setContainers sets which containers of the captured pod are ready.
func (k *kubeRegistry) setContainers(ready map[string]bool) {
	pod := k.server.Get(kubetest.Pods, "team-a", "lab-vllmworker-0")
	var statuses []any
	for _, name := range slices.Sorted(maps.Keys(ready)) {
		statuses = append(statuses, kubetest.Object{"name": name, "ready": ready[name]})
	}
	pod["status"] = kubetest.Object{"podIP": "127.0.0.1", "containerStatuses": statuses}
	k.server.Put(kubetest.Pods, pod)
}

// sliceEntry0 returns the entry of the first captured pod in a slice. ready is true, false, or nil
// for an absent condition.
func sliceEntry0(ready any) kubetest.Object {
	return kubetest.Object{
		"addresses":  []any{"192.0.2.2"},
		"conditions": kubetest.Object{"ready": ready},
		"targetRef":  kubetest.Object{"kind": "Pod", "name": "lab-vllmworker-0", "namespace": "team-a", "uid": "11111111-0000-4000-8000-000000000000"},
	}
}

// setSlice replaces a slice.
func (k *kubeRegistry) setSlice(name string, endpoints ...kubetest.Object) {
	k.server.Put(kubetest.EndpointSlices, kubetest.Object{
		"metadata":  kubetest.Object{"name": name, "namespace": "team-a", "labels": kubetest.Object{"nvidia.com/dynamo-discovery-enabled": "true"}},
		"endpoints": endpoints,
		"ports":     []any{kubetest.Object{"name": "system", "port": 9090}},
	})
}

// setResource0 replaces the resource of the first captured pod.
func (k *kubeRegistry) setResource0(data any) {
	k.server.Put(kubetest.WorkerMetadata, kubetest.Object{
		"metadata": kubetest.Object{"name": "lab-vllmworker-0", "namespace": "team-a", "ownerReferences": []any{
			kubetest.Object{"apiVersion": "v1", "kind": "Pod", "name": "lab-vllmworker-0", "uid": "11111111-0000-4000-8000-000000000000"}}},
		"spec": kubetest.Object{"data": data},
	})
}

// endpoints0 returns the endpoints of the first captured pod, at a port.
func endpoints0(port int) kubetest.Object {
	return kubetest.Object{"lab/backend/generate/9cf1b09034dc1": kubetest.Object{
		"type": "Endpoint", "namespace": "lab", "component": "backend", "endpoint": "generate", "instance_id": pod0,
		"transport": kubetest.Object{"tcp": fmt.Sprintf("192.0.2.2:%d/9cf1b09034dc1/lab/backend/generate", port)},
	}}
}

// channelAt returns an event channel for loads of the first captured pod.
func channelAt(publisher, port int) kubetest.Object {
	return kubetest.Object{fmt.Sprintf("namespace/lab/component/backend/endpoint/generate/topic/kv_metrics/%x", publisher): kubetest.Object{
		"type": "EventChannel", "topic": "kv_metrics", "instance_id": publisher, "namespace": "lab", "component": "backend",
		"scope":     kubetest.Object{"kind": "endpoint", "endpoint": kubetest.Object{"namespace": "lab", "component": "backend", "name": "generate"}},
		"transport": kubetest.Object{"kind": "Zmq", "config": kubetest.Object{"endpoint": fmt.Sprintf("tcp://192.0.2.2:%d", port)}},
	}}
}

var oneWorker = []string{"backend/generate 9cf1b09034dc1"}

func TestKubernetesNullMapIsEmpty(t *testing.T) {
	k := newKubeRegistry(t)
	k.setSlice("slice", sliceEntry0(true))
	k.watch()
	k.setResource0(kubetest.Object{"endpoints": endpoints0(1), "event_channels": channelAt(7, 2)})
	k.waitRegistered(summary{oneWorker, 1})
	k.setResource0(nil) // the last good value stays
	k.setResource0(kubetest.Object{"endpoints": endpoints0(1), "event_channels": nil})
	k.waitRegistered(summary{oneWorker, 0})
	k.setResource0(kubetest.Object{"endpoints": nil, "event_channels": channelAt(7, 2)})
	k.waitRegistered(summary{nil, 1})
	k.setResource0(kubetest.Object{})
	k.waitRegistered(summary{})
}

func TestKubernetesCardAloneIsNoWorker(t *testing.T) {
	k := newKubeRegistry(t)
	k.setSlice("slice", sliceEntry0(true))
	card := kubetest.Object{"lab/backend/generate/9cf1b09034dc1": kubetest.Object{"type": "Model", "card_json": kubetest.Object{
		"display_name": "m", "runtime_config": kubetest.Object{"total_kv_blocks": 1000}}}}
	k.setResource0(kubetest.Object{"endpoints": endpoints0(1), "model_cards": card})
	k.watch()
	k.waitRegistered(summary{oneWorker, 0})
	k.setResource0(kubetest.Object{"endpoints": nil, "model_cards": card}) // as after SIGTERM
	k.waitRegistered(summary{})
	if s := k.Fleet.Snapshot(); len(s.Workers) > 0 {
		t.Errorf("workers %+v, want none", s.Workers)
	}
}

func TestKubernetesReadinessNeedsPodUID(t *testing.T) {
	k := newKubeRegistry(t)
	k.setResource0(kubetest.Object{"endpoints": endpoints0(1)})
	k.watch()
	other := sliceEntry0(true)
	other["targetRef"] = kubetest.Object{"kind": "Pod", "name": "lab-vllmworker-0", "uid": "another-uid"}
	nameless := sliceEntry0(true)
	nameless["targetRef"] = kubetest.Object{"kind": "Pod", "name": "lab-vllmworker-0"}
	without := sliceEntry0(true)
	delete(without, "targetRef")
	for name, c := range map[string]struct {
		entry kubetest.Object
		ready bool
	}{
		"ready": {sliceEntry0(true), true}, "not ready": {sliceEntry0(false), false}, "absent": {sliceEntry0(nil), false},
		"another pod of the same name": {other, false}, "no uid": {nameless, false}, "no pod": {without, false},
	} {
		k.setSlice("slice", c.entry)
		want := summary{}
		if c.ready {
			want.instances = oneWorker
		}
		k.waitRegistered(want)
		k.setSlice("slice", sliceEntry0(!c.ready)) // so that the next case changes something
		want = summary{}
		if !c.ready {
			want.instances = oneWorker
		}
		k.waitRegistered(want)
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestKubernetesPodInTwoSlices(t *testing.T) {
	k := newKubeRegistry(t)
	k.setResource0(kubetest.Object{"endpoints": endpoints0(1)})
	k.setSlice("one", sliceEntry0(true))
	k.setSlice("two", sliceEntry0(true))
	k.watch()
	k.waitRegistered(summary{oneWorker, 0})
	k.server.Delete(kubetest.EndpointSlices, "team-a", "one")
	k.setSlice("two", sliceEntry0(true), sliceEntry0(false))
	k.waitRegistered(summary{oneWorker, 0})
	k.setSlice("two", sliceEntry0(false))
	k.waitRegistered(summary{})
}

func TestKubernetesRestartedContainer(t *testing.T) {
	k := newKubeRegistry(t)
	k.setSlice("slice", sliceEntry0(true))
	k.setResource0(kubetest.Object{"endpoints": endpoints0(1), "event_channels": channelAt(7, 2)})
	k.watch()
	k.waitRegistered(summary{oneWorker, 1})
	load := func(blocks uint64) {
		k.Fleet.RecordLoad(fleet.Origin{Endpoint: fleet.Endpoint{Component: "backend", Name: "generate"}, Worker: pod0}, fleet.FromActiveLoad,
			fleet.Load{KVActive: fleet.Some(blocks)})
	}
	load(5)
	k.setResource0(kubetest.Object{"endpoints": endpoints0(11), "event_channels": nil}) // the same pod and id
	k.waitRegistered(summary{oneWorker, 0})
	if w := k.Fleet.Snapshot().Workers; len(w) != 1 || w[0].Load.OK || w[0].Up {
		t.Errorf("workers %+v, want one that is silent", w)
	}
	k.setResource0(kubetest.Object{"endpoints": endpoints0(11), "event_channels": channelAt(8, 12)})
	k.waitRegistered(summary{oneWorker, 1})
	channels, _ := k.Fleet.Channels()
	for _, c := range channels {
		if c.Address != "tcp://192.0.2.2:12" || c.Publisher != 8 {
			t.Errorf("channel %+v, want the new process's", c)
		}
	}
}

func TestKubernetesPodOfSameName(t *testing.T) {
	k := newKubeRegistry(t)
	k.setSlice("slice", sliceEntry0(true))
	k.setResource0(kubetest.Object{"endpoints": endpoints0(1)})
	k.watch()
	k.waitRegistered(summary{oneWorker, 0})
	next := k.server.Get(kubetest.WorkerMetadata, "team-a", "lab-vllmworker-0")
	next["metadata"].(kubetest.Object)["ownerReferences"] = []any{kubetest.Object{"kind": "Pod", "name": "lab-vllmworker-0", "uid": "next"}}
	k.server.Put(kubetest.WorkerMetadata, next)
	k.waitRegistered(summary{}) // it is not ready yet
	entry := sliceEntry0(true)
	entry["targetRef"].(kubetest.Object)["uid"] = "next"
	k.setSlice("slice", entry)
	k.waitRegistered(summary{oneWorker, 0})
}
