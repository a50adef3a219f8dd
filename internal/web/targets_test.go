package web

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/google/go-cmp/cmp"
)

// targetsOf returns the response of /api/v1/targets.
func targetsOf(t *testing.T, f *fleet.Fleet, metricsURL func(fleet.ScrapeTarget) string) string {
	t.Helper()
	h := handlerWith(f, func(o *Options) { o.WorkerMetricsURL = metricsURL })
	w := testutil.Get(t, h, "/api/v1/targets")
	testutil.Equal(t, "status", w.Code, http.StatusOK)
	testutil.Equal(t, "content type", w.Header().Get("Content-Type"), "application/json")
	testutil.Equal(t, "status of /metrics", testutil.Get(t, h, "/metrics").Code, http.StatusOK)
	return w.Body.String()
}

func TestTargetsListWorkerMetrics(t *testing.T) {
	f := fleettest.New(fleettest.Everything, true)
	at := func(component, endpoint string, id uint64) {
		f.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: component, Name: endpoint}, ID: id}, fleet.Registration{Publishes: true})
	}
	at("decode", "generate", 0x6a6ca214c850b02e)
	at("decode", "generate", 10)
	at("decode", "generate", 9)
	at("decode", "clear_kv_blocks", 9) // the same process
	at("a \"b\"\\</script>ü", "é", 7)
	at("hidden", "generate", 8)
	f.SetCard("", fleet.Instance{Endpoint: fleet.Endpoint{Component: "decode", Name: "generate"}, ID: 9}, fleet.Card{Model: "m"})
	metricsURL := func(p fleet.ScrapeTarget) string {
		switch p.ID {
		case 8:
			return ""
		case 9:
			return "https://[2001:db8::1]:9090/engine/metrics?a=b&c=d%20e&not-a-label=f"
		case 10:
			return "http://192.0.2.2:9090"
		}
		return fmt.Sprintf("http://192.0.2.%d:9090/metrics", p.ID%200)
	}
	text := targetsOf(t, f, metricsURL)
	if again := targetsOf(t, f, metricsURL); again != text {
		t.Errorf("the second response is %s\nand the first %s", again, text)
	}
	var got []targetGroup
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	group := func(target, path, component, endpoint, id, hex string, more ...string) targetGroup {
		labels := map[string]string{"__metrics_path__": path, "dynamo_namespace": "dynamo", "component": component, "endpoint": endpoint, "worker_id": id, "worker_id_hex": hex}
		for i := 0; i < len(more); i += 2 {
			labels[more[i]] = more[i+1]
		}
		return targetGroup{[]string{target}, labels}
	}
	want := []targetGroup{
		group("192.0.2.7:9090", "/metrics", "a \"b\"\\</script>ü", "é", "7", "7"),
		group("192.0.2.2:9090", "/metrics", "decode", "generate", "10", "a"),
		group("192.0.2.78:9090", "/metrics", "decode", "generate", "7668682475648888878", "6a6ca214c850b02e"),
		group("[2001:db8::1]:9090", "/engine/metrics", "decode", "generate", "9", "9", "__scheme__", "https", "__param_a", "b", "__param_c", "d e"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

func TestTargetsEmptyList(t *testing.T) {
	f := fleettest.New(fleettest.Everything, true)
	noMetrics := func(fleet.ScrapeTarget) string { return "" }
	testutil.Equal(t, "targets without workers", targetsOf(t, f, noMetrics), "[]\n")
	f.Register("", fleet.Instance{Endpoint: fleettest.LoadMetrics, ID: 1}, fleet.Registration{Publishes: true})
	testutil.Equal(t, "targets of a worker without metrics", targetsOf(t, f, noMetrics), "[]\n")
}

// Clients that do not read keep the others waiting until they are cut off.
func TestTargetsFourListsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleettest.New(fleettest.Everything, true)
		for id := range uint64(100) { // more than the server buffers for a client
			f.Register("", fleet.Instance{Endpoint: fleettest.LoadMetrics, ID: 1 + id}, fleet.Registration{Publishes: true})
		}
		var lists atomic.Int64
		metricsURL := func(p fleet.ScrapeTarget) string {
			if p.ID == 1 {
				lists.Add(1)
			}
			return "http://192.0.2.1/"
		}
		s := startServer(t, handlerWith(f, func(o *Options) { o.WorkerMetricsURL = metricsURL }))
		for range 10 {
			write(t, s.connect(t), "GET /api/v1/targets HTTP/1.1\r\nHost: a\r\n\r\n")
		}
		testutil.Advance(9900 * time.Millisecond)
		testutil.Equal(t, "lists that were made", lists.Load(), 4)
		testutil.Advance(200 * time.Millisecond) // the first four have been cut off
		testutil.Equal(t, "lists that were made", lists.Load(), 8)
		patient := s.connect(t)
		write(t, patient, "GET /api/v1/targets HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		body, err := io.ReadAll(patient)
		if testutil.NoError(t, err); !strings.HasSuffix(string(body), "0\r\n\r\n") {
			t.Errorf("a client that waited and reads gets only %d bytes", len(body))
		}
	})
}

// Each target has its worker's namespace, whether one is watched or several.
func TestTargetsNameNamespace(t *testing.T) {
	for _, namespaces := range []wire.Namespaces{"lab", "la*", "*"} {
		var all fleet.Target
		if namespaces.IsPattern() {
			all.Namespace = string(namespaces)
		}
		f := fleettest.New(all, true)
		e := fleettest.LoadMetrics
		e.Namespace = namespaces.Label("lab")
		f.Register("", fleet.Instance{Endpoint: e, ID: 1}, fleet.Registration{Publishes: true})
		metricsURL := func(fleet.ScrapeTarget) string { return "http://192.0.2.1:9090" }
		w := testutil.Get(t, handlerWith(f, func(o *Options) { o.Namespaces, o.WorkerMetricsURL = namespaces, metricsURL }), "/api/v1/targets")
		if want := `"dynamo_namespace":"lab"`; strings.Count(w.Body.String(), want) != 1 {
			t.Errorf("%s is watched: %s, want %s in it", namespaces, w.Body, want)
		}
	}
}
