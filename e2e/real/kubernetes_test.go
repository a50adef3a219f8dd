//go:build real

package real

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/testutil"
)

// cluster is an API server with which real workers register. The test does the work of the
// kubelet, the EndpointSlice controller and the garbage collector.
type cluster struct {
	api        apiServer
	url        string // an address that requires no credentials
	kubeconfig string // a file that contains its address
}

// apiServer is how a test changes the objects of an API server, either the tests' own or
// Kubernetes' own.
type apiServer interface {
	Put(resource string, o kubetest.Object)
	Delete(resource, namespace, name string)
	Get(resource, namespace, name string) kubetest.Object // nil if it does not exist
}

const inNamespace = "team-a"

// realKubernetes reports whether to use Kubernetes' own API server, which
// .ci/nightly-kubernetes selects.
func realKubernetes() bool { return os.Getenv("KUBERNETES") == "real" }

// startKubernetes starts an API server without workers.
func (s *servers) startKubernetes() {
	s.t.Helper()
	if realKubernetes() {
		s.startRealKubernetes()
		return
	}
	api := new(kubetest.Server)
	web := httptest.NewServer(api)
	s.t.Cleanup(func() { api.EndWatches(); web.CloseClientConnections(); web.Close() })
	s.kube = &cluster{api, web.URL, kubeconfig(s.t, kubetest.Object{"server": web.URL}, kubetest.Object{"token": "secret"})}
}

