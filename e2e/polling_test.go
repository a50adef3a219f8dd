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

// TestThePageOfTheOriginal gives the program what the original was given, and looks
// for every line of the page that the original served.
func TestThePageOfTheOriginal(t *testing.T) {
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
	m.ready()
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
	m.shows(process.ParsePage(original))
	_, body := get(m.url + "/metrics")
	for line := range strings.SplitSeq(original, "\n") {
		if strings.HasPrefix(line, "#") && !strings.Contains(body, line+"\n") {
			t.Errorf("the page lacks %q", line)
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

func TestADeregisteredWorkerIsGoneAndItsAnswersReviveNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	s.register(wire.LayoutInstances, instance("generate", 7))
	s.responder("dynamo_backend", reply("dynamo_backend", "generate", 7, flat(3, 9)))
	m.shows(page{worker("llm_kv_blocks_active", "generate", 7): "3"})

	s.deregister(wire.LayoutInstances, instance("generate", 7))
	m.shows(page{
		worker("llm_kv_blocks_active", "generate", 7): "",
		workers("generate", "answering"):              "0",
		workers("generate", "unregistered"):           "1",
		`llm_load_avg{` + backend + `}`:               "",
	})
	s.register(wire.LayoutInstances, instance("generate", 7))
	m.shows(page{worker("llm_kv_blocks_active", "generate", 7): "3", workers("generate", "unregistered"): "0"})
}

func TestGenerateNeverTakesTheWorkersOfGenerate2(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for i, name := range []string{"generate", "generate2", "generate-2"} {
		id := uint64(i + 1)
		s.register(wire.LayoutInstances, instance(name, id))
		s.responder("dynamo_backend", reply("dynamo_backend", name, id, flat(10*i, 100)))
	}
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.shows(page{workers("generate", "answering"): "1", `llm_load_avg{` + backend + `}`: "0"})
	p, err := m.page()
	if err != nil {
		t.Fatal(err)
	}
	if others := p.of("generate2"); len(others) > 0 {
		t.Errorf("another endpoint's workers: %v", others)
	}
}

func TestAnUndecodableLoadIsItsWorkersTroubleOnly(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for id, data := range map[uint64]string{1: flat(10, 100), 2: `{"kv_active_blocks":-1}`, 3: flat(30, 100)} {
		s.register(wire.LayoutInstances, instance("generate", id))
		s.responder("dynamo_backend", reply("dynamo_backend", "generate", id, data))
	}
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.shows(page{
		workers("generate", "answering"):              "2",
		workers("generate", "malformed"):              "1",
		worker("llm_kv_blocks_active", "generate", 1): "10",
		worker("llm_kv_blocks_active", "generate", 2): "",
		worker("llm_kv_blocks_active", "generate", 3): "30",
		`llm_load_avg{` + backend + `}`:               "20",
		`llm_load_std{` + backend + `}`:               "10",
	})
}

func TestIdsAboveWhatADoubleHolds(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const a, b = 1<<63 + 1, 1<<63 + 2 // alike as doubles
	for _, id := range []uint64{a, b} {
		s.register(wire.LayoutInstances, instance("generate", id))
		s.responder("dynamo_backend", reply("dynamo_backend", "generate", id, flat(int(id-1<<63), 100)))
	}
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.ready()
	s.hit(a, 5, 1)
	s.hit(b, 7, 2)
	m.shows(page{
		worker("llm_kv_blocks_active", "generate", a):       "1",
		worker("llm_kv_blocks_active", "generate", b):       "2",
		worker("llm_kv_hit_rate_isl_blocks", "generate", a): "5",
		worker("llm_kv_hit_rate_isl_blocks", "generate", b): "7",
	})
}

func TestNoWorkersNoNumbers(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.shows(page{workers("generate", "answering"): "0", `dynamo_metrics_polls_total{result="error"}`: "0"})
	m.ready()
	p, err := m.page()
	if err != nil {
		t.Fatal(err)
	}
	if nans := p.of("llm_load"); len(nans) > 0 {
		t.Errorf("aggregates of nobody: %v", nans)
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
		s.responder("dynamo_backend", fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":"dynamo_backend","id":%q,"endpoints":[{"subject":"dynamo_backend.load_metrics","data":%s},{"subject":"dynamo_backend.generate","data":null}]}`, id, flat(active, 100)))
	}
	env := []string{"NATS_SERVER=" + s.NATS.URL()}
	m := serve(t, env, "--component", "backend", "--endpoint", "load_metrics", "--poll-interval", "0.1", "--etcd-endpoints", "none")
	m.ready()
	m.shows(page{
		`llm_kv_blocks_active{component="backend",endpoint="load_metrics",worker_id="p6nqGIpvsufbGe0wLMOj0A"}`: "41",
		`llm_kv_blocks_active{component="backend",endpoint="load_metrics",worker_id="hPB5m9ZEpxuG7coMu2nFks"}`: "40",
		workers("load_metrics", "unregistered"):                     "2",
		`dynamo_metrics_connected{system="etcd"}`:                   "",
		`dynamo_metrics_leader`:                                     "",
		`llm_load_avg{component="backend",endpoint="load_metrics"}`: "40.5",
	})
}

func TestAnEndpointWithoutLoadIsExplained(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.register(wire.LayoutInstances, instance("generate", 7))
	s.register(wire.LayoutInstances, instance("load_metrics", 7))
	s.responder("dynamo_backend", fmt.Appendf(nil, `{"type":"io.nats.micro.v1.stats_response","name":"dynamo_backend","id":"x","endpoints":[{"subject":"dynamo_backend.generate-7","data":null},{"subject":"dynamo_backend.load_metrics-7","data":%s}]}`, flat(1, 2)))
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.Says(" INFO metrics: Endpoint generate of component backend carries no load; these of the component do: load_metrics")
	m.shows(page{workers("generate", "answering"): "0", workers("generate", "silent"): "0"})
	if n := len(m.Said("carries no load")); n != 1 {
		t.Errorf("said %d times, want once", n)
	}
}

func TestAMisspelledNameIsHelped(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.register(wire.LayoutComponents, fleet.Instance{Endpoint: fleet.Endpoint{Component: "MyComponent", Name: "my_endpoint"}, ID: 9})
	m := s.metrics("--component", "my_component", "--endpoint", "my_endpoint", "--poll-interval", "0.1")
	m.Says("Registered in namespace dynamo: MyComponent/my_endpoint; did you mean --component MyComponent --endpoint my_endpoint?")
}

func TestEveryReleaseAtOnceInOneNamespace(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--poll-interval", "0.1")
	releases := []string{"0.1.0", "0.1.1", "0.2.1", "0.3.0", "0.5.1"}
	for _, r := range releases {
		start(t, "mock_worker", s.env(), "--release", r, "--component", "c-"+strings.ReplaceAll(r, ".", ""), "--correlated", "--event-interval", "0.05", "--workers", "2")
	}
	for _, r := range releases {
		m.shows(page{fmt.Sprintf(`llm_workers{component="c-%s",endpoint="generate",state="answering"}`, strings.ReplaceAll(r, ".", "")): "2"})
	}
	m.until(func(p page) error {
		if n := len(p.of("llm_kv_hit_rate_overlap_blocks{")); n != 2*len(releases) {
			return fmt.Errorf("hits of %d workers, want of %d: %v", n, 2*len(releases), p.of("overlap"))
		}
		// An event may overtake its worker's registration; then its blocks move.
		if strangers := p.of(`component="unknown"`, "worker_id"); len(strangers) > 0 {
			return fmt.Errorf("hits of workers that are registered: %v", strangers)
		}
		return nil
	})
}

func TestForeignAndUnknownHits(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.register(wire.LayoutInstances, instance("generate", 1))
	s.register(wire.LayoutInstances, fleet.Instance{Endpoint: fleet.Endpoint{Component: "prefill", Name: "generate"}, ID: 2})
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.ready()
	for id := range uint64(3) {
		s.hit(id+1, 10, 4)
	}
	m.shows(page{
		worker("llm_kv_hit_rate_isl_blocks", "generate", 1): "10",
		worker("llm_kv_hit_rate_isl_blocks", "generate", 2): "",
		worker("llm_kv_hit_rate_isl_blocks", "generate", 3): "10",
		"dynamo_metrics_foreign_events_total":               "1",
		`llm_kv_hit_rate_events_total{` + backend + `}`:     "2",
	})
}

func TestAWorkerThatFoundNoRoomIsShownWhenThereIsSome(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1", "--max-workers", "2")
	m.ready()
	for id := range uint64(3) {
		s.register(wire.LayoutInstances, instance("generate", id+1))
		s.responder("dynamo_backend", reply("dynamo_backend", "generate", id+1, flat(int(id), 9)))
	}
	m.shows(page{workers("generate", "answering"): "2", worker("llm_kv_blocks_active", "generate", 3): ""})
	m.Says(" WARN metrics: There is no room for more workers: raise --max-workers max_workers=2")
	s.deregister(wire.LayoutInstances, instance("generate", 1))
	m.shows(page{workers("generate", "answering"): "2", worker("llm_kv_blocks_active", "generate", 3): "2"})
}
