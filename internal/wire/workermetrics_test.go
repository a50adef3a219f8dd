package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// workerMetricsOf reads a file of testdata.
func workerMetricsOf(t testing.TB, path ...string) []WorkerMetrics {
	t.Helper()
	values, err := new(WorkerMetricsReader).Read(bytes.NewReader(testutil.Captured(t, path...)))
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// rankAt returns the metrics of a rank at an endpoint. Worker 0 stands for an unknown worker.
func rankAt(e fleet.Endpoint, namespace string, worker uint64, s fleet.ScrapedValues) WorkerMetrics {
	s.Endpoint = e
	m := WorkerMetrics{Namespace: namespace, ScrapedValues: s}
	if worker != 0 {
		m.Worker = fleet.Some(worker)
	}
	return m
}

// engineLoad returns a load without labels, followed by other metrics.
func engineLoad(l fleet.Load, more ...WorkerMetrics) []WorkerMetrics {
	return append([]WorkerMetrics{{ScrapedValues: fleet.ScrapedValues{Load: l}}}, more...)
}

// mockHandlers returns the metrics of the handlers of Dynamo's mock engines. One of them is
// of an endpoint whose key is ignored.
func mockHandlers(component string, worker uint64, source string, inflight uint64) []WorkerMetrics {
	n := fleet.Some[uint64]
	return []WorkerMetrics{
		rankAt(fleet.Endpoint{Component: component, Name: "generate"}, "lab", worker, fleet.ScrapedValues{Inflight: n(inflight)}),
		rankAt(fleet.Endpoint{Component: component, Name: "worker_kv_query_source_" + source}, "lab", worker, fleet.ScrapedValues{Inflight: n(0)}),
	}
}

func checkWorkerMetrics(t *testing.T, files map[string][]WorkerMetrics) {
	t.Helper()
	for path, want := range files {
		t.Run(path, func(t *testing.T) { testutil.Equal(t, "metrics", workerMetricsOf(t, path), want) })
	}
}

func TestWorkerMetricsReaderReadsCaptures(t *testing.T) {
	n, share := fleet.Some[uint64], fleet.Some[float64]
	backend := fleet.Endpoint{Component: "backend", Name: "generate"}
	checkWorkerMetrics(t, map[string][]WorkerMetrics{
		"0.6.1/metrics_before_first_load.prom": {
			rankAt(fleet.Endpoint{Component: "backend"}, "lab", 0, fleet.ScrapedValues{}),
			rankAt(backend, "lab", 0, fleet.ScrapedValues{Inflight: n(0)}),
		},
		"0.6.1/metrics.prom": {
			rankAt(fleet.Endpoint{Component: "backend"}, "lab", 0, fleet.ScrapedValues{Load: fleet.Load{KVActive: n(42), KVTotal: n(1000), CacheUsage: share(0.25), HitRate: share(0.5)}}),
			rankAt(backend, "lab", 0, fleet.ScrapedValues{Inflight: n(0)}),
		},
		"1.6.1/metrics_worker.prom": {rankAt(backend, "lab", 0x9cf1b09034dc1, fleet.ScrapedValues{Inflight: n(0)})},
		"1.6.1/metrics_mocker_vllm.prom": engineLoad(fleet.Load{ActiveSlots: n(10), Waiting: n(14), CacheUsage: share(0.998046875)},
			mockHandlers("vllm", 0x6a6ca214c850b02e, "85e62b4466798", 24)...),
		"1.6.1/metrics_mocker_sglang.prom": engineLoad(fleet.Load{ActiveSlots: n(7), Waiting: n(17), HitRate: share(0.7619047619047619)},
			mockHandlers("sglang", 0x6a6ca214c850b054, "37d1cf7ef22d1", 24)...),
		"1.6.1/metrics_mocker_trtllm.prom": engineLoad(fleet.Load{ActiveSlots: n(2), Waiting: n(22), CacheUsage: share(0.42578125)},
			mockHandlers("trtllm", 0x6a6ca214c850b01c, "84328e7d9f97c", 24)...),
	})
}

// TestWorkerMetricsReaderReadsEngineFormats reads files that were not captured, but written
// after the engines' public sources.
func TestWorkerMetricsReaderReadsEngineFormats(t *testing.T) {
	n, share := fleet.Some[uint64], fleet.Some[float64]
	backend := fleet.Endpoint{Component: "backend", Name: "generate"}
	sglang := []WorkerMetrics{
		{ScrapedValues: fleet.ScrapedValues{Load: fleet.Load{ActiveSlots: n(15), Waiting: n(4), CacheUsage: share(0.42), HitRate: share(0.75)}}},
		{ScrapedValues: fleet.ScrapedValues{Rank: 1, Load: fleet.Load{ActiveSlots: n(9), Waiting: n(0), CacheUsage: share(0.125), HitRate: share(0)}}},
	}
	checkWorkerMetrics(t, map[string][]WorkerMetrics{
		"engines/vllm.prom": {
			rankAt(fleet.Endpoint{Component: "backend", Name: "clear_kv_blocks"}, "dynamo", 0x6a6ca214c850b02e, fleet.ScrapedValues{Inflight: n(0)}),
			rankAt(backend, "dynamo", 0x6a6ca214c850b02e, fleet.ScrapedValues{
				Load:     fleet.Load{ActiveSlots: n(8), Waiting: n(3), KVTotal: n(12894), CacheUsage: share(0.25)},
				Inflight: n(19), Lookups: n(1805903), Hits: n(451475),
			}),
			rankAt(backend, "dynamo", 0x6a6ca214c850b02e, fleet.ScrapedValues{
				Rank: 1, Load: fleet.Load{ActiveSlots: n(6), Waiting: n(2), KVTotal: n(12894), CacheUsage: share(8.34e-05)},
				Lookups: n(0), Hits: n(0),
			}),
		},
		"engines/vllm_0.10.prom": {{ScrapedValues: fleet.ScrapedValues{
			Load:    fleet.Load{ActiveSlots: n(37), Waiting: n(12), CacheUsage: share(0.62)},
			Lookups: n(1000), Hits: n(791),
		}}},
		"engines/sglang.prom":             sglang,
		"engines/sglang_underscores.prom": sglang,
		"engines/trtllm.prom": {rankAt(fleet.Endpoint{Component: "tensorrt_llm", Name: "generate"}, "dynamo", 42, fleet.ScrapedValues{Load: fleet.Load{
			ActiveSlots: n(3), TotalSlots: n(2048), Waiting: n(1), KVActive: n(620), KVTotal: n(1000), CacheUsage: share(0.62), HitRate: share(0.38),
		}})},
		"engines/sglang_decode.prom": {{ScrapedValues: fleet.ScrapedValues{
			Load:   fleet.Load{ActiveSlots: n(12), Waiting: n(0 + 7 + 3), CacheUsage: share(0.88)},
			Queues: fleet.Queues{Prealloc: n(7), Transfer: n(3)},
		}}},
		"engines/sglang_prefill.prom": {{ScrapedValues: fleet.ScrapedValues{
			Load:   fleet.Load{ActiveSlots: n(2), Waiting: n(1 + 9), CacheUsage: share(0.3)},
			Queues: fleet.Queues{Bootstrap: n(9), Inflight: n(4)},
		}}},
		"engines/vllm_processes.prom":   engineLoad(fleet.Load{ActiveSlots: n(5), Waiting: n(1), CacheUsage: share(0.653)}),
		"engines/sglang_processes.prom": engineLoad(fleet.Load{ActiveSlots: n(7), Waiting: n(4), CacheUsage: share(0.8)}),
		"engines/vllm_blanks.prom": {{ScrapedValues: fleet.ScrapedValues{
			Load: fleet.Load{ActiveSlots: n(3), Waiting: n(1), CacheUsage: share(0.5)}, Lookups: n(100), Hits: n(40),
		}}},
		"engines/vllm_unseeded_rank.prom": {
			rankAt(fleet.Endpoint{Component: "backend"}, "", 0, fleet.ScrapedValues{Load: fleet.Load{KVTotal: n(1), CacheUsage: share(0.37)}}),
			rankAt(fleet.Endpoint{Component: "backend"}, "", 0, fleet.ScrapedValues{Rank: 1, Load: fleet.Load{KVTotal: n(16384), CacheUsage: share(0.5)}}),
		},
	})
}

// TestWorkerMetricsReaderReadsByteByByte gives every file to the reader one byte at a time.
func TestWorkerMetricsReaderReadsByteByByte(t *testing.T) {
	for _, path := range capturedWorkerMetrics(t) {
		values, err := new(WorkerMetricsReader).Read(iotest.OneByteReader(bytes.NewReader(testutil.Captured(t, path))))
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if len(values) == 0 {
			t.Errorf("%s has no values", path)
		}
	}
}

// capturedWorkerMetrics returns the paths below testdata of all worker metrics.
func capturedWorkerMetrics(t testing.TB) (all []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "*", "*.prom"))
	if err != nil || len(files) < 11 {
		t.Fatalf("testdata has %d files of worker metrics (%v), want at least 11", len(files), err)
	}
	for _, file := range files {
		all = append(all, strings.TrimPrefix(filepath.ToSlash(file), "testdata/"))
	}
	return all
}

