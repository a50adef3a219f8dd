package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/mock"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// cluster is an API server, and mock workers of 1.6.1 on ZMQ whose registrations are copied
// into resources like those of Dynamo's workers.
type cluster struct {
	*stack
	api *kubetest.Server
	web *httptest.Server
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{stack: newStack(t), api: new(kubetest.Server)}
	c.web = httptest.NewServer(c.api)
	t.Cleanup(c.stopAPI)
	return c
}

// stopAPI ends the API server, which keeps its objects.
func (c *cluster) stopAPI() {
	c.api.EndWatches()
	c.web.CloseClientConnections()
	c.web.Close()
}

// restartAPI starts it again at the same address.
func (c *cluster) restartAPI() {
	c.t.Helper()
	address := c.web.Listener.Addr().String()
	c.web = httptest.NewUnstartedServer(c.api)
	c.web.Listener.Close()
	testutil.Until(c.t, func() (err error) {
		c.web.Listener, err = net.Listen("tcp", address)
		return err
	})
	c.web.Start()
}

// metrics starts the program in the cluster, without NATS and etcd.
func (c *cluster) metrics(args ...string) *server {
	c.t.Helper()
	return serve(c.t, []string{"POD_NAMESPACE=team-a", "DYN_DISCOVERY_BACKEND=kubernetes"}, append([]string{"--kubernetes-api", c.web.URL}, args...)...)
}

// podWorker is a mock worker in a pod.
type podWorker struct {
	*mockWorker
	*mockScript
	name string
}

// keysOfWorker is the number of keys of a mock worker of 1.6.1 on ZMQ: its endpoint, its
// model card, and the channels of loads and forward passes.
const keysOfWorker = 4

// startWorker runs a mock worker in a pod of this name, which is not ready yet.
func (c *cluster) startWorker(namespace, name string) *podWorker {
	c.t.Helper()
	before := c.keys()
	p := &mockScript{load: loadOf(1, 1, 1)}
	w := c.mock(p.applyTo(mock.Config{Namespace: namespace, Component: "backend", Endpoint: "generate", Release: "1.6.1", EventPlane: "zmq"}))
	own := make(map[string]string)
	testutil.Until(c.t, func() error {
		for key, value := range c.keys() {
			if _, old := before[key]; !old {
				own[key] = value
			}
		}
		if len(own) < keysOfWorker {
			return fmt.Errorf("%d keys of the worker so far", len(own))
		}
		return nil
	})
	c.api.Put(kubetest.WorkerMetadata, resource(name, own))
	return &podWorker{w, p, name}
}

