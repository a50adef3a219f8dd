package exposition

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire/wiretest"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestMetricsOfOriginalFleet(t *testing.T) {
	testutil.Golden(t, "pages/original.prom", metricsText(t, wiretest.Original(t)))
}

// Numbers are compared by value, because the original formats them as Rust does.
func TestMetricsIncludeEveryOriginalLine(t *testing.T) {
	ours := lines(metricsText(t, wiretest.Original(t)))
	original := lines(string(testutil.ReadFile(t, "original", "page.prom")))
	if len(original) < 40 {
		t.Fatalf("the original has %d lines, want all of them", len(original))
	}
	for series, want := range original {
		got, ok := ours[series]
		switch {
		case !ok:
			t.Errorf("the metrics lack the line %s %s", series, want)
		case strings.HasPrefix(series, "#"):
			testutil.Equal(t, series, got, want)
		default:
			testutil.Equal(t, series, parseNumber(t, got), parseNumber(t, want))
		}
	}
}

// lines returns the lines of metrics text: comments by kind and metric, and values by series.
func lines(text string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") {
			at = len(strings.Join(strings.SplitN(line, " ", 4)[:3], " "))
		}
		m[line[:at]] = line[at+1:]
	}
	return m
}

func parseNumber(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMetricsOfEmptyFleet(t *testing.T) {
	named := metricsText(t, fleettest.New(fleet.Target(fleettest.LoadMetrics), true))
	testutil.Golden(t, "pages/empty.prom", named)
	testutil.Golden(t, "pages/empty_everything.prom", metricsText(t, fleettest.New(fleettest.Everything, true)))
	for _, wrong := range []string{"NaN", "llm_load_avg", "llm_load_std", "worker_id="} {
		if strings.Contains(named, wrong) {
			t.Errorf("the metrics of an empty fleet contain %s:\n%s", wrong, named)
		}
	}
	testutil.Equal(t, "answering", lines(named)[`llm_workers{component="backend",endpoint="load_metrics",state="answering"}`], "0")
}

// One good worker is among workers that send malformed replies, do not reply, have no key, or
// report only half of each pair.
func TestMetricsOfFaultyFleet(t *testing.T) {
	f := fleettest.New(fleettest.Everything, true)
	a := wiretest.OriginalAnswers(t)
	wiretest.RegisterAll(t, f, "backend", a...)
	wiretest.Poll(t, f, "backend",
		replaced(t, a[0], `"kv_active_blocks":10`, `"kv_active_blocks":"many"`),
		a[1],
		replaced(t, replaced(t, replaced(t, a[2],
			`"kv_total_blocks":400,`, ``),
			`"request_active_slots":7,`, ``),
			`"gpu_cache_usage_perc":0.25`, `"gpu_cache_usage_perc":null`),
		replaced(t, a[1], "7d7ba2096ef23e32", "7d7ba2096ef23eff"))
	f.Register("", fleet.Instance{Endpoint: fleettest.LoadMetrics, ID: 0x7d7ba2096ef23e40}, fleet.Registration{NATS: true})
	f.RecordHit(977, 3, 1)
	testutil.Golden(t, "pages/trouble.prom", metricsText(t, f))
}

// Dashboards divide one metric of a pair by the other.
func TestMetricsShowPairsTogether(t *testing.T) {
	blocks := []string{"llm_kv_blocks_active", "llm_kv_blocks_total"}
	slots := []string{"llm_requests_active_slots", "llm_requests_total_slots"}
	hits := []string{"llm_kv_hit_rate_isl_blocks", "llm_kv_hit_rate_overlap_blocks"}
	for missing, want := range map[string][]string{
		`"kv_active_blocks":100,`:   slots,
		`"kv_total_blocks":400,`:    slots,
		`"request_active_slots":7,`: blocks,
		`,"request_total_slots":64`: blocks,
		`"num_requests_waiting":9,`: slices.Concat(blocks, slots),
	} {
		f := fleettest.New(fleettest.Everything, true)
		answer := replaced(t, wiretest.OriginalAnswers(t)[2], missing, "")
		wiretest.RegisterAll(t, f, "backend", answer)
		wiretest.Poll(t, f, "backend", answer)
		p := metricsText(t, f)
		for _, name := range slices.Concat(blocks, slots, hits) {
			shown := strings.Contains(p, "# TYPE "+name+" ")
			testutil.Equal(t, name+" without "+missing, shown, slices.Contains(want, name))
		}
		f.RecordHit(0x7d7ba2096ef23e2d, 20, 0)
		series := lines(metricsText(t, f))
		for name, value := range map[string]string{hits[0]: "20", hits[1]: "0"} {
			testutil.Equal(t, name, series[name+`{component="backend",endpoint="load_metrics",worker_id="9041998838276177453"}`], value)
		}
	}
}

func TestMetricsOfStaticWorkers(t *testing.T) {
	f := fleettest.New(fleet.Target(fleettest.LoadMetrics), false)
	wiretest.Poll(t, f, "backend", testutil.Captured(t, "0.5.1", "edge", "static_1.json"), testutil.Captured(t, "0.5.1", "edge", "static_2.json"))
	testutil.Golden(t, "pages/static.prom", metricsText(t, f))
}

func TestMetricsOfSpeculativeDecoding(t *testing.T) {
	f := fleettest.New(fleettest.Everything, true)
	answer := testutil.Captured(t, "0.5.1", "edge", "spec_and_rank.json")
	wiretest.RegisterAll(t, f, "spec", answer)
	wiretest.Poll(t, f, "spec", answer)
	testutil.Golden(t, "pages/spec_decode.prom", metricsText(t, f))
}

func TestMetricsOfLargestNumbers(t *testing.T) {
	f := fleettest.New(fleettest.Everything, true)
	answer := testutil.Captured(t, "0.5.1", "edge", "big.json")
	wiretest.RegisterAll(t, f, "big", answer)
	wiretest.Poll(t, f, "big", answer)
	testutil.Golden(t, "pages/big.prom", metricsText(t, f))
}

// The fleet's Stats have a value of everything that the program counts.
func TestMetricsOfProgram(t *testing.T) {
	synctest.Test(t, testMetricsOfProgram)
}

func testMetricsOfProgram(t *testing.T) {
	f := fleet.New(fleet.Target(fleettest.LoadMetrics), 1, true)
	f.Sync(fleet.Listing{})
	f.Advance(fleettest.Reported)
	st := &f.Stats
	st.NATS.MarkUsed()
	st.Etcd.MarkUsed()
	time.Sleep(1500 * time.Millisecond)
	st.NATS.SetConnected(true)
	st.NATS.SetConnected(false)
	time.Sleep(time.Second)
	st.NATS.SetConnected(true)
	st.Leader.Store(true)
	st.RecordPoll(stats.PollOK, 3*time.Millisecond)
	st.RecordPoll(stats.PollOK, 300*time.Millisecond)
	st.RecordPoll(stats.PollEmpty, time.Second)
	st.RecordPoll(stats.PollError, 0)
	for i, k := range stats.Kinds() {
		for range i + 1 {
			st.CountMessage(k)
		}
		st.CountRejected(k, stats.BadJSON)
	}
	st.CountRejected(stats.StatsReply, stats.BadLoad)
	st.AddDropped(stats.QueueFull, 12)
	st.AddDropped(stats.OverMaxBytes, 1)
	st.PushOK.Store(5)
	st.PushError.Store(2)
	st.LastPush.Store(fleettest.Reported.UnixNano())
	st.HistoryBytes.Store(1 << 20)
	for i, p := range stats.Peers() {
		for range i + 1 {
			st.CountFailure(p)
		}
	}
	st.CountRefused(stats.EndpointLimit)
	st.Streams.Store(3)
	st.StreamsCutOff.Store(2)
	st.StreamsRefused.Store(1)
	st.SnapshotsSkipped.Store(4)
	st.LogDropped = func() uint64 { return 7 }
	f.Register("", fleet.Instance{Endpoint: fleet.Endpoint{Component: "prefill", Name: "generate"}, ID: 1}, fleet.Registration{NATS: true})
	f.RecordHit(1, 20, 5) // foreign
	f.RecordHit(2, 20, 5) // over the limit
	testutil.Golden(t, "pages/program.prom", metricsText(t, f))
}

// The fleet has what only releases from 0.6 on send: model cards, published loads, ranks, forward
// passes and request traces.
func TestMetricsOfPublishingWorkers(t *testing.T) {
	f := fleettest.New(fleettest.Everything, true)
	generate := fleet.Endpoint{Component: "backend", Name: "generate"}
	some := fleet.Some[uint64]
	for id := range uint64(4) {
		in := fleet.Instance{Endpoint: generate, ID: 1 + id}
		f.Register("", in, fleet.Registration{Publishes: true})
		f.SetCard("", in, fleet.Card{Model: "Qwen/Qwen3-0.6B", KVTotal: some(1000), MaxSeqs: some(100)})
	}
	from := func(worker uint64, rank uint32) fleet.Origin {
		return fleet.Origin{Endpoint: generate, Worker: worker, Rank: rank}
	}
	f.RecordLoad(from(1, 0), fleet.FromActiveLoad, fleet.Load{KVActive: some(250)})
	f.RecordForwardPass(from(1, 0), fleet.Pass{Counter: 1, Seconds: 0.03, Running: 3, Waiting: 2, PrefillTokens: 512, DecodeTokens: 2, QueuedTokens: 900, ScheduledKVTokens: 4000})
	f.RecordForwardPass(from(1, 0), fleet.Pass{Counter: 5, Seconds: 0.3, Running: 4, Waiting: 1, PrefillTokens: 0, DecodeTokens: 4, QueuedTokens: 100, ScheduledKVTokens: 5000})
	f.RecordForwardPass(from(1, 0), fleet.Pass{Counter: 6, Running: 4, Waiting: 1, QueuedTokens: 100, ScheduledKVTokens: 5000})
	// A worker with two ranks. The router's events up to 1.3 do not name the endpoint.
	f.RecordLoad(fleet.Origin{Worker: 2, Rank: 0}, fleet.FromActiveLoad, fleet.Load{KVActive: some(100)})
	f.RecordLoad(fleet.Origin{Worker: 2, Rank: 1}, fleet.FromActiveLoad, fleet.Load{KVActive: some(300)})
	f.RecordForwardPass(from(2, 0), fleet.Pass{Counter: 1, Running: 7})
	f.RecordForwardPass(from(2, 1), fleet.Pass{Counter: 1, Running: 9, Waiting: 5})
	// Worker 3 has only forward passes, and worker 4 has nothing.
	f.RecordForwardPass(from(3, 0), fleet.Pass{Counter: 1, Seconds: 0.002, Running: 1, DecodeTokens: 1})
	for range 3 {
		f.RecordRequest(fleet.Request{
			Prefill: some(1), Decode: some(2), ISLBlocks: some(20), OverlapBlocks: some(12),
			FirstToken: fleet.Some(0.2), InterToken: fleet.Some(0.015), Duration: fleet.Some(4.0),
		})
	}
	f.RecordRequest(fleet.Request{Prefill: some(977), Decode: some(977)}) // of another namespace
	st := &f.Stats
	st.ZMQ.SetConnected(true)
	st.ZMQ.MarkUsed()
	st.Publishers.Store(7)
	st.PublishersUp.Store(4)
	st.PublishersWaiting.Store(2)
	f.Diagnostics.SetSubjects([]fleet.Subject{
		{Name: "namespace.dynamo.kv-hit-rate", Required: true}, {Name: "namespace.dynamo.kv_metrics", Required: true, Refused: true},
		{Name: "dynamo.request_trace.v1"}, {Name: "namespace.dynamo.l2c.>", Refused: true},
	})
	st.MissedEvents.Add(3)
	st.RecordLag(3 * time.Millisecond)
	st.RecordLag(-time.Second) // the worker's clock is ahead
	testutil.Golden(t, "pages/published.prom", metricsText(t, f))
}

// Two generations of workers run side by side, in namespaces that end in different hashes. Each
// series of the Fleet has its namespace.
func TestMetricsOfRollingUpdate(t *testing.T) {
	f := fleettest.New(severalNamespaces, true)
	some := fleet.Some[uint64]
	for id, namespace := range []string{"team-a-lab-0c1d2e3f", "team-a-lab-4b5c6d7e"} {
		e := fleet.Endpoint{Namespace: namespace, Component: "backend", Name: "generate"}
		worker := uint64(1 + id)
		f.Register("", fleet.Instance{Endpoint: e, ID: worker}, fleet.Registration{Publishes: true})
		f.SetCard("", fleet.Instance{Endpoint: e, ID: worker}, fleet.Card{Model: "m", KVTotal: some(1000), MaxSeqs: some(100)})
		for rank := range uint32(2) {
			from := fleet.Origin{Endpoint: e, Worker: worker, Rank: rank}
			f.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: some(100 * worker)})
			f.RecordForwardPass(from, fleet.Pass{Counter: 1, Seconds: 0.03, Running: 3})
		}
		f.RecordRequest(fleet.Request{Prefill: some(worker), Decode: some(worker), ISLBlocks: some(20), OverlapBlocks: some(12), FirstToken: fleet.Some(0.2)})
	}
	f.RecordHit(977, 20, 5) // of an unknown worker
	testutil.Golden(t, "pages/several_namespaces.prom", metricsText(t, f))
}

