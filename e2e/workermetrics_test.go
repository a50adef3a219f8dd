package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/e2e/garbage"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/google/go-cmp/cmp"
)

// workerMetrics serves workers' own metrics on one server, each at the worker's id in
// hexadecimal.
type workerMetrics struct {
	*httptest.Server
	mu    sync.Mutex
	of    map[string]http.HandlerFunc // by the first part of the path
	asked map[string]int
}

func newWorkerMetrics(t *testing.T) *workerMetrics {
	p := &workerMetrics{of: make(map[string]http.HandlerFunc), asked: make(map[string]int)}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *workerMetrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	p.mu.Lock()
	handler := p.of[id]
	p.asked[id]++
	p.mu.Unlock()
	if handler == nil {
		http.NotFound(w, r)
		return
	}
	handler(w, r)
}

// set sets the handler of a worker's metrics from now on. nil means that it has none.
func (p *workerMetrics) set(id uint64, handler http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of[wire.HexID(id)] = handler
}

// count returns how often the worker's metrics were requested.
func (p *workerMetrics) count(id uint64) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[wire.HexID(id)]
}

// template returns a value for --worker-metrics-url.
func (p *workerMetrics) template() string { return p.URL + "/{worker_id_hex}/metrics" }

// vllmMetrics returns the metrics of a Dynamo worker with vLLM. The engine's own samples
// have no label of the worker.
func vllmMetrics(id uint64, running, waiting int, usage float64, lookups, hits int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, `# TYPE dynamo_component_inflight_requests gauge
dynamo_component_inflight_requests{dynamo_component="backend",dynamo_endpoint="clear_kv_blocks",dynamo_namespace="dynamo",worker_id="%[1]x"} 0
dynamo_component_inflight_requests{dynamo_component="backend",dynamo_endpoint="generate",dynamo_namespace="dynamo",worker_id="%[1]x"} %[2]d
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} %[3]d.0
vllm:num_requests_waiting{engine="0",model_name="m"} %[4]d.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} %[5]v
vllm:prefix_cache_queries_total{engine="0",model_name="m"} %[6]d.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} %[7]d.0
`, id, running+waiting, running, waiting, usage, lookups, hits)
	}
}

// workerInfo is the series of llm_worker_info of a worker of backend/generate without a
// model.
func workerInfo(id uint64, model, source string) string {
	return fmt.Sprintf(`llm_worker_info{component="backend",endpoint="generate",model=%q,source=%q,worker_id="%d",worker_id_hex="%x"}`, model, source, id, id)
}

func scrapes(r stats.ScrapeResult) string {
	return fmt.Sprintf(`dynamo_metrics_worker_scrapes_total{result=%q}`, r)
}

// TestWorkerMetricsOfEveryEngine checks split queues, several processes of one engine,
// trailing blanks, and a rank without a number of blocks, for which the model card has a
// thousand.
func TestWorkerMetricsOfEveryEngine(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	p := newWorkerMetrics(t)
	want := samples{workersSeries("generate", "answering"): "6", scrapes(stats.ScrapeError): "0"}
	for file, values := range map[string]map[string]string{
		"sglang_decode":      {"llm_requests_active_slots": "12", "llm_requests_waiting": "10", "llm_kv_cache_usage_ratio": "0.88", "llm_kv_blocks_active": "880"},
		"sglang_prefill":     {"llm_requests_active_slots": "2", "llm_requests_waiting": "10", "llm_kv_cache_usage_ratio": "0.3", "llm_kv_blocks_active": "300"},
		"vllm_processes":     {"llm_requests_active_slots": "5", "llm_requests_waiting": "1", "llm_kv_cache_usage_ratio": "0.653", "llm_kv_blocks_active": "653"},
		"sglang_processes":   {"llm_requests_active_slots": "7", "llm_requests_waiting": "4", "llm_kv_cache_usage_ratio": "0.8", "llm_kv_blocks_active": "800"},
		"vllm_blanks":        {"llm_requests_active_slots": "3", "llm_requests_waiting": "1", "llm_kv_cache_usage_ratio": "0.5", "llm_kv_hit_rate_percent": "0.4"},
		"vllm_unseeded_rank": {"llm_kv_blocks_total": "2000", "llm_kv_blocks_active": "870", "llm_kv_cache_usage_ratio": "0.435"},
	} {
		text, err := os.ReadFile("../internal/wire/testdata/engines/" + file + ".prom")
		if err != nil {
			t.Fatal(err)
		}
		silent := &mockScript{load: loadOf(0, 0, 1), lose: func(string) bool { return true }}
		w := s.mock(silent.config("1.6.1", "zmq"))
		p.set(w.id, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write(text)
		})
		for name, value := range values {
			want[w.series(name)] = value
		}
	}
	m := s.metrics("--nats-server", "none", "--scrape-interval", "1", "--worker-metrics-url", p.template())
	m.waitForSamples(want)
}