// resource returns the DynamoWorkerMetadata that the worker in a pod writes.
func resource(pod string, keys map[string]string) kubetest.Object {
	return kubetest.Object{
		"metadata": kubetest.Object{"name": pod, "namespace": "team-a", "ownerReferences": []any{
			kubetest.Object{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": "uid-of-" + pod}}},
		"spec": kubetest.Object{"data": kubetest.Object{
			"endpoints": withPrefix(keys, "v1/instances/"), "model_cards": withPrefix(keys, "v1/mdc/"), "event_channels": withPrefix(keys, "v1/event_channels/")}},
	}
}

// keys returns the registry's keys under v1/ in etcd, with their values.
func (c *cluster) keys() map[string]string {
	c.t.Helper()
	all, err := c.etcd.Get(c.t.Context(), "v1/", clientv3.WithPrefix())
	if err != nil {
		c.t.Fatal(err)
	}
	keys := make(map[string]string)
	for _, kv := range all.Kvs {
		keys[string(kv.Key)] = string(kv.Value)
	}
	return keys
}

// withPrefix returns the values whose keys begin with prefix, by the rest of the key.
func withPrefix(keys map[string]string, prefix string) kubetest.Object {
	part := kubetest.Object{}
	for key, value := range keys {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			part[rest] = json.RawMessage(value)
		}
	}
	return part
}

// ready marks the worker's pod as ready or not ready.
func (c *cluster) ready(w *podWorker, ready bool) { c.slice(w, ready, nil) }

// slice writes the EndpointSlice of the worker's pod, with ports.
func (c *cluster) slice(w *podWorker, ready bool, ports []any) {
	c.api.Put(kubetest.EndpointSlices, kubetest.Object{
		"ports":    ports,
		"metadata": kubetest.Object{"name": "slice-of-" + w.name, "namespace": "team-a", "labels": kubetest.Object{"nvidia.com/dynamo-discovery-enabled": "true"}},
		"endpoints": []any{kubetest.Object{"addresses": []any{"127.0.0.1"}, "conditions": kubetest.Object{"ready": ready},
			"targetRef": kubetest.Object{"kind": "Pod", "name": w.name, "uid": "uid-of-" + w.name}}},
	})
}

// samples returns what /metrics shows for a worker with this load.
func (w *podWorker) samples(slots, waiting, blocks uint64) samples {
	want := samples{}
	for metric, value := range map[string]uint64{
		"llm_worker_up": 1, "llm_kv_blocks_active": blocks, "llm_kv_blocks_total": 1000,
		"llm_requests_active_slots": slots, "llm_requests_total_slots": 100, "llm_requests_waiting": waiting,
	} {
		want[w.mockWorker.series(metric)] = fmt.Sprint(value)
	}
	return want
}

func TestKubernetesFleetNeedsNeitherEtcdNorNATS(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	first, second := c.startWorker("dynamo", "pod-0"), c.startWorker("dynamo", "pod-1")
	m := c.metrics()
	m.waitFor(func(p samples) error { return p.matchNoneOf(first.id) })
	c.ready(first, true)
	m.waitForPublishers(2, 0)
	m.waitUntilReady()
	first.setLoad(loadOf(3, 2, 40))
	m.waitForSamples(first.samples(3, 2, 40))
	m.waitForSamples(samples{
		`dynamo_metrics_connected{system="kubernetes"}`: "1", `dynamo_metrics_connected{system="nats"}`: "0", `dynamo_metrics_connected{system="zmq"}`: "1",
		`dynamo_metrics_connected{system="etcd"}`: "", `dynamo_metrics_leader`: "1", workersSeries("generate", "answering"): "1",
	})

	c.ready(second, true)
	m.waitForPublishers(4, 0)
	second.setLoad(loadOf(5, 4, 60))
	m.waitForSamples(second.samples(5, 4, 60))
	m.waitForSamples(samples{workersSeries("generate", "answering"): "2", `llm_load_avg{` + backend + `}`: "50"})

	c.ready(first, false) // the program removes it at once, and closes its connections to it
	m.waitForPublishers(2, 0)
	m.waitFor(func(p samples) error { return p.matchNoneOf(first.id) })
	c.ready(first, true)
	m.waitForPublishers(4, 0)
	// Its forward passes, one a second, show that it is alive. Its blocks are unknown until
	// they change.
	m.waitForSamples(samples{workersSeries("generate", "answering"): "2", first.mockWorker.series("llm_kv_blocks_active"): "", first.mockWorker.series("llm_worker_up"): "1"})
	first.setLoad(loadOf(6, 5, 70))
	m.waitForSamples(first.samples(6, 5, 70))

	second.stop(mock.ErrKilled) // its pod stays ready until the kubelet notices, but its sockets are closed
	m.waitForPublishers(2, 2)
	c.ready(second, false)
	m.waitForPublishers(2, 0)
	m.waitFor(func(p samples) error { return p.matchNoneOf(second.id) })
	c.api.Delete(kubetest.WorkerMetadata, "team-a", first.name)
	m.waitFor(func(p samples) error { return p.matchNoneOf(first.id) })
	m.waitForSamples(samples{workersSeries("generate", "answering"): "0", `llm_load_avg{` + backend + `}`: ""})
	m.Terminate()
}

func TestKubernetesSystemPortLeadsToWorkerMetrics(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	w := c.startWorker("lab-0c1d2e3f", "pod-0")
	own := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(out, `dynamo_component_total_blocks{dynamo_component="backend",dynamo_endpoint="generate",dynamo_namespace="another",worker_id="%[1]x"} 7
vllm:prefix_cache_queries_total{engine="0"} 1000
vllm:prefix_cache_hits_total{engine="0"} 625
`, w.id)
	}))
	t.Cleanup(own.Close)
	port := own.Listener.Addr().(*net.TCPAddr).Port
	c.slice(w, true, []any{kubetest.Object{"name": "http", "port": 1}, kubetest.Object{"name": "system", "port": port}})
	m := c.metrics("--namespace", "lab-*", "--scrape-interval", "1")
	m.waitForPublishers(2, 0)
	w.setLoad(loadOf(3, 2, 40))
	shown := samples{withNamespace("lab-0c1d2e3f", w.mockWorker.series("llm_kv_hit_rate_percent")): "0.625"}
	for series, value := range w.samples(3, 2, 40) {
		shown[withNamespace("lab-0c1d2e3f", series)] = value
	}
	m.waitForSamples(shown)
	status, body := get(m.url + "/api/v1/targets")
	for _, want := range []string{fmt.Sprintf(`"targets":["127.0.0.1:%d"]`, port), `"dynamo_namespace":"lab-0c1d2e3f"`} {
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("GET /api/v1/targets: %d %s, want %s", status, body, want)
		}
	}
}