// One worker is known only by its own metrics. Those of another one complete its card and load. A
// third one has two ranks.
func TestMetricsOfScrapedWorkers(t *testing.T) {
	f := fleettest.New(fleettest.Everything, true)
	generate := fleet.Endpoint{Component: "backend", Name: "generate"}
	some := fleet.Some[uint64]
	for id := range uint64(3) {
		f.Register("", fleet.Instance{Endpoint: generate, ID: 1 + id}, fleet.Registration{Publishes: true})
	}
	f.SetCard("", fleet.Instance{Endpoint: generate, ID: 2}, fleet.Card{Model: "Qwen/Qwen3-0.6B", KVTotal: some(1000), MaxSeqs: some(100)})
	f.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 2}, fleet.FromActiveLoad, fleet.Load{KVActive: some(250)})
	engine := fleet.Load{ActiveSlots: some(4), Waiting: some(2), CacheUsage: fleet.Some(0.5)}
	values := []fleet.ScrapedValues{{Load: engine, Lookups: some(1000), Hits: some(625)}}
	for _, p := range f.ScrapeTargets(true) {
		if p.ID == 3 {
			values[0].Load.KVTotal = some(512)
			values = append(values, fleet.ScrapedValues{Rank: 1, Load: engine})
		}
		f.RecordScrape(p, values)
	}
	st := &f.Stats
	st.CountMessage(stats.WorkerMetrics)
	st.CountRejected(stats.WorkerMetrics, stats.TooLarge)
	st.CountScrape(stats.ScrapeOK)
	st.CountScrape(stats.ScrapeError)
	testutil.Golden(t, "pages/scraped.prom", metricsText(t, f))
}

