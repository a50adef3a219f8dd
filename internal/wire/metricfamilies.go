package wire

import "strings"

// quantity is what a family of a worker's own metrics page says.
type quantity int

const (
	runningRequests  quantity = iota // requests being served
	requestSlots                     // requests that can be served at once
	waitingRequests                  // requests in the engine's queue
	inflightRequests                 // requests that the endpoint's handler has taken
	usedBlocks                       // KV cache blocks in use
	totalBlocks                      // KV cache blocks there are
	cacheUsage                       // fraction of the KV cache in use
	cacheHitRate                     // fraction of the look-ups in the prefix cache that hit
	prefixLookups                    // tokens looked up in the prefix cache since the engine began
	prefixHits                       // those of them that hit
	bootstrapQueue                   // requests in the queues of disaggregated SGLang: see fleet.Queues
	preallocQueue
	transferQueue
	prefillInflightQueue
	quantityCount
)

// pageFamily is a family that is read. Its name is written with an underscore behind the
// engine's, and read with a colon, too: engines have written both.
type metricFamily struct {
	name     string
	quantity quantity
}

// pageFamilies are all that are read. Of those that say the same the first counts.
var metricFamilies = [...]metricFamily{
	// vLLM: vllm/v1/metrics/loggers.py, where the names with gpu_ are the older ones; the last
	// is of the engine before that, vllm/engine/metrics.py.
	{"vllm_num_requests_running", runningRequests},
	{"vllm_num_requests_waiting", waitingRequests},
	{"vllm_kv_cache_usage_perc", cacheUsage},
	{"vllm_gpu_cache_usage_perc", cacheUsage},
	{"vllm_prefix_cache_queries_total", prefixLookups},
	{"vllm_prefix_cache_hits_total", prefixHits},
	{"vllm_gpu_prefix_cache_queries_total", prefixLookups},
	{"vllm_gpu_prefix_cache_hits_total", prefixHits},
	{"vllm_gpu_prefix_cache_hit_rate", cacheHitRate},

	// SGLang: python/sglang/srt/observability/metrics_collector.py, before
	// python/sglang/srt/metrics/collector.py.
	{"sglang_num_running_reqs", runningRequests},
	{"sglang_num_queue_reqs", waitingRequests},
	{"sglang_token_usage", cacheUsage},
	{"sglang_cache_hit_rate", cacheHitRate},
	// With disaggregation alone; the second is the first as it was called up to 2025.
	{"sglang_num_prefill_bootstrap_queue_reqs", bootstrapQueue},
	{"sglang_num_prefill_prealloc_queue_reqs", bootstrapQueue},
	{"sglang_num_prefill_inflight_queue_reqs", prefillInflightQueue},
	{"sglang_num_decode_prealloc_queue_reqs", preallocQueue},
	{"sglang_num_decode_transfer_queue_reqs", transferQueue},

	// TensorRT-LLM: tensorrt_llm/metrics/collector.py. The last two are of Dynamo's mock
	// engine alone: lib/llm/src/mocker/metrics.rs.
	{"trtllm_num_requests_running", runningRequests},
	{"trtllm_max_num_active_requests", requestSlots},
	{"trtllm_num_requests_waiting", waitingRequests},
	{"trtllm_kv_cache_used_blocks", usedBlocks},
	{"trtllm_kv_cache_max_blocks", totalBlocks},
	{"trtllm_kv_cache_utilization", cacheUsage},
	{"trtllm_kv_cache_hit_rate", cacheHitRate},
	{"trtllm_kv_cache_usage_perc", cacheUsage},
	{"trtllm_gpu_cache_usage_perc", cacheUsage},

	// Dynamo: lib/runtime/src/metrics/prometheus_names.rs, those with kvstats_ to 0.8.
	{"dynamo_component_total_blocks", totalBlocks},
	{"dynamo_component_gpu_cache_usage_percent", cacheUsage},
	{"dynamo_component_kv_cache_hit_rate", cacheHitRate},
	{"dynamo_component_kvstats_active_blocks", usedBlocks},
	{"dynamo_component_kvstats_total_blocks", totalBlocks},
	{"dynamo_component_kvstats_gpu_cache_usage_percent", cacheUsage},
	{"dynamo_component_kvstats_gpu_prefix_cache_hit_rate", cacheHitRate},
	{"dynamo_component_inflight_requests", inflightRequests},
}

// isFraction reports whether its values are fractions; all others are counts.
func (q quantity) isFraction() bool { return q == cacheUsage || q == cacheHitRate }

// isCounter reports whether it only grows, from when the engine began.
func (q quantity) isCounter() bool { return q == prefixLookups || q == prefixHits }

// dynamo begins the names of Dynamo's own families.
const dynamoPrefix = "dynamo_component_"

// pageNames has every spelling of the names in pageFamilies, and which of them it is.
var familyIndex = func() map[string]int {
	all := make(map[string]int)
	for i, f := range metricFamilies {
		all[f.name] = i
		if engine, rest, _ := strings.Cut(f.name, "_"); engine != "dynamo" {
			all[engine+":"+rest] = i
		}
	}
	return all
}()
