//go:build real

package real

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/testutil"
)

// startNightlyCluster starts a cluster of Kubernetes' own API machinery, for what the
// tests' own API server cannot prove. flags are for etcd.
func startNightlyCluster(t *testing.T, flags ...string) (*servers, *kubernetesAPI) {
	t.Helper()
	t.Parallel()
	if !realKubernetes() {
		t.Skip("needs Kubernetes' own API server: .ci/nightly-kubernetes builds it, and sets KUBERNETES=real")
	}
	s := &servers{t: t}
	return s, s.startRealKubernetes(flags...)
}

// register writes the resource of a worker in a pod that serves backend/generate. No such
// worker runs, so that it stays silent.
func (c *cluster) register(pod string, id int) {
	endpoint := fmt.Sprintf("dynamo/backend/generate/%x", id)
	c.api.Put(kubetest.WorkerMetadata, kubetest.Object{
		"metadata": kubetest.Object{"name": pod, "namespace": inNamespace, "ownerReferences": []any{
			kubetest.Object{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid(pod), "controller": true, "blockOwnerDeletion": false}}},
		"spec": kubetest.Object{"data": kubetest.Object{"endpoints": kubetest.Object{endpoint: kubetest.Object{
			"type": "Endpoint", "namespace": "dynamo", "component": "backend", "endpoint": "generate", "instance_id": id,
			"transport": kubetest.Object{"tcp": "127.0.0.1:9/" + endpoint},
		}}}},
	})
}

// silentCount returns the samples with this number of silent workers. If n is empty, there
// are no workers.
func silentCount(n string) map[string]string {
	return map[string]string{`llm_workers{component="backend",endpoint="generate",state="silent"}`: n}
}

// TestKubernetesSendsAnEmptiedMapAsNull has a real worker of 1.6.1 that deregisters.
func TestKubernetesSendsAnEmptiedMapAsNull(t *testing.T) {
	s, k := startNightlyCluster(t)
	python(t, "1.6.1")
	m := s.startInCluster()
	a := s.startInPod("1.6.1", "worker-0")
	s.kube.ready("worker-0", true)
	m.waitForLoad(a)
	received := k.watch(kubetest.WorkerMetadata, k.version(kubetest.WorkerMetadata))
	a.Signal(syscall.SIGTERM)
	m.waitUntilForgotten(a)
	m.waitForUnreachable(0)
	received.waitFor(t, "one with endpoints that are null, and a model card", func(event kubetest.Object) bool {
		object, _ := event["object"].(kubetest.Object)
		spec, _ := object["spec"].(kubetest.Object)
		data, _ := spec["data"].(kubetest.Object)
		endpoints, found := data["endpoints"]
		cards, _ := data["model_cards"].(kubetest.Object)
		return found && endpoints == nil && len(cards) == 1
	})
}

// TestKubernetesListIsPaginated also compacts the history of the list before its second
// page.
func TestKubernetesListIsPaginated(t *testing.T) {
	s, k := startNightlyCluster(t)
	const workers = 1201
	var writing sync.WaitGroup
	for first := range 8 { // in parallel
		writing.Go(func() {
			for i := first; i < workers; i += 8 {
				pod := fmt.Sprintf("pod-%04d", i)
				s.kube.register(pod, i+1)
				s.kube.ready(pod, true)
			}
		})
	}
	writing.Wait()
	m := s.startInCluster()
	m.waitForSamples(silentCount(strconv.Itoa(workers)))
	for _, resource := range []string{kubetest.WorkerMetadata, kubetest.EndpointSlices} {
		pages := k.proxy.asked(http.StatusOK, resource, "limit")
		more := k.proxy.asked(http.StatusOK, resource, "limit", "continue")
		if len(pages) != 3 || len(more) != 2 {
			t.Errorf("%d pages of %s, %d of them continued, want 3 and 2", len(pages), resource, len(more))
		}
	}
	m.Terminate()

	var once sync.Once
	k.proxy.setHook(func(r *http.Request) {
		if r.URL.Query().Has("continue") {
			once.Do(func() { s.kube.ready("pod-0000", false); k.compact() })
		}
	})
	m = s.startInCluster()
	m.waitForSamples(silentCount(strconv.Itoa(workers - 1)))
	gone := 0
	for _, resource := range []string{kubetest.WorkerMetadata, kubetest.EndpointSlices} { // the version before this resource was created is unknown
		gone += len(k.proxy.asked(http.StatusGone, resource, "continue"))
	}
	if gone == 0 {
		t.Error("no page was refused with 410")
	}
	t.Logf("%d workers listed in pages of 500; then, with the history gone, %d pages refused with 410, and %d workers", workers, gone, workers-1)
}