func TestKubernetesAPIOutageKeepsWorkers(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	w := c.startWorker("dynamo", "pod-0")
	c.ready(w, true)
	m := c.metrics()
	m.waitForPublishers(2, 0)
	w.setLoad(loadOf(3, 2, 40))
	m.waitForSamples(w.samples(3, 2, 40))
	c.stopAPI()
	m.waitUntilNotReady("the Kubernetes API cannot be read")
	m.WaitForLine("The Kubernetes API cannot be read; keeping the last known fleet and retrying")
	w.setLoad(loadOf(4, 3, 50)) // events need no API server
	m.waitForSamples(w.samples(4, 3, 50))
	if os.Getenv("SURVIVAL") == "long" { // as in e2e/survival
		backoff.Wait(t.Context(), time.Minute)
		m.waitForSamples(w.samples(4, 3, 50))
	}
	c.restartAPI()
	m.waitUntilReady()
	m.waitForSamples(w.samples(4, 3, 50))
	m.WaitForLine("The Kubernetes API can be read again")
}

func TestKubernetesRollingUpdateShowsBothGenerations(t *testing.T) {
	t.Parallel()
	for _, namespaces := range []string{"team-a-lab-*", "*"} {
		t.Run(namespaces, func(t *testing.T) {
			t.Parallel()
			testSamplesOfBothGenerations(t, namespaces)
		})
	}
}

func testSamplesOfBothGenerations(t *testing.T, namespaces string) {
	c := newCluster(t)
	old, next := c.startWorker("team-a-lab-0c1d2e3f", "pod-old"), c.startWorker("team-a-lab-4b5c6d7e", "pod-new")
	c.ready(old, true)
	m := c.metrics("--namespace", namespaces)
	m.waitForPublishers(2, 0)
	shows := func(w *podWorker, namespace string, slots, waiting, blocks uint64) {
		t.Helper()
		w.setLoad(loadOf(slots, waiting, blocks))
		want := samples{}
		for series, value := range w.samples(slots, waiting, blocks) {
			want[withNamespace(namespace, series)] = value
		}
		m.waitForSamples(want)
	}
	shows(old, "team-a-lab-0c1d2e3f", 3, 2, 40)
	c.ready(next, true)
	m.waitForPublishers(4, 0)
	shows(next, "team-a-lab-4b5c6d7e", 5, 4, 60)
	m.waitForSamples(samples{withNamespace("team-a-lab-0c1d2e3f", workersSeries("generate", "answering")): "1", withNamespace("team-a-lab-4b5c6d7e", workersSeries("generate", "answering")): "1"})
	c.ready(old, false)
	m.waitForPublishers(2, 0)
	m.waitFor(func(p samples) error { return p.matchNoneOf(old.id) })
	shows(next, "team-a-lab-4b5c6d7e", 6, 5, 80)
}

