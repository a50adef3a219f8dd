package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// FuzzWorkerMetricsReader checks that all values are valid, that the parser alone reads the
// same values from the whole text, and that the values are the same after they were
// rendered and read again.
func FuzzWorkerMetricsReader(f *testing.F) {
	for _, path := range capturedWorkerMetrics(f) {
		var few []string // the fuzzer mutates short inputs faster
		for line := range strings.Lines(string(testutil.Captured(f, path))) {
			if isKnownSample([]byte(line)) && len(few) < 4 {
				few = append(few, line)
			}
		}
		f.Add([]byte("# HELP x y\n# TYPE x gauge\nx 1\n" + strings.Join(few, "")))
	}
	f.Add([]byte("vllm:num_requests_running{engine=\"1\"} 1e3\r\nsglang_token_usage 0.5 17\n\ttrtllm_kv_cache_used_blocks{} 3"))
	var r WorkerMetricsReader
	f.Fuzz(func(t *testing.T, text []byte) {
		values, err := r.Read(bytes.NewReader(text))
		if err != nil {
			if values != nil || !errors.Is(err, ErrWorkerMetrics) && !errors.Is(err, ErrTooManySamples) {
				t.Errorf("%v, %v", values, err)
			}
			return
		}
		for _, v := range values {
			for _, share := range []fleet.Opt[float64]{v.Load.CacheUsage, v.Load.HitRate} {
				if share.OK && !(share.V >= 0 && share.V <= 1) || !share.OK && share.V != 0 {
					t.Errorf("%+v", v)
				}
			}
			if v.Load.KVTotal.OK && v.Load.KVTotal.V == 0 && v.Load.KVActive.V > 0 {
				t.Errorf("%+v", v)
			}
		}
		if whole, ok := parseWhole(text); ok {
			testutil.Equal(t, "values", values, whole)
		}
		for i := range values { // the sum cannot be rendered exactly
			if v := &values[i]; v.Queues != (fleet.Queues{}) {
				v.Queues, v.Load.Waiting = fleet.Queues{}, fleet.Opt[uint64]{}
			}
		}
		rewritten, err := r.Read(strings.NewReader(renderWorkerMetrics(values)))
		if err != nil {
			t.Fatalf("%v in\n%s", err, renderWorkerMetrics(values))
		}
		testutil.Equal(t, "rewritten", rewritten, values)
	})
}

// parseWhole reads the whole text with the parser alone. It reports false if the parser
// fails, or if a family that is read has an unexpected type.
func parseWhole(text []byte) ([]WorkerMetrics, bool) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil || bytes.Contains(text, []byte("{\"")) || len(text) > maxLine {
		return nil, false
	}
	known := make(map[string]*dto.MetricFamily)
	for name, family := range families {
		if _, read := familyIndex[name]; !read {
			continue
		}
		for _, m := range family.Metric {
			switch {
			case m.Gauge != nil:
				m.Untyped = &dto.Untyped{Value: m.Gauge.Value}
			case m.Counter != nil:
				m.Untyped = &dto.Untyped{Value: m.Counter.Value}
			case m.Untyped == nil:
				return nil, false
			}
		}
		known[name] = family
	}
	values, _ := rankMetrics(known)
	return values, true
}

// renderWorkerMetrics renders the values, with names that differ from those in the input.
func renderWorkerMetrics(values []WorkerMetrics) string {
	var b strings.Builder
	for _, v := range values {
		labels := []string{}
		add := func(name, value string) {
			if value != "" {
				labels = append(labels, name+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value)+`"`)
			}
		}
		add("dynamo_namespace", v.Namespace)
		add("dynamo_component", v.Component)
		add("dynamo_endpoint", v.Name)
		add("dp_rank", strconv.FormatUint(uint64(v.Rank), 10))
		if v.Worker.OK {
			add("worker_id", HexID(v.Worker.V))
		}
		add("pp_rank", "3")
		sample := func(name string, value float64) {
			fmt.Fprintf(&b, "%s{%s} %s\n", name, strings.Join(labels, ","), strconv.FormatFloat(value, 'g', -1, 64))
		}
		count := func(name string, o fleet.Opt[uint64]) {
			if o.OK {
				sample(name, float64(o.V))
			}
		}
		share := func(name string, o fleet.Opt[float64]) {
			if o.OK {
				sample(name, o.V)
			}
		}
		sample("vllm:num_requests_running", math.NaN()) // so that the rank is there even without values
		count("sglang_num_running_reqs", v.Load.ActiveSlots)
		count("trtllm:max_num_active_requests", v.Load.TotalSlots)
		count("trtllm_num_requests_waiting", v.Load.Waiting)
		count("trtllm:kv_cache_used_blocks", v.Load.KVActive)
		count("trtllm_kv_cache_max_blocks", v.Load.KVTotal)
		share("vllm_gpu_cache_usage_perc", v.Load.CacheUsage)
		share("sglang:cache_hit_rate", v.Load.HitRate)
		count("dynamo_component_inflight_requests", v.Inflight)
		count("vllm:gpu_prefix_cache_queries_total", v.Lookups)
		count("vllm_prefix_cache_hits_total", v.Hits)
	}
	return b.String()
}