// TestKubernetesAPIServerRestartKeepsTheFleet kills the API server, and starts it again.
func TestKubernetesAPIServerRestartKeepsTheFleet(t *testing.T) {
	s, k := startNightlyCluster(t)
	python(t, "1.6.1")
	m := s.startInCluster()
	a := s.startInPod("1.6.1", "worker-0")
	s.kube.ready("worker-0", true)
	m.waitForLoad(a)
	a.publish(activeA)
	m.waitForSamples(map[string]string{a.seriesOf("llm_kv_blocks_active"): "47", connected: "1"})
	k.kill()
	m.WaitForLine("The Kubernetes API cannot be read; keeping the last known fleet and retrying")
	a.publish(activeB)
	m.waitForSamples(map[string]string{a.seriesOf("llm_kv_blocks_active"): "10", connected: "0"})
	k.start()
	m.waitForSamples(map[string]string{a.seriesOf("llm_kv_blocks_active"): "10", connected: "1", "dynamo_metrics_leader": "1"})
	m.WaitForLine("The Kubernetes API can be read again")
	s.kube.ready("worker-0", false)
	m.waitUntilForgotten(a)
	s.kube.ready("worker-0", true)
	m.waitForLoad(a)
}

// TestKubernetesCompactedHistoryIsRelisted disconnects the program while workers join and
// leave, the API server restarts, and etcd compacts its history.
func TestKubernetesCompactedHistoryIsRelisted(t *testing.T) {
	s, k := startNightlyCluster(t)
	python(t, "1.6.1")
	m := s.startInCluster()
	a := s.startInPod("1.6.1", "worker-0")
	s.kube.ready("worker-0", true)
	s.kube.register("goes", 1)
	s.kube.ready("goes", true)
	m.waitForLoad(a)
	a.publish(activeA)
	m.waitForSamples(silentCount("1"))
	before := k.version(kubetest.EndpointSlices)
	k.proxy.setAway(true)
	m.WaitForLine("The Kubernetes API cannot be read")
	s.kube.delete("goes")
	for i := range 3 {
		pod := fmt.Sprintf("comes-%d", i)
		s.kube.register(pod, i+2)
		s.kube.ready(pod, true)
	}
	k.compact()
	k.kill()
	k.start()
	k.watch(kubetest.EndpointSlices, before).waitFor(t, "ERROR with 410", func(event kubetest.Object) bool {
		return event["type"] == "ERROR" && event["object"].(kubetest.Object)["code"] == float64(http.StatusGone)
	})
	lists := len(k.proxy.asked(http.StatusOK, kubetest.EndpointSlices, "limit"))
	k.proxy.setAway(false)
	m.waitForSamples(silentCount("3"))
	m.waitForSamples(map[string]string{a.seriesOf("llm_kv_blocks_active"): "47"}) // nothing was cleared
	if again := len(k.proxy.asked(http.StatusOK, kubetest.EndpointSlices, "limit")); again <= lists {
		t.Errorf("%d lists of slices after the watch was refused with 410, %d before", again, lists)
	}
}

// quietTime is longer than a watch may be without events before the program starts a new
// one.
const quietTime = 150 * time.Second

