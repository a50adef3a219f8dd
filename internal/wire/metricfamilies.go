package wire

import "strings"

// quantity is what a family of a worker's own metrics page says.
type quantity int

const (
	running   quantity = iota // requests being served
	slots                     // requests that can be served at once
	waiting                   // requests in the engine's queue
	inflight                  // requests that the endpoint's handler has taken
	used                      // KV cache blocks in use
	blocks                    // KV cache blocks there are
	usage                     // fraction of the KV cache in use
	hitRate                   // fraction of the look-ups in the prefix cache that hit
	lookups                   // tokens looked up in the prefix cache since the engine began
	hits                      // those of them that hit
	bootstrap                 // requests in the queues of disaggregated SGLang: see fleet.Queues
	prealloc
	transfer
	sending
	quantities
)

// pageFamily is a family that is read. Its name is written with an underscore behind the
// engine's, and read with a colon, too: engines have written both.
type pageFamily struct {
	name string
	of   quantity
}

// pageFamilies are all that are read. Of those that say the same the first counts.
var pageFamilies = [...]pageFamily{
	// vLLM: vllm/v1/metrics/loggers.py, where the names with gpu_ are the older ones; the last
	// is of the engine before that, vllm/engine/metrics.py.
	{"vllm_num_requests_running", running},
	{"vllm_num_requests_waiting", waiting},
	{"vllm_kv_cache_usage_perc", usage},
	{"vllm_gpu_cache_usage_perc", usage},
	{"vllm_prefix_cache_queries_total", lookups},
	{"vllm_prefix_cache_hits_total", hits},
	{"vllm_gpu_prefix_cache_queries_total", lookups},
	{"vllm_gpu_prefix_cache_hits_total", hits},
	{"vllm_gpu_prefix_cache_hit_rate", hitRate},

	// SGLang: python/sglang/srt/observability/metrics_collector.py, before
	// python/sglang/srt/metrics/collector.py.
	{"sglang_num_running_reqs", running},
	{"sglang_num_queue_reqs", waiting},
	{"sglang_token_usage", usage},
	{"sglang_cache_hit_rate", hitRate},
	// With disaggregation alone; the second is the first as it was called up to 2025.
	{"sglang_num_prefill_bootstrap_queue_reqs", bootstrap},
	{"sglang_num_prefill_prealloc_queue_reqs", bootstrap},
	{"sglang_num_prefill_inflight_queue_reqs", sending},
	{"sglang_num_decode_prealloc_queue_reqs", prealloc},
	{"sglang_num_decode_transfer_queue_reqs", transfer},

	// TensorRT-LLM: tensorrt_llm/metrics/collector.py. The last two are of Dynamo's mock
	// engine alone: lib/llm/src/mocker/metrics.rs.
	{"trtllm_num_requests_running", running},
	{"trtllm_max_num_active_requests", slots},
	{"trtllm_num_requests_waiting", waiting},
	{"trtllm_kv_cache_used_blocks", used},
	{"trtllm_kv_cache_max_blocks", blocks},
	{"trtllm_kv_cache_utilization", usage},
	{"trtllm_kv_cache_hit_rate", hitRate},
	{"trtllm_kv_cache_usage_perc", usage},
	{"trtllm_gpu_cache_usage_perc", usage},

	// Dynamo: lib/runtime/src/metrics/prometheus_names.rs, those with kvstats_ to 0.8.
	{"dynamo_component_total_blocks", blocks},
	{"dynamo_component_gpu_cache_usage_percent", usage},
	{"dynamo_component_kv_cache_hit_rate", hitRate},
	{"dynamo_component_kvstats_active_blocks", used},
	{"dynamo_component_kvstats_total_blocks", blocks},
	{"dynamo_component_kvstats_gpu_cache_usage_percent", usage},
	{"dynamo_component_kvstats_gpu_prefix_cache_hit_rate", hitRate},
	{"dynamo_component_inflight_requests", inflight},
}

// isFraction reports whether its values are fractions; all others are counts.
func (q quantity) isFraction() bool { return q == usage || q == hitRate }

// isCounter reports whether it only grows, from when the engine began.
func (q quantity) isCounter() bool { return q == lookups || q == hits }

// dynamo begins the names of Dynamo's own families.
const dynamo = "dynamo_component_"

// pageNames has every spelling of the names in pageFamilies, and which of them it is.
var pageNames = func() map[string]int {
	all := make(map[string]int)
	for i, f := range pageFamilies {
		all[f.name] = i
		if engine, rest, _ := strings.Cut(f.name, "_"); engine != "dynamo" {
			all[engine+":"+rest] = i
		}
	}
	return all
}()