func TestMetricsTableIsInGoldenFiles(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("testdata", "pages", "*.prom"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("golden files: %v, %v", paths, err)
	}
	seen := make(map[string]bool)
	for _, p := range paths {
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(string(testutil.ReadFile(t, "pages", filepath.Base(p)))))
		if err != nil {
			t.Errorf("%s: %v", p, err)
		}
		for name := range families {
			seen[name] = true
		}
	}
	for _, name := range Names() {
		if !seen[name] {
			t.Errorf("no golden file has %s", name)
		}
		delete(seen, name)
	}
	for name := range seen {
		t.Errorf("a golden file has %s, which is not in the table", name)
	}
}

func TestMetricsWorkerInfoHasModel(t *testing.T) {
	f := wiretest.Original(t)
	r := NewMetrics(Collector{Fleet: f, Build: build, Model: `llama "3"`, Now: func() time.Time { return served }})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	models := 0
	for _, family := range families {
		for _, m := range family.Metric {
			for _, l := range m.Label {
				if l.GetName() == "model" {
					testutil.Equal(t, family.GetName(), l.GetValue(), `llama "3"`)
					models++
				}
			}
		}
	}
	testutil.Equal(t, "series with a model", models, 3)
}

func TestMetricsLoadAgeGrows(t *testing.T) {
	now := fleettest.Reported
	f := wiretest.Original(t)
	r := NewMetrics(Collector{Fleet: f, Build: build, Now: func() time.Time { return now }})
	for _, age := range []time.Duration{0, time.Second, time.Hour} {
		now = fleettest.Reported.Add(age)
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == "llm_worker_load_age_seconds" {
				testutil.Equal(t, "workers", len(family.Metric), 3)
				testutil.Equal(t, "age", family.Metric[0].Gauge.GetValue(), age.Seconds())
			}
		}
	}
}

func TestHasLabel(t *testing.T) {
	for _, name := range []string{"job", "component", "endpoint", "worker_id", "worker_id_hex", "source", "model", "dynamo_namespace",
		"state", "system", "kind", "reason", "result", "le", "quantile", "version", "revision", "goversion"} {
		testutil.Equal(t, name, HasLabel(name), true)
	}
	for _, name := range []string{"instance", "cluster", ""} {
		testutil.Equal(t, name, HasLabel(name), false)
	}
}
