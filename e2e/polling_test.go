package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

func instance(endpoint string, id uint64) fleet.Instance {
	return fleet.Instance{Endpoint: fleet.Endpoint{Component: "backend", Name: endpoint}, ID: id}
}

// TestOriginalSamplesAreServed gives the program the original's captured input, and checks
// every line of the original's /metrics.
func TestOriginalSamplesAreServed(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const dir = "testdata/original"
	for i := 1; i <= 3; i++ {
		b := readFile(t, filepath.Join(dir, fmt.Sprintf("stats_reply_%d.json", i)))
		r, err := wire.ParseStatsReply(b)
		if err != nil {
			t.Fatal(err)
		}
		s.responder(r.Service, b)
		for _, e := range r.Endpoints {
			name, id, _ := wire.SplitSubject(r.Service, e.Subject, func(string) bool { return false })
			s.register(wire.LayoutComponents, instance(name, id))
		}
	}
	l2c, err := s.nats.SubscribeSync(strings.TrimSpace(string(readFile(t, filepath.Join(dir, "l2c_subject.txt")))))
	if err != nil {
		t.Fatal(err)
	}
	m := s.metrics("--component", "backend", "--endpoint", "load_metrics", "--poll-interval", "0.1")
	m.waitUntilReady()
	var events []struct {
		Worker  uint64 `json:"worker_id"`
		ISL     int    `json:"isl_blocks"`
		Overlap int    `json:"overlap_blocks"`
	}
	if err := json.Unmarshal(readFile(t, filepath.Join(dir, "hit_rate_events.json")), &events); err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		s.hit(e.Worker, e.ISL, e.Overlap)
	}
	original := string(readFile(t, filepath.Join(dir, "page.prom")))
	m.waitForSamples(process.ParseSamples(original))
	_, body := get(m.url + "/metrics")
	for line := range strings.SplitSeq(original, "\n") {
		if strings.HasPrefix(line, "#") && !strings.Contains(body, line+"\n") {
			t.Errorf("/metrics lacks %q", line)
		}
	}

	msg, err := l2c.NextMsgWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(msg.Data, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(readFile(t, filepath.Join(dir, "l2c.json")), &want); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("l2c event\n%v\nwant\n%v", got, want)
	}
}

func TestWorkerDeregisteredStaysGone(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	s.register(wire.LayoutInstances, instance("generate", 7))
	s.responder("dynamo_backend", reply("dynamo_backend", "generate", 7, flatLoad(3, 9)))
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", 7): "3"})

	s.deregister(wire.LayoutInstances, instance("generate", 7))
	m.waitForSamples(samples{
		workerSeries("llm_kv_blocks_active", "generate", 7): "",
		workersSeries("generate", "answering"):              "0",
		workersSeries("generate", "unregistered"):           "1",
		`llm_load_avg{` + backend + `}`:                     "",
	})
	s.register(wire.LayoutInstances, instance("generate", 7))
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", 7): "3", workersSeries("generate", "unregistered"): "0"})
}

func TestWorkerOfGenerate2IsNotOneOfGenerate(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for i, name := range []string{"generate", "generate2", "generate-2"} {
		id := uint64(i + 1)
		s.register(wire.LayoutInstances, instance(name, id))
		s.responder("dynamo_backend", reply("dynamo_backend", name, id, flatLoad(10*i, 100)))
	}
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.waitForSamples(samples{workersSeries("generate", "answering"): "1", `llm_load_avg{` + backend + `}`: "0"})
	p, err := m.scrape()
	if err != nil {
		t.Fatal(err)
	}
	if others := p.filter("generate2"); len(others) > 0 {
		t.Errorf("another endpoint's workers: %v", others)
	}
}

func TestWorkerWithUndecodableLoadAffectsNoOther(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for id, data := range map[uint64]string{1: flatLoad(10, 100), 2: `{"kv_active_blocks":-1}`, 3: flatLoad(30, 100)} {
		s.register(wire.LayoutInstances, instance("generate", id))
		s.responder("dynamo_backend", reply("dynamo_backend", "generate", id, data))
	}
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.waitForSamples(samples{
		workersSeries("generate", "answering"):              "2",
		workersSeries("generate", "malformed"):              "1",
		workerSeries("llm_kv_blocks_active", "generate", 1): "10",
		workerSeries("llm_kv_blocks_active", "generate", 2): "",
		workerSeries("llm_kv_blocks_active", "generate", 3): "30",
		`llm_load_avg{` + backend + `}`:                     "20",
		`llm_load_std{` + backend + `}`:                     "10",
	})
}

func TestWorkerIDsAboveFloat64Precision(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const a, b = 1<<63 + 1, 1<<63 + 2 // equal as float64
	for _, id := range []uint64{a, b} {
		s.register(wire.LayoutInstances, instance("generate", id))
		s.responder("dynamo_backend", reply("dynamo_backend", "generate", id, flatLoad(int(id-1<<63), 100)))
	}
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.waitUntilReady()
	s.hit(a, 5, 1)
	s.hit(b, 7, 2)
	m.waitForSamples(samples{
		workerSeries("llm_kv_blocks_active", "generate", a):       "1",
		workerSeries("llm_kv_blocks_active", "generate", b):       "2",
		workerSeries("llm_kv_hit_rate_isl_blocks", "generate", a): "5",
		workerSeries("llm_kv_hit_rate_isl_blocks", "generate", b): "7",
	})
}

func TestWorkersAbsentMeansNoLoadMetrics(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.waitForSamples(samples{workersSeries("generate", "answering"): "0", `dynamo_metrics_polls_total{result="error"}`: "0"})
	m.waitUntilReady()
	p, err := m.scrape()
	if err != nil {
		t.Fatal(err)
	}
	if aggregates := p.filter("llm_load"); len(aggregates) > 0 {
		t.Errorf("aggregates without workers: %v", aggregates)
	}
	for series, v := range p {
		if v == "NaN" {
			t.Errorf("%s is NaN", series)
		}
	}
}