// TestWorkerMetricsAndEventsMakeOneLoad has workers of 1.6.1 on ZeroMQ whose engines
// publish no forward passes, as is the default of most. The active blocks are in events,
// the totals in model cards, and the rest in the workers' metrics.
func TestWorkerMetricsAndEventsMakeOneLoad(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	p := newWorkerMetrics(t)
	silent := func(topic string) bool { return topic == wire.TopicForwardPass }
	a, b := &mockScript{load: loadOf(0, 0, 250), lose: silent}, &mockScript{load: loadOf(0, 0, 100), lose: silent}
	one, two := s.mock(a.config("1.6.1", "zmq")), s.mock(b.config("1.6.1", "zmq"))
	p.set(one.id, vllmMetrics(one.id, 8, 3, 0.125, 1000, 250))
	p.set(two.id, vllmMetrics(two.id, 2, 0, 0.5, 0, 0))
	m := s.metrics("--nats-server", "none", "--scrape-interval", "1", "--worker-metrics-url", p.template())
	m.waitForPublishers(4, 0)
	m.waitForSamples(samples{ // from the workers' metrics alone
		one.series("llm_requests_active_slots"): "8", one.series("llm_requests_total_slots"): "100", one.series("llm_requests_waiting"): "3",
		one.series("llm_kv_hit_rate_percent"):   "0.25",
		two.series("llm_requests_active_slots"): "2", two.series("llm_requests_waiting"): "0", two.series("llm_kv_hit_rate_percent"): "",
		one.series("llm_worker_up"): "1", two.series("llm_worker_up"): "1",
	})
	a.setLoad(loadOf(0, 0, 300)) // a load is published when it changes
	b.setLoad(loadOf(0, 0, 110))
	m.waitForSamples(samples{
		one.series("llm_kv_blocks_active"): "300", one.series("llm_kv_blocks_total"): "1000", one.series("llm_kv_cache_usage_ratio"): "0.3",
		two.series("llm_kv_blocks_active"): "110", two.series("llm_kv_blocks_total"): "1000", two.series("llm_kv_cache_usage_ratio"): "0.11",
		one.series("llm_requests_active_slots"): "8", one.series("llm_requests_waiting"): "3", one.series("llm_kv_hit_rate_percent"): "0.25",
		`llm_load_avg{component="backend",endpoint="generate"}`: "205",
		workersSeries("generate", "answering"):                  "2",
		scrapes(stats.ScrapeError):                              "0",
	})

	p.set(one.id, vllmMetrics(one.id, 9, 4, 0.9, 1200, 400)) // 150 of 200 lookups hit
	m.waitForSamples(samples{
		one.series("llm_requests_active_slots"): "9", one.series("llm_requests_waiting"): "4", one.series("llm_kv_hit_rate_percent"): "0.75",
		one.series("llm_kv_blocks_active"): "300", one.series("llm_kv_cache_usage_ratio"): "0.3",
	})
	p.set(one.id, nil)
	m.waitForSamples(samples{ // its other values stay
		one.series("llm_requests_active_slots"): "", one.series("llm_requests_waiting"): "", one.series("llm_kv_hit_rate_percent"): "",
		one.series("llm_kv_blocks_active"): "300", one.series("llm_worker_up"): "1",
		two.series("llm_requests_active_slots"): "2",
	})
	if err := m.LinesWith("A worker's metrics cannot be read"); len(err) != 1 || !strings.Contains(err[0], "404 Not Found") {
		t.Errorf("the log says %q, want one line that says 404", err)
	}
}