// TestKubernetesShadowWorkerTakeoverIsARestart checks the takeover by a shadow worker: two
// pods have the worker's id, the second one at other addresses. From then on the load is
// that of the second, and counters continue.
func TestKubernetesShadowWorkerTakeoverIsARestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	const id = 13019061642146836831
	pod := func(name, requests string) (w *podWorker, loads, passes *publisher) {
		loads, passes = newPublisher(t, "PUB"), newPublisher(t, "PUB")
		keys := make(map[string]string)
		for _, e := range append(registration(id), channel(wire.TopicLoad, id, zmqTransport(loads.address)), channel(wire.TopicForwardPass, id, zmqTransport(passes.address))) {
			keys[e.key] = strings.Replace(withFloats(e.value), "127.0.0.1:9/", requests+"/", 1)
		}
		w = &podWorker{name: name}
		c.api.Put(kubetest.WorkerMetadata, resource(name, keys))
		c.ready(w, true)
		return w, loads, passes
	}
	m := c.metrics()
	first, loads, passes := pod("pod-0", "127.0.0.1:9")
	m.waitForPublishers(2, 0)
	loads.send(event{id, 0, wire.TopicLoad, load16(id, 10)}.frames(wire.TopicLoad))
	for n := range uint64(5) {
		passes.send(event{id, n, wire.TopicForwardPass, forwardPass(fmt.Sprint(uint64(id)), n+1)}.frames(wire.TopicForwardPass))
	}
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", id): "10", workerSeries("llm_forward_passes_total", "generate", id): "5"})

	_, loads, passes = pod("pod-1", "127.0.0.1:19")
	m.waitForPublishers(4, 0)
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", id): "", workersSeries("generate", "silent"): "1", workersSeries("generate", "answering"): "0"})
	loads.send(event{id, 0, wire.TopicLoad, load16(id, 20)}.frames(wire.TopicLoad))
	passes.send(event{id, 0, wire.TopicForwardPass, forwardPass(fmt.Sprint(uint64(id)), 1)}.frames(wire.TopicForwardPass))
	shown := samples{
		workerSeries("llm_kv_blocks_active", "generate", id): "20", workerSeries("llm_forward_passes_total", "generate", id): "6",
		workerSeries("llm_forward_passes_missed_total", "generate", id): "0", "dynamo_metrics_event_sequence_gaps_total": "0",
		workersSeries("generate", "silent"): "0", workersSeries("generate", "answering"): "1",
	}
	m.waitForSamples(shown)
	c.ready(first, false)
	m.waitForPublishers(2, 0)
	m.waitForSamples(shown)
	if p, err := m.scrape(); err != nil || len(p.filter("rejected_messages")) > 0 {
		t.Errorf("rejected: %v, %v", p.filter("rejected_messages"), err)
	}
}

func TestKubernetesStandbyReplacesAKilledLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	w := c.startWorker("dynamo", "pod-0")
	c.ready(w, true)
	first := c.metrics("--standby")
	first.waitForPublishers(2, 0)
	first.waitForSamples(samples{"dynamo_metrics_leader": "1"})
	second := c.metrics("--standby")
	second.waitUntilReady()
	second.waitForPublishers(2, 0)
	w.setLoad(loadOf(3, 2, 40))
	shown := w.samples(3, 2, 40)
	first.waitForSamples(shown)
	waitUntilStandby(t, second, shown)
	code, last := runToFailure(t, "metrics", []string{"POD_NAMESPACE=team-a"}, "--discovery", "kubernetes", "--kubernetes-api", c.web.URL, "--metrics-port", "0")
	if code != 1 || !strings.Contains(last, "another instance exists") {
		t.Errorf("a third program without --standby ends with %d: %s", code, last)
	}
	first.Kill()
	second.waitForSamples(samples{"dynamo_metrics_leader": "1"})
	second.waitForSamples(shown)
	second.Terminate() // releases the Lease
	third := c.metrics()
	third.waitForSamples(samples{"dynamo_metrics_leader": "1"})
}