// kubeconfig writes a kubeconfig file with the address of an API server and a user.
func kubeconfig(t *testing.T, server, user kubetest.Object) (file string) {
	t.Helper()
	config, err := json.Marshal(kubetest.Object{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []any{kubetest.Object{"name": "test", "cluster": server}},
		"users":    []any{kubetest.Object{"name": "test", "user": user}},
		"contexts": []any{kubetest.Object{"name": "test", "context": kubetest.Object{"cluster": "test", "user": "test", "namespace": inNamespace}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// env returns the variables that lead programs to the cluster.
func (c *cluster) env() []string {
	return []string{"DYN_DISCOVERY_BACKEND=kubernetes", "POD_NAMESPACE=" + inNamespace, "KUBECONFIG=" + c.kubeconfig}
}

// podEnv returns the variables that tell a process its pod, or none without a cluster.
func (s *servers) podEnv(name string) []string {
	if s.kube == nil {
		return nil
	}
	return []string{"POD_NAME=" + name, "POD_UID=" + uid(name)}
}

func uid(pod string) string { return "uid-of-" + pod }

// ready marks a pod as ready or not ready in its EndpointSlice.
func (c *cluster) ready(pod string, ready bool) {
	c.api.Put(kubetest.EndpointSlices, kubetest.Object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata": kubetest.Object{"name": pod + "-slice", "namespace": inNamespace,
			"labels": kubetest.Object{"nvidia.com/dynamo-discovery-enabled": "true", "nvidia.com/dynamo-discovery-backend": "kubernetes"}},
		"endpoints": []any{kubetest.Object{
			"addresses": []any{"127.0.0.1"}, "conditions": kubetest.Object{"ready": ready, "serving": ready, "terminating": false},
			"targetRef": kubetest.Object{"kind": "Pod", "name": pod, "namespace": inNamespace, "uid": uid(pod)},
		}},
	})
}

// delete does what follows the deletion of a pod: it deletes the EndpointSlice, and what
// the pod owns.
func (c *cluster) delete(pod string) {
	c.api.Delete(kubetest.EndpointSlices, inNamespace, pod+"-slice")
	c.api.Delete(kubetest.WorkerMetadata, inNamespace, pod)
}

// startInPod starts a worker in a pod, and waits until its resource lists what it serves.
func (s *servers) startInPod(release, pod string, env ...string) *publisher {
	s.t.Helper()
	p := s.publisher(release, append(s.podEnv(pod), env...)...)
	testutil.Until(s.t, func() error {
		if s.kube.api.Get(kubetest.WorkerMetadata, inNamespace, pod) == nil {
			return fmt.Errorf("%s has written no resource", pod)
		}
		return nil
	})
	return p
}

// startInCluster starts the program in the cluster.
func (s *servers) startInCluster(args ...string) *metrics {
	s.t.Helper()
	return s.metrics(append([]string{"--kubernetes-api", s.kube.url, "--poll-interval", "0.2"}, args...)...)
}

// waitForUnreachable waits until this many ZeroMQ publishers cannot be reached.
func (m *metrics) waitForUnreachable(n int) {
	m.T.Helper()
	testutil.Until(m.T, func() error {
		p, err := m.scrape()
		if err != nil {
			return err
		}
		if got := p[`dynamo_metrics_zmq_publishers{state="disconnected"}`]; got != fmt.Sprint(n) {
			return fmt.Errorf("%s publishers cannot be reached, want %d", got, n)
		}
		return nil
	})
}

func TestKubernetesPodsOf16NeedNeitherEtcdNorNATS(t *testing.T) {
	t.Parallel()
	python(t, "1.6.1")
	s := &servers{t: t}
	s.startKubernetes()
	m := s.startInCluster()
	a, b := s.startInPod("1.6.1", "worker-0"), s.startInPod("1.6.1", "worker-1")
	s.kube.ready("worker-0", true)
	s.kube.ready("worker-1", true)
	workers := names{"A": a.id, "B": b.id}
	m.waitForLoad(a)
	m.waitForLoad(b)
	a.publish(activeA)
	b.publish(activeB)
	t.Logf("with two pods of ai-dynamo-runtime 1.6.1:\n%s", withoutGoMetrics(m.waitForGoldenSubset("active-loads", workers)))

	s.kube.ready("worker-0", false)
	m.waitUntilForgotten(a)
	s.kube.ready("worker-0", true)
	m.waitForLoad(a)
	a.publish(activeA)
	m.waitForGoldenSubset("active-loads", workers)

	// The pod of a killed worker stays ready until the kubelet notices. Its sockets show it
	// earlier.
	b.Kill()
	m.waitForUnreachable(2)
	s.kube.ready("worker-1", false)
	m.waitUntilForgotten(b)
	m.waitForUnreachable(0)

	// A restarted container has the name, the uid and the id of its predecessor.
	again := s.startInPod("1.6.1", "worker-1")
	if again.id != b.id {
		t.Errorf("the restarted worker's id is %d, want %d", again.id, b.id)
	}
	s.kube.ready("worker-1", true)
	m.waitForLoad(again)
	again.publish(activeB)
	m.waitForGoldenSubset("active-loads", workers)
	again.Kill()
	m.waitForUnreachable(2)
	once := s.startInPod("1.6.1", "worker-1") // this time the program has not seen it unready
	m.waitForUnreachable(0)
	m.waitForLoad(once)
	once.publish(activeB)
	m.waitForGoldenSubset("active-loads", workers)

	a.Signal(syscall.SIGTERM) // it empties its resource, whose model card stays
	m.waitUntilForgotten(a)
	s.kube.delete("worker-1")
	m.waitUntilForgotten(once)
}

func TestKubernetesPodsOf12PublishOverNATS(t *testing.T) {
	t.Parallel()
	python(t, "1.2.1")
	s := &servers{t: t}
	s.startKubernetes()
	s.startNATS(process.NATSServer(t))
	m := s.startInCluster()
	m.waitForPolls(2)
	a := s.startInPod("1.2.1", "worker-0", "DYN_EVENT_PLANE=nats")
	s.kube.ready("worker-0", true)
	m.waitForLoad(a)
	a.publish(activeA)
	m.waitForSamples(map[string]string{
		a.seriesOf("llm_kv_blocks_active"): "47", a.seriesOf("llm_kv_blocks_total"): "1000", a.seriesOf("llm_kv_cache_usage_ratio"): "0.047", a.seriesOf("llm_worker_up"): "1",
	})
	a.Signal(syscall.SIGTERM) // its endpoint stays in the resource: only readiness shows that it has ended
	s.kube.ready("worker-0", false)
	m.waitUntilForgotten(a)
}

// TestKubernetesPipeline sends requests to real mock engines through a frontend that routes
// by their caches. There is no etcd, and NATS only carries the request traces.
func TestKubernetesPipeline(t *testing.T) {
	t.Parallel()
	python(t, "1.6.1")
	s := &servers{t: t}
	s.startKubernetes()
	s.startNATS(process.NATSServer(t))
	m := s.startInCluster()
	m.waitForPolls(2)
	for _, pod := range []string{"engine-0", "engine-1", "frontend-0"} {
		s.kube.ready(pod, true)
	}
	pipeline := s.pipeline("1.6.1", "DYN_REQUEST_TRACE=1", "DYN_REQUEST_TRACE_SINKS=nats")
	m.waitForWorkers("llm_requests_active_slots", pipeline.workers)
	talks := pipeline.runUntilHits(t, func(int) int { return pipeline.routerCachedTokens(t) })
	pipeline.checkTraces(t, talks, m.waitForHitEvents(talks.requests).hits())
	s.kube.ready("engine-0", false)
	testutil.Until(t, func() error {
		p, err := m.scrape()
		if err != nil {
			return err
		}
		if n := p[`llm_workers{component="backend",endpoint="generate",state="answering"}`]; n != "1" {
			return fmt.Errorf("%s workers are shown, want 1", n)
		}
		return nil
	})
}