func TestPollShowsStaticWorkers(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for id, active := range map[string]int{"p6nqGIpvsufbGe0wLMOj0A": 41, "hPB5m9ZEpxuG7coMu2nFks": 40} {
		s.responder("dynamo_backend", fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":"dynamo_backend","id":%q,"endpoints":[{"subject":"dynamo_backend.load_metrics","data":%s},{"subject":"dynamo_backend.generate","data":null}]}`, id, flatLoad(active, 100)))
	}
	env := []string{"NATS_SERVER=" + s.NATS.URL()}
	m := serve(t, env, "--component", "backend", "--endpoint", "load_metrics", "--poll-interval", "0.1", "--etcd-endpoints", "none")
	m.waitUntilReady()
	m.waitForSamples(samples{
		`llm_kv_blocks_active{component="backend",endpoint="load_metrics",worker_id="p6nqGIpvsufbGe0wLMOj0A"}`: "41",
		`llm_kv_blocks_active{component="backend",endpoint="load_metrics",worker_id="hPB5m9ZEpxuG7coMu2nFks"}`: "40",
		workersSeries("load_metrics", "unregistered"):                                                          "2",
		`dynamo_metrics_connected{system="etcd"}`:                                                              "",
		`dynamo_metrics_leader`: "",
		`llm_load_avg{component="backend",endpoint="load_metrics"}`: "40.5",
	})
}

func TestEndpointWithoutLoadIsExplained(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.register(wire.LayoutInstances, instance("generate", 7))
	s.register(wire.LayoutInstances, instance("load_metrics", 7))
	s.responder("dynamo_backend", fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":"dynamo_backend","id":"x","endpoints":[{"subject":"dynamo_backend.generate-7","data":null},{"subject":"dynamo_backend.load_metrics-7","data":%s}]}`, flatLoad(1, 2)))
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.WaitForLine(" INFO metrics: Endpoint generate of component backend carries no load; these endpoints of the component do: load_metrics")
	m.waitForSamples(samples{workersSeries("generate", "answering"): "0", workersSeries("generate", "silent"): "0"})
	if n := len(m.LinesWith("carries no load")); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
}

func TestEndpointNameMisspelledIsCorrected(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.register(wire.LayoutComponents, fleet.Instance{Endpoint: fleet.Endpoint{Component: "MyComponent", Name: "my_endpoint"}, ID: 9})
	m := s.metrics("--component", "my_component", "--endpoint", "my_endpoint", "--poll-interval", "0.1")
	m.WaitForLine("Registered in namespace dynamo: MyComponent/my_endpoint; did you mean --component MyComponent --endpoint my_endpoint?")
}

func TestPollsOfEveryReleaseInOneNamespace(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--poll-interval", "0.1")
	releases := []string{"0.1.0", "0.1.1", "0.2.1", "0.3.0", "0.5.1"}
	for _, r := range releases {
		start(t, "mock_worker", s.env(), "--release", r, "--component", "c-"+strings.ReplaceAll(r, ".", ""), "--correlated", "--event-interval", "0.05", "--workers", "2")
	}
	for _, r := range releases {
		m.waitForSamples(samples{fmt.Sprintf(`llm_workers{component="c-%s",endpoint="generate",state="answering"}`, strings.ReplaceAll(r, ".", "")): "2"})
	}
	m.waitFor(func(p samples) error {
		if n := len(p.filter("llm_kv_hit_rate_overlap_blocks{")); n != 2*len(releases) {
			return fmt.Errorf("hits of %d workers, want %d: %v", n, 2*len(releases), p.filter("overlap"))
		}
		// An event may be received before its worker's registration. Its blocks are then
		// moved to the worker.
		if unknowns := p.filter(`component="unknown"`, "worker_id"); len(unknowns) > 0 {
			return fmt.Errorf("hits of workers that are registered: %v", unknowns)
		}
		return nil
	})
}

func TestHitsOfForeignAndUnknownWorkers(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.register(wire.LayoutInstances, instance("generate", 1))
	s.register(wire.LayoutInstances, fleet.Instance{Endpoint: fleet.Endpoint{Component: "prefill", Name: "generate"}, ID: 2})
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.waitUntilReady()
	for id := range uint64(3) {
		s.hit(id+1, 10, 4)
	}
	m.waitForSamples(samples{
		workerSeries("llm_kv_hit_rate_isl_blocks", "generate", 1): "10",
		workerSeries("llm_kv_hit_rate_isl_blocks", "generate", 2): "",
		workerSeries("llm_kv_hit_rate_isl_blocks", "generate", 3): "10",
		"dynamo_metrics_foreign_events_total":                     "1",
		`llm_kv_hit_rate_events_total{` + backend + `}`:           "2",
	})
}

func TestWorkerOverTheLimitIsShownLater(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1", "--max-workers", "2")
	m.waitUntilReady()
	for id := range uint64(3) {
		s.register(wire.LayoutInstances, instance("generate", id+1))
		s.responder("dynamo_backend", reply("dynamo_backend", "generate", id+1, flatLoad(int(id), 9)))
	}
	m.waitForSamples(samples{workersSeries("generate", "answering"): "2", workerSeries("llm_kv_blocks_active", "generate", 3): ""})
	m.WaitForLine(" WARN metrics: There is no room for more workers: raise --max-workers max_workers=2")
	s.deregister(wire.LayoutInstances, instance("generate", 1))
	m.waitForSamples(samples{workersSeries("generate", "answering"): "2", workerSeries("llm_kv_blocks_active", "generate", 3): "2"})
}