// TestKubernetesQuietWatchIsKept has no events for a while. The program only renews its
// Lease, which increases the resource versions.
func TestKubernetesQuietWatchIsKept(t *testing.T) {
	for name, c := range map[string]struct {
		etcd      []string
		watches   int // of each collection in that time
		bookmarks bool
	}{
		// kubeadm starts etcd with this flag: the API server knows which version a
		// collection has reached, and sends bookmarks to its watches once a minute.
		"with bookmarks": {[]string{"--experimental-watch-progress-notify-interval", "5s"}, 1, true},
		// By default etcd reports progress only every ten minutes, and the API server sends
		// no bookmark before.
		"without": {nil, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, k := startNightlyCluster(t, c.etcd...)
			s.kube.register("pod-0", 1)
			s.kube.ready("pod-0", true)
			m := s.startInCluster()
			m.waitForSamples(silentCount("1"))
			m.waitForSamples(map[string]string{connected: "1"})
			for began := time.Now(); time.Since(began) < quietTime; time.Sleep(100 * time.Millisecond) {
				if p, err := m.scrape(); err != nil || p[connected] != "1" {
					t.Fatalf("the API is not read after %v (%v)", time.Since(began), err)
				}
			}
			for _, resource := range []string{kubetest.WorkerMetadata, kubetest.EndpointSlices} {
				if n := len(k.proxy.asked(http.StatusOK, resource, "watch")); n != c.watches {
					t.Errorf("%d watches of %s in %v, want %d", n, resource, quietTime, c.watches)
				}
			}
			k.proxy.setAway(true)
			m.WaitForLine("The Kubernetes API cannot be read")
			k.proxy.setAway(false)
			m.waitForSamples(map[string]string{connected: "1"})
			for _, resource := range []string{kubetest.WorkerMetadata, kubetest.EndpointSlices} {
				watches := k.proxy.asked(http.StatusOK, resource, "watch")
				first, last := watchVersion(t, watches[0]), watchVersion(t, watches[len(watches)-1])
				if c.bookmarks != (last > first) {
					t.Errorf("a watch of %s from version %d was resumed from %d; with bookmarks %v", resource, first, last, c.bookmarks)
				}
				if n := len(k.proxy.asked(http.StatusOK, resource, "limit")); n != 1 {
					t.Errorf("%d lists of %s, want one", n, resource)
				}
				t.Logf("%s: %d watches, the first from version %d, the last from %d", resource, len(watches), first, last)
			}
		})
	}
}

// connected is the series that shows whether the API server can be read.
const connected = `dynamo_metrics_connected{system="kubernetes"}`

// watchVersion returns the version from which a watch starts.
func watchVersion(t *testing.T, query url.Values) int {
	t.Helper()
	n, err := strconv.Atoi(query.Get("resourceVersion"))
	if err != nil {
		t.Fatalf("the watch %v has no version: %v", query, err)
	}
	return n
}

// TestKubernetesRefusesAForeignCertificate has a stand-in for kubectl proxy with a
// certificate from another authority.
func TestKubernetesRefusesAForeignCertificate(t *testing.T) {
	s, k := startNightlyCluster(t)
	s.kube.register("pod-0", 1)
	s.kube.ready("pod-0", true)
	m := s.startInCluster()
	m.waitForSamples(silentCount("1"))
	other := certificate(t, testutil.NewAuthority(t))
	k.proxy.setTransport(transportWith(t, k.authority, other))
	m.WaitForLine("401 Unauthorized: Unauthorized (the token is not valid, or no longer)")
	m.waitForSamples(silentCount("1"))
	s.kube.ready("pod-0", false)
	k.proxy.setTransport(k.http.Transport)
	m.waitForSamples(silentCount(""))
	m.WaitForLine("The Kubernetes API can be read again")
}

// TestKubernetesMissingResourceIsAwaited creates the definition late.
func TestKubernetesMissingResourceIsAwaited(t *testing.T) {
	s, k := startNightlyCluster(t)
	k.undefine("dynamoworkermetadatas.nvidia.com")
	m := s.startInCluster()
	m.WaitForLine("(the cluster has no dynamoworkermetadatas.nvidia.com: is their CustomResourceDefinition installed?)")
	t.Log(m.LinesWith("is their CustomResourceDefinition installed?")[0])
	k.define()
	s.kube.register("pod-0", 1)
	s.kube.ready("pod-0", true)
	m.waitForSamples(silentCount("1"))
	k.undefine("dynamoworkermetadatas.nvidia.com") // and with it all resources
	m.waitForSamples(silentCount(""))
}