// TestWorkerMetricsAloneMakeAWorkerKnown finds the address of the worker's metrics in the
// model card, as 1.6 writes it.
func TestWorkerMetricsAloneMakeAWorkerKnown(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	p := newWorkerMetrics(t)
	p.of["metrics"] = vllmMetrics(7, 8, 3, 0.25, 0, 0)
	entries := registration(7)
	entries[1].value = strings.Replace(entries[1].value, `"runtime_config"`,
		fmt.Sprintf(`"model_info":{"hf_config_json":{"path":"%s/v1/metadata/dynamo/backend/generate/tiny/_base/config.json"}},"runtime_config"`, p.URL), 1)
	s.put(entries...)
	for _, c := range []struct {
		flags string
		want  samples
	}{
		{"--scrape-workers off", samples{workersSeries("generate", "silent"): "1", scrapes(stats.ScrapeOK): "0", workerSeries("llm_worker_up", "generate", 7): "0"}},
		{"--scrape-interval 1", samples{
			workersSeries("generate", "answering"): "1", workerInfo(7, "tiny", "scrape"): "1", workerSeries("llm_worker_up", "generate", 7): "1",
			workerSeries("llm_kv_blocks_active", "generate", 7): "250", workerSeries("llm_kv_blocks_total", "generate", 7): "1000",
			workerSeries("llm_requests_active_slots", "generate", 7): "8", workerSeries("llm_requests_total_slots", "generate", 7): "100",
		}},
	} {
		m := s.metrics(append(strings.Fields(c.flags), "--nats-server", "none")...)
		m.waitForSamples(c.want)
		status, body := get(m.url + "/api/v1/targets")
		var got []map[string]any
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
			t.Fatalf("targets: %d %s: %v", status, body, err)
		}
		want := []map[string]any{{
			"targets": []any{strings.TrimPrefix(p.URL, "http://")},
			"labels": map[string]any{
				"__metrics_path__": "/metrics", "dynamo_namespace": "dynamo", "component": "backend", "endpoint": "generate", "worker_id": "7", "worker_id_hex": "7",
			},
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("targets with %s (-want +got):\n%s", c.flags, diff)
		}
		if !strings.HasSuffix(c.flags, " off") {
			s.remove(entries...)
			m.waitFor(func(p samples) error { return p.matchNoneOf(7) })
			if _, body := get(m.url + "/api/v1/targets"); body != "[]\n" {
				t.Errorf("targets that should not exist: %s", body)
			}
		}
		m.Terminate()
	}
}

// TestWorkerMetricsAreScrapedForMissingLoadOnly has a worker of 0.6, whose events have the
// whole load.
func TestWorkerMetricsAreScrapedForMissingLoadOnly(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	p := newWorkerMetrics(t)
	a := &mockScript{load: loadOf(1, 2, 300)}
	w := s.mock(a.config("0.6.1", "nats"))
	p.set(w.id, vllmMetrics(w.id, 90, 91, 0.9, 0, 0))
	s.put(registration(7)...) // a worker that never publishes
	p.set(7, vllmMetrics(7, 1, 1, 0.5, 0, 0))
	auto := s.metrics("--scrape-interval", "1", "--worker-metrics-url", p.template())
	auto.waitForNATSEvents()
	a.setLoad(loadOf(3, 4, 310))
	whole := samples{
		w.series("llm_requests_active_slots"): "3", w.series("llm_requests_waiting"): "4", w.series("llm_kv_blocks_active"): "310",
		w.series("llm_kv_cache_usage_ratio"): "0.25", w.series("llm_kv_hit_rate_percent"): "0.5", workerInfo(w.id, "", "load_event"): "",
	}
	auto.waitForSamples(whole)
	before, others := p.count(w.id), p.count(7)
	testutil.Until(t, func() error {
		if p.count(7) < others+4 {
			return fmt.Errorf("the other worker was scraped %d times", p.count(7)-others)
		}
		return nil
	})
	if after := p.count(w.id); after > before+1 { // one may have been under way
		t.Errorf("scraped %d times while the load was whole", after-before)
	}
	auto.Terminate()

	on := s.metrics("--scrape-interval", "1", "--scrape-workers", "on", "--worker-metrics-url", p.template())
	on.waitForNATSEvents()
	a.setLoad(loadOf(3, 4, 320))
	whole[w.series("llm_kv_blocks_active")] = "320"
	on.waitForSamples(whole)
	before = p.count(w.id)
	testutil.Until(t, func() error {
		if p.count(w.id) < before+2 {
			return fmt.Errorf("scraped %d times", p.count(w.id)-before)
		}
		return nil
	})
	on.waitForSamples(whole)
}