func TestWorkerMetricsReaderIsReusable(t *testing.T) {
	var r WorkerMetricsReader
	want := workerMetricsOf(t, "0.6.1/metrics.prom")
	for range 3 {
		if _, err := r.Read(strings.NewReader("vllm:num_requests_running{")); !errors.Is(err, ErrWorkerMetrics) {
			t.Errorf("error %v, want %v", err, ErrWorkerMetrics)
		}
		got, err := r.Read(bytes.NewReader(testutil.Captured(t, "0.6.1/metrics.prom")))
		if err != nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "result", got, want)
	}
}

func TestWorkerMetricsReaderDropsInvalidValues(t *testing.T) {
	n, share := fleet.Some[uint64], fleet.Some[float64]
	for text, want := range map[string]fleet.Load{
		"vllm:num_requests_running -1":                                {},
		"vllm:num_requests_running NaN":                               {},
		"vllm:num_requests_running +Inf":                              {},
		"vllm:num_requests_running 1e300":                             {},
		"vllm:num_requests_running 1e18":                              {ActiveSlots: n(1e18)},
		"vllm:num_requests_running 2.5":                               {ActiveSlots: n(3)},
		"vllm:num_requests_running 3 1795645127000":                   {ActiveSlots: n(3)},
		"vllm:kv_cache_usage_perc 62":                                 {},
		"vllm:kv_cache_usage_perc 1":                                  {CacheUsage: share(1)},
		"vllm:kv_cache_usage_perc 1.02":                               {CacheUsage: share(1)},
		"vllm:kv_cache_usage_perc 1.2":                                {},
		"vllm:kv_cache_usage_perc -0.1":                               {},
		"vllm:gpu_prefix_cache_hit_rate -1":                           {},
		"sglang:cache_hit_rate NaN":                                   {},
		"trtllm_kv_cache_max_blocks 0\ntrtllm_kv_cache_used_blocks 0": {KVActive: n(0)},
		"trtllm_kv_cache_used_blocks 7\ndynamo_component_kvstats_active_blocks 9\ndynamo_component_total_blocks 0":          {KVActive: n(7)},
		"dynamo_component_gpu_cache_usage_percent 0\ndynamo_component_total_blocks 0\ndynamo_component_kv_cache_hit_rate 0": {},
		"vllm:num_requests_running NaN\ntrtllm_num_requests_running 4":                                                      {ActiveSlots: n(4)},
		"vllm:kv_cache_usage_perc 0.5\nvllm:gpu_cache_usage_perc 0.25":                                                      {CacheUsage: share(0.5)},
		"vllm:gpu_cache_usage_perc 0.25\nvllm:kv_cache_usage_perc 0.5":                                                      {CacheUsage: share(0.5)},
		`vllm:num_requests_running{engine="x"} 4`:                                                                           {},
		`vllm:num_requests_running{engine="4294967296"} 4`:                                                                  {},
		`vllm:num_requests_running{worker_id="me"} 4`:                                                                       {},
		`sglang:num_running_reqs{tp_rank="x"} 4` + "\n" + `sglang:num_running_reqs{tp_rank="1"} 3`:                          {ActiveSlots: n(3)},
		`sglang:num_running_reqs{pp_rank="1",tp_rank="0"} 4` + "\n" + `sglang:num_running_reqs{pp_rank="0",tp_rank="1"} 3`:  {ActiveSlots: n(3)},
		`vllm:num_requests_running{model_name="a"} 4` + "\n" + `vllm:num_requests_running{model_name="b"} 3`:                {ActiveSlots: n(4)},
	} {
		values, err := new(WorkerMetricsReader).Read(strings.NewReader(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		var got fleet.Load
		if len(values) > 0 {
			got = values[0].Load
		}
		if len(values) > 1 || got != want {
			t.Errorf("%q: %+v, want %+v", text, values, want)
		}
	}
}

func TestWorkerMetricsReaderPrefersDPRank(t *testing.T) {
	for labels, want := range map[string]uint32{
		``: 0, `engine="7"`: 7, `dp_rank="5"`: 5, `dp_rank="5",engine="7"`: 5, `engine="7",dp_rank="5"`: 5, `dp_rank="",engine="7"`: 7,
	} {
		values, err := new(WorkerMetricsReader).Read(strings.NewReader("vllm:num_requests_running{" + labels + "} 1\n"))
		if err != nil || len(values) != 1 || values[0].Rank != want {
			t.Errorf("%s: %+v, %v, want rank %d", labels, values, err, want)
		}
	}
}

// TestWorkerMetricsReaderAcceptsRepeatedHeaders has headers twice, as in the metrics of workers,
// because Dynamo joins the output of several registries.
func TestWorkerMetricsReaderAcceptsRepeatedHeaders(t *testing.T) {
	text := strings.Repeat("# HELP vllm:num_requests_waiting x\n# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\"} 3\n", 2)
	values, err := new(WorkerMetricsReader).Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	testutil.Equal(t, "values", values, []WorkerMetrics{{ScrapedValues: fleet.ScrapedValues{Load: fleet.Load{Waiting: fleet.Some[uint64](3)}}}})
}

func TestWorkerMetricsReaderRejectsInvalid(t *testing.T) {
	sample := "vllm:num_requests_running{engine=\"0\"} 1\n"
	for name, c := range map[string]struct {
		text io.Reader
		want error
	}{
		"no value":          {strings.NewReader("vllm:num_requests_running{}\n"), ErrWorkerMetrics},
		"a broken label":    {strings.NewReader("vllm:num_requests_running{engine=0} 1\n"), ErrWorkerMetrics},
		"a broken number":   {strings.NewReader("vllm:num_requests_running 1x\n"), ErrWorkerMetrics},
		"a sample too long": {strings.NewReader(`vllm:num_requests_running{x="` + strings.Repeat("x", maxLine) + "\"} 1\n"), ErrWorkerMetrics},
		"too many samples":  {strings.NewReader(strings.Repeat(sample, 1+maxSamples/len(sample))), ErrTooManySamples},
		"a broken pipe":     {io.MultiReader(strings.NewReader(sample), iotest.ErrReader(io.ErrClosedPipe)), io.ErrClosedPipe},
	} {
		if values, err := new(WorkerMetricsReader).Read(c.text); !errors.Is(err, c.want) || values != nil {
			t.Errorf("%s: %v, %v, want %v", name, values, err, c.want)
		}
	}
	for _, text := range []string{"", "\n", "<html>vllm</html>", "{}", strings.Repeat("x", 3*maxLine), strings.Repeat("x", 3*maxLine) + " 1\nnot ours 1\n"} {
		if values, err := new(WorkerMetricsReader).Read(strings.NewReader(text)); err != nil || len(values) != 0 {
			t.Errorf("%.20q: %v, %v, want nothing", text, values, err)
		}
	}
}

// TestWorkerMetricsReaderSkipsLongLines checks that a long line of another family is skipped,
// and that the samples after it are read.
func TestWorkerMetricsReaderSkipsLongLines(t *testing.T) {
	text := "other{x=\"" + strings.Repeat("vllm:num_requests_running 5 ", maxLine/10) + "\"} 1\nvllm:num_requests_running 4"
	values, err := new(WorkerMetricsReader).Read(strings.NewReader(text))
	if err != nil || len(values) != 1 || values[0].Load.ActiveSlots.V != 4 {
		t.Errorf("%+v, %v, want 4 requests", values, err)
	}
}

// BenchmarkWorkerMetricsReader reads captured metrics, and metrics with as many histograms
// as those of real engines.
func BenchmarkWorkerMetricsReader(b *testing.B) {
	captured := testutil.Captured(b, "1.6.1/metrics_mocker_vllm.prom")
	var long bytes.Buffer
	long.Write(captured)
	for i := range 2000 {
		fmt.Fprintf(&long, "vllm:request_prompt_tokens_bucket{engine=\"0\",model_name=\"Qwen/Qwen3-0.6B\",le=\"%d\"} %d\n", i, i)
	}
	for name, text := range map[string][]byte{"captured": captured, "long": long.Bytes()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			var r WorkerMetricsReader
			for b.Loop() {
				if values, err := r.Read(bytes.NewReader(text)); err != nil || len(values) != 3 {
					b.Fatal(values, err)
				}
			}
		})
	}
}
