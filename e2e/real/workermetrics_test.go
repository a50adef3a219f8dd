//go:build real

package real

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"
)

// withWorkerMetrics has a worker serve metrics of its own, on a free port.
var withWorkerMetrics = []string{"DYN_SYSTEM_ENABLED=true", "DYN_SYSTEM_PORT=0", "DYN_SYSTEM_HOST=127.0.0.1"}

// withSamples returns a JSON object for publish that adds an engine's samples to the
// worker's metrics.
func withSamples(t *testing.T, values, samples string) string {
	t.Helper()
	all := make(map[string]any)
	if err := json.Unmarshal([]byte(values), &all); err != nil {
		t.Fatal(err)
	}
	all["page"] = samples
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Workers of 0.6.1 publish a load when it changes. A program that starts later reads it
// from the worker's metrics, and prefers the next event.
func TestWorkerMetricsGiveTheLoadToALateStart(t *testing.T) {
	t.Parallel()
	python(t, "0.6.1")
	s := startServers(t)
	a := s.publisher("0.6.1", withWorkerMetrics...)
	at := "http://" + a.WaitForLine("System status server started successfully on ") + "/metrics"
	a.publish(loadA)
	testutil.Until(t, func() error {
		text, err := get(at)
		if err == nil && !strings.Contains(text, `kvstats_active_blocks{dynamo_component="backend",dynamo_namespace="dynamo"} 42`) {
			err = fmt.Errorf("the worker's metrics are\n%s", text)
		}
		return err
	})
	m := s.metrics("--poll-interval", "0.2", "--scrape-interval", "1", "--worker-metrics-url", "backend="+at)
	workers := names{"A": a.id}
	t.Logf("with a worker of ai-dynamo-runtime 0.6.1 that has published before:\n%s", withoutGoMetrics(m.waitForGolden("scraped-late", workers)))
	m.waitForPolls(2)
	a.publish(`{"worker": [12, 100, 5, null], "kv": [43, 1000, 0.5, 0.25]}`)
	m.waitForSamples(map[string]string{
		a.seriesOf("llm_kv_blocks_active"): "43", a.seriesOf("llm_requests_active_slots"): "12", a.seriesOf("llm_requests_waiting"): "5",
		a.seriesOf("llm_kv_cache_usage_ratio"): "0.5", a.seriesOf("llm_kv_hit_rate_percent"): "0.25",
		fmt.Sprintf(`llm_worker_info{component="backend",endpoint="generate",model="tiny",source="load_event",worker_id="%d",worker_id_hex="%x"}`, a.id, a.id): "1",
	})
	a.Signal(syscall.SIGTERM)
	m.waitUntilForgotten(a)
}

// The model card of a worker of 1.6.1 has the address of its metrics. They have the
// engine's samples, as vLLM writes them, in addition to Dynamo's own.
func TestWorkerMetricsAndEventsOfARealWorker(t *testing.T) {
	t.Parallel()
	python(t, "1.6.1")
	s := &servers{t: t}
	s.startEtcd()
	env := append([]string{"PASSES=none"}, withWorkerMetrics...)
	a, b := s.publisher("1.6.1", env...), s.publisher("1.6.1", env...)
	m := s.metrics("--nats-server", "none", "--scrape-interval", "1")
	m.waitForLoad(a)
	m.waitForLoad(b)
	const engineSamples = `# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 8.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.9
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 1000.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 250.0
`
	a.publish(withSamples(t, activeA, engineSamples))
	b.publish(activeB)
	t.Logf("with two workers of ai-dynamo-runtime 1.6.1:\n%s", withoutGoMetrics(m.waitForGolden("scraped", names{"A": a.id, "B": b.id})))

	a.publish(activeA) // the metrics have no samples of the engine any more, only those of Dynamo's handler
	m.waitForSamples(map[string]string{
		a.seriesOf("llm_requests_active_slots"): "0", a.seriesOf("llm_requests_total_slots"): "100", a.seriesOf("llm_requests_waiting"): "",
		a.seriesOf("llm_kv_hit_rate_percent"): "", a.seriesOf("llm_kv_blocks_active"): "47",
	})
	a.Kill()
	m.waitForSamples(map[string]string{a.seriesOf("llm_requests_active_slots"): "", a.seriesOf("llm_kv_blocks_active"): "47"})
	m.waitUntilForgotten(a)
}

// Dynamo's own mock engines write the metrics of the engine that they imitate.
func TestWorkerMetricsGiveTheHitRate(t *testing.T) {
	t.Parallel()
	python(t, "1.6.1")
	s := &servers{t: t}
	s.startEtcd()
	m := s.metrics("--nats-server", "none", "--scrape-interval", "1")
	p := s.pipelineOf("1.6.1", nil, withWorkerMetrics, "--engine-type", "sglang")
	m.waitForWorkers("llm_requests_active_slots", p.workers)
	p.runUntilHits(t, func(int) int { return p.routerCachedTokens(t) })
	var targets []struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	if err := getJSON(m.url+"/api/v1/targets", &targets); err != nil || len(targets) != len(p.workers) {
		t.Fatalf("targets %v, %v, want those of %v", targets, err, p.workers)
	}
	best := 0.0 // one of them may have received only requests that were not in its cache
	for _, g := range targets {
		text, err := get("http://" + g.Targets[0] + g.Labels["__metrics_path__"])
		if err != nil {
			t.Fatal(err)
		}
		var rate string
		for series, value := range process.ParseSamples(text) {
			if strings.HasPrefix(series, "sglang:cache_hit_rate{") {
				rate = value
			}
		}
		share, err := strconv.ParseFloat(rate, 64)
		if err != nil {
			t.Errorf("worker %s has the hit rate %q in its metrics", g.Labels["worker_id"], rate)
		}
		best = max(best, share)
		m.waitForSamples(map[string]string{fmt.Sprintf(`llm_kv_hit_rate_percent{component="backend",endpoint="generate",worker_id="%s"}`, g.Labels["worker_id"]): rate})
	}
	if best == 0 {
		t.Error("no cache had any hit: the requests prove nothing")
	}
}

func TestWorkerMetricsTargetsAreScrapedByPrometheus(t *testing.T) {
	t.Parallel()
	process.Installed(t, "prometheus", "prometheus")
	python(t, "1.6.1")
	s := &servers{t: t}
	s.startEtcd()
	a := s.publisher("1.6.1", withWorkerMetrics...)
	m := s.metrics("--nats-server", "none")
	m.waitForLoad(a)
	p := startPrometheus(t, m.url, "http_sd_configs: [{url: '"+m.url+"/api/v1/targets', refresh_interval: 1s}]")
	testutil.Until(t, func() error {
		const query = `count by (component, endpoint, dynamo_namespace, worker_id, worker_id_hex, exported_worker_id) (dynamo_component_inflight_requests{dynamo_endpoint="generate"})`
		got, err := p.series(query, map[string]string{
			"component": "backend", "endpoint": "generate", "dynamo_namespace": "dynamo",
			"worker_id_hex": fmt.Sprintf("%x", a.id), "exported_worker_id": fmt.Sprintf("%x", a.id),
		})
		if err == nil && got[strconv.FormatUint(a.id, 10)] != "1" {
			err = fmt.Errorf("Prometheus has %v of worker %d", got, a.id)
		}
		return err
	})
}