// TestWorkerMetricsThatFailAffectNoOtherWorker has workers whose metrics are slow, stall,
// are 100 MB, are garbage, are a gzip bomb, and redirect.
func TestWorkerMetricsThatFailAffectNoOtherWorker(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	p := newWorkerMetrics(t)
	var mu sync.Mutex
	n := 0
	p.set(1, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n++
		valid := vllmMetrics(1, n, 0, 0.5, 0, 0)
		mu.Unlock()
		valid(w, r)
	})
	p.set(2, func(w http.ResponseWriter, r *http.Request) { // slow, but within the timeout even on a busy machine
		select {
		case <-time.After(300 * time.Millisecond):
			vllmMetrics(2, 7, 0, 0.5, 0, 0)(w, r)
		case <-r.Context().Done():
		}
	})
	p.set(3, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	line := bytes.Repeat([]byte(`vllm:request_prompt_tokens_bucket{le="1"} 1`+"\n"), 25_000)
	flood := func(w io.Writer) {
		for range 100 { // chunks of a megabyte
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	}
	p.set(4, func(w http.ResponseWriter, _ *http.Request) { flood(w) })
	p.set(5, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "vllm:num_requests_running{\xff\x00 <html>\n")
	})
	p.set(6, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		flood(z)
		z.Close()
	})
	p.set(7, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, p.URL+"/1/metrics", http.StatusMovedPermanently)
	})
	const many = 40 // workers that stall: more than are scraped at once
	for id := range uint64(7 + many) {
		s.put(registration(1 + id)...)
		if id >= 7 {
			p.set(1+id, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		}
	}
	m := s.metrics("--nats-server", "none", "--scrape-interval", "1", "--worker-metrics-url", p.template())
	series := func(id uint64) string { return workerSeries("llm_requests_active_slots", "generate", id) }
	m.waitFor(func(got samples) error {
		shown, _ := strconv.Atoi(got[series(1)])
		if shown < 12 || got[series(2)] != "7" {
			return fmt.Errorf("the control worker has %q, the slow one %q", got[series(1)], got[series(2)])
		}
		for id := range uint64(5 + many) {
			if got[series(3+id)] != "" {
				return fmt.Errorf("%s is %s", series(3+id), got[series(3+id)])
			}
		}
		for series, least := range map[string]int{
			rejected(stats.WorkerMetrics, stats.TooLarge): 4, rejected(stats.WorkerMetrics, stats.BadText): 2, scrapes(stats.ScrapeError): many, scrapes(stats.ScrapeOK): 12,
		} {
			if count, _ := strconv.Atoi(got[series]); count < least {
				return fmt.Errorf("%s is %s, want at least %d", series, got[series], least)
			}
		}
		if memory, _ := strconv.ParseFloat(got["process_resident_memory_bytes"], 64); memory == 0 || memory > 256<<20 {
			t.Errorf("%v bytes of memory", memory)
		}
		return nil
	})
	said := slices.DeleteFunc(m.LinesWith(" WARN "), func(line string) bool { return strings.Contains(line, " WARN metrics: Problem: ") })
	if len(said) != 1 || !strings.Contains(said[0], "worker's metrics cannot be read") {
		t.Errorf("the log warns %q, want one line", said)
	}
	m.Terminate() // at once, although some requests stall
}

// TestWorkerMetricsOfGarbageAreRejected serves each file of the corpus, none of which is
// valid, as a worker's metrics.
func TestWorkerMetricsOfGarbageAreRejected(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	p := newWorkerMetrics(t)
	p.set(1, vllmMetrics(1, 8, 3, 0.25, 0, 0))
	s.put(registration(1)...)
	corpus := garbage.Corpus()
	id := uint64(1)
	for _, b := range corpus {
		id++
		p.set(id, func(w http.ResponseWriter, _ *http.Request) { w.Write(b) })
		s.put(registration(id)...)
	}
	m := s.metrics("--nats-server", "none", "--scrape-interval", "1", "--worker-metrics-url", p.template())
	m.waitFor(func(got samples) error {
		for other := range uint64(len(corpus)) {
			if n := p.count(2 + other); n < 2 {
				return fmt.Errorf("worker %d was scraped %d times", 2+other, n)
			}
		}
		return got.match(samples{
			workersSeries("generate", "answering"): "1", workersSeries("generate", "silent"): fmt.Sprint(len(corpus)),
			workerSeries("llm_requests_active_slots", "generate", 1): "8", workerSeries("llm_kv_blocks_active", "generate", 1): "250",
		})
	})
}
