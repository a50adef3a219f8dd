package wire

import (
	"errors"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// readWorkerMetrics reads valid worker metrics.
func readWorkerMetrics(t *testing.T, text string) ([]WorkerMetrics, WorkerMetricsFaults) {
	t.Helper()
	var r WorkerMetricsReader
	values, err := r.Read(strings.NewReader(text))
	if err != nil {
		t.Errorf("%q: %v", text, err)
	}
	return values, r.Faults
}

// TestWorkerMetricsReaderMergesOtherLabels checks that samples are merged, in any order, if they
// differ only in labels that are not read.
func TestWorkerMetricsReaderMergesOtherLabels(t *testing.T) {
	n, share := fleet.Some[uint64], fleet.Some[float64]
	for name, c := range map[string]struct {
		samples []string
		want    fleet.ScrapedValues
	}{
		"a gauge": {
			[]string{`vllm:num_requests_running{pid="1"} 0`, `vllm:num_requests_running{pid="2"} 7`, `vllm:num_requests_running{pid="3"} 2`},
			fleet.ScrapedValues{Load: fleet.Load{ActiveSlots: n(7)}},
		},
		"a fraction": {
			[]string{`vllm:kv_cache_usage_perc{model_name="a"} 0.25`, `vllm:kv_cache_usage_perc{model_name="b"} 0.5`},
			fleet.ScrapedValues{Load: fleet.Load{CacheUsage: share(0.5)}},
		},
		"an invalid value is not the largest": {
			[]string{`vllm:kv_cache_usage_perc{pid="1"} 62`, `vllm:kv_cache_usage_perc{pid="2"} 0.5`, `vllm:kv_cache_usage_perc{pid="3"} NaN`},
			fleet.ScrapedValues{Load: fleet.Load{CacheUsage: share(0.5)}},
		},
		"a counter": {
			[]string{
				`vllm:prefix_cache_queries_total{pid="1"} 100`, `vllm:prefix_cache_queries_total{pid="2"} 200`,
				`vllm:prefix_cache_hits_total{pid="1"} 50`, `vllm:prefix_cache_hits_total{pid="2"} 150`,
			},
			fleet.ScrapedValues{Lookups: n(300), Hits: n(200)},
		},
		"a repeated counter": {
			[]string{`vllm:prefix_cache_queries_total{pid="1"} 100`, `vllm:prefix_cache_queries_total{pid="1"} 100`, `vllm:prefix_cache_queries_total{pid="2"} 5`},
			fleet.ScrapedValues{Lookups: n(105)},
		},
		"a repeated counter, its labels in another order": {
			[]string{`vllm:prefix_cache_queries_total{pid="1",model_name="m"} 10`, `vllm:prefix_cache_queries_total{model_name="m",pid="1"} 10`, `vllm:prefix_cache_queries_total{pid="2",model_name="m"} 5`},
			fleet.ScrapedValues{Lookups: n(15)},
		},
		"a counter beyond the limit": {
			[]string{`vllm:prefix_cache_hits_total{pid="1"} 9e18`, `vllm:prefix_cache_hits_total{pid="2"} 9e18`, `vllm:prefix_cache_hits_total{pid="3"} 9e18`},
			fleet.ScrapedValues{Hits: n(1 << 63)},
		},
		"the preferred family, though its value is smaller": {
			[]string{`vllm:kv_cache_usage_perc{pid="1"} 0.25`, `vllm:gpu_cache_usage_perc{pid="1"} 0.75`, `vllm:kv_cache_usage_perc{pid="2"} 0.5`},
			fleet.ScrapedValues{Load: fleet.Load{CacheUsage: share(0.5)}},
		},
		"the preferred shard, though its value is smaller": {
			[]string{`sglang:num_running_reqs{tp_rank="1",pid="1"} 9`, `sglang:num_running_reqs{tp_rank="0",pid="1"} 0`, `sglang:num_running_reqs{tp_rank="0",pid="2"} 3`},
			fleet.ScrapedValues{Load: fleet.Load{ActiveSlots: n(3)}},
		},
		"blocks that are unknown to one process": {
			[]string{`dynamo_component_total_blocks{pid="1"} 0`, `dynamo_component_total_blocks{pid="2"} 1000`, `dynamo_component_gpu_cache_usage_percent{pid="2"} 0.5`},
			fleet.ScrapedValues{Load: fleet.Load{KVTotal: n(1000), CacheUsage: share(0.5)}},
		},
		"queues": {
			[]string{`sglang:num_decode_prealloc_queue_reqs{pid="1"} 0`, `sglang:num_decode_prealloc_queue_reqs{pid="2"} 7`},
			fleet.ScrapedValues{Load: fleet.Load{Waiting: n(7)}, Queues: fleet.Queues{Prealloc: n(7)}},
		},
	} {
		for range len(c.samples) { // every sample is first once
			c.samples = append(c.samples[1:], c.samples[0])
			values, _ := readWorkerMetrics(t, strings.Join(c.samples, "\n")+"\n")
			if len(values) != 1 || values[0].ScrapedValues != c.want {
				t.Errorf("%s: %+v, want %+v", name, values, c.want)
			}
		}
	}
}

func TestWorkerMetricsReaderSumsSGLangQueues(t *testing.T) {
	n := fleet.Some[uint64]
	for text, want := range map[string]fleet.ScrapedValues{
		"sglang:num_queue_reqs 3\n": {Load: fleet.Load{Waiting: n(3)}},
		"sglang:num_queue_reqs 3\nsglang:num_prefill_bootstrap_queue_reqs 4\nsglang:num_prefill_inflight_queue_reqs 9\n": {
			Load: fleet.Load{Waiting: n(7)}, Queues: fleet.Queues{Bootstrap: n(4), Inflight: n(9)},
		},
		"sglang:num_prefill_prealloc_queue_reqs 5\nsglang:num_prefill_bootstrap_queue_reqs 4\n": { // both names of one queue
			Load: fleet.Load{Waiting: n(4)}, Queues: fleet.Queues{Bootstrap: n(4)},
		},
		"sglang:num_decode_transfer_queue_reqs 2\n":              {Load: fleet.Load{Waiting: n(2)}, Queues: fleet.Queues{Transfer: n(2)}},
		"sglang:num_prefill_inflight_queue_reqs 2\n":             {Queues: fleet.Queues{Inflight: n(2)}},
		"sglang:num_queue_reqs 0\nsglang:num_retracted_reqs 6\n": {Load: fleet.Load{Waiting: n(0)}}, // retracted requests are in the queue again, and must not count twice
	} {
		values, _ := readWorkerMetrics(t, text)
		if len(values) != 1 || values[0].ScrapedValues != want {
			t.Errorf("%q: %+v, want %+v", text, values, want)
		}
	}
}

// TestWorkerMetricsReaderTrimsAfterValue checks what may follow a value in the text format and
// in OpenMetrics.
func TestWorkerMetricsReaderTrimsAfterValue(t *testing.T) {
	for _, after := range []string{
		"", " ", "\t", " \t ", "\r", " \r", " 1795645127000", " 1795645127", " 1795645127.123", "\t1.7956e9 ", " -1",
		` # {trace_id="0af7651916cd43dd"} 0.67`, ` # {trace_id="a}b#c"} 0.67 1795645127.5`, ` 1795645127.5 # {} 1`, " #{} 1",
	} {
		for _, labels := range []string{"", "{}", `{engine="0"}`, `{ engine = "0" , model_name="a } b # \" c\\" , } `, ` {engine="0"}`} {
			for _, end := range []string{"\n", ""} {
				line := "vllm:num_requests_running" + labels + " 3.0" + after + end
				values, faults := readWorkerMetrics(t, line)
				if len(values) != 1 || values[0].Load.ActiveSlots.V != 3 || faults != (WorkerMetricsFaults{}) {
					t.Errorf("%q: %+v, %+v, want 3 requests", line, values, faults)
				}
			}
		}
	}
}

// TestWorkerMetricsReaderSkipsBadLines checks that a malformed sample is skipped and counted, at
// any position.
func TestWorkerMetricsReaderSkipsBadLines(t *testing.T) {
	good := []string{`vllm:num_requests_running{engine="0"} 3`, `vllm:num_requests_waiting{engine="0"} 1`, `vllm:kv_cache_usage_perc{engine="1"} 0.5`}
	want, _ := readWorkerMetrics(t, strings.Join(good, "\n"))
	for _, bad := range []string{
		"vllm:num_requests_running 1x", "vllm:num_requests_running{engine=0} 1", `vllm:num_requests_running{engine="0" 1`, `vllm:num_requests_running{engine="0} 1`,
		"vllm:num_requests_running{}", "vllm:num_requests_running 1 tomorrow", "vllm:num_requests_running 1 2 3", "vllm:num_requests_running 1 # exemplar",
		`vllm:num_requests_running{a="1",a="2"} 1`, "vllm:num_requests_running{x=\"\xff\"} 1", `vllm:num_requests_running{x="` + strings.Repeat("x", maxLine) + `"} 1`,
	} {
		for at := range len(good) + 1 {
			lines := append(append(append([]string{}, good[:at]...), bad), good[at:]...)
			values, faults := readWorkerMetrics(t, strings.Join(lines, "\n"))
			testutil.Equal(t, "values", values, want)
			if faults.Lines != 1 || !errors.Is(faults.First, ErrWorkerMetrics) || !strings.Contains(faults.First.Error(), "vllm:num_requests_running: ") || strings.Contains(faults.First.Error(), "line 1") {
				t.Errorf("%.60q: %+v, want one fault with the metric's name", bad, faults)
			}
		}
	}
}

func TestWorkerMetricsReaderCountsInvalidValues(t *testing.T) {
	for text, want := range map[string]int{
		"vllm:kv_cache_usage_perc 62": 1, "vllm:kv_cache_usage_perc -0.1": 1, "vllm:kv_cache_usage_perc +Inf": 1, "vllm:num_requests_running -1": 1, "vllm:num_requests_running 1e300": 1,
		"vllm:kv_cache_usage_perc 0.5": 0, "vllm:kv_cache_usage_perc 1.05": 0, "vllm:kv_cache_usage_perc NaN": 0, "vllm:num_requests_running NaN": 0,
		"vllm:gpu_prefix_cache_hit_rate -1": 0, // reported by an engine without a prefix cache
	} {
		if _, faults := readWorkerMetrics(t, text); faults != (WorkerMetricsFaults{Invalid: want}) {
			t.Errorf("%s: %+v, want %d invalid values", text, faults, want)
		}
	}
}