func TestKubernetesRefusalIsLoggedInOneLine(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.api.SetAbsent(kubetest.WorkerMetadata, true)
	c.api.Forbid(kubetest.EndpointSlices, true)
	m := c.metrics()
	m.WaitForLine("list dynamoworkermetadatas.nvidia.com in team-a: 404 Not Found: 404 page not found (the cluster has no dynamoworkermetadatas.nvidia.com: is their CustomResourceDefinition installed?)")
	m.WaitForLine(`missing in a Role of namespace team-a: {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}`)
	m.waitUntilNotReady("the Kubernetes API cannot be read")
	c.api.SetAbsent(kubetest.WorkerMetadata, false)
	c.api.Forbid(kubetest.EndpointSlices, false)
	m.waitUntilReady()
}

// TestKubernetesDocumentedPermissionsAreThoseUsed compares SECURITY.md with the program's
// requests to the API server in both modes.
func TestKubernetesDocumentedPermissionsAreThoseUsed(t *testing.T) {
	t.Parallel()
	used, lease := make(map[string]bool), ""
	for _, mode := range []string{"pod", "container"} {
		c := newCluster(t)
		first := serve(t, []string{"POD_NAMESPACE=team-a", "DYN_KUBE_DISCOVERY_MODE=" + mode}, "--discovery", "kubernetes", "--kubernetes-api", c.web.URL, "--namespace", "*", "--standby")
		first.waitForSamples(samples{"dynamo_metrics_leader": "1"})
		second := c.metrics("--namespace", "*", "--standby")
		second.WaitForLine("Standing by")
		first.Terminate()
		second.waitForSamples(samples{"dynamo_metrics_leader": "1"})
		second.Terminate()
		lease = c.api.Names(kubetest.Leases, "team-a")[0]
		for _, r := range c.api.Requests() {
			used[requiredPermission(t, r)] = true
		}
	}
	documented := make(map[string]bool)
	rule := regexp.MustCompile(`- \{apiGroups: \[(.*)\], resources: \[(\w+)\](?:, resourceNames: \[(.*)\])?, verbs: \[(.*)\]\}`)
	for _, m := range rule.FindAllStringSubmatch(string(readFile(t, "../SECURITY.md")), -1) {
		if m[3] != "" && m[3] != lease {
			t.Errorf("the documented lease is %s, want %s", m[3], lease)
		}
		for verb := range strings.SplitSeq(m[4], ", ") {
			documented[verb+" "+m[2]+"."+strings.Trim(m[1], `"`)] = true
		}
	}
	if diff := cmp.Diff(documented, used); diff != "" {
		t.Errorf("permissions (-documented +used):\n%s", diff)
	}
}

// requiredPermission returns the verb, resource and group that a Role must have for a
// request.
func requiredPermission(t *testing.T, request string) string {
	t.Helper()
	method, target, _ := strings.Cut(request, " ")
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/") // apis/{group}/{version}/namespaces/{ns}/{resource}[/{name}], or api/{version}/…
	group := ""
	if parts[0] == "apis" {
		group, parts = parts[1], parts[1:]
	}
	verb := map[string]string{"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[method]
	switch {
	case u.Query().Get("watch") == "true":
		verb = "watch"
	case method == "GET" && len(parts) == 5:
		verb = "list"
	}
	return verb + " " + parts[4] + "." + group
}
