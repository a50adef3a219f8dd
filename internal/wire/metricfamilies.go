package wire

import "strings"

// quantity is a quantity that a worker's own metrics report.
type quantity int

const (
	runningRequests  quantity = iota // requests being served
	requestSlots                     // requests that can be served at once
	waitingRequests                  // requests in the engine's queue
	inflightRequests                 // requests that the endpoint's handler has taken
	usedBlocks                       // KV cache blocks in use
	totalBlocks                      // KV cache blocks in total
	cacheUsage                       // fraction of the KV cache in use
	cacheHitRate                     // fraction of the lookups in the prefix cache that hit
	prefixLookups                    // tokens looked up in the prefix cache since the engine started
	prefixHits                       // tokens found in the prefix cache since the engine started
	bootstrapQueue                   // requests in the queues of disaggregated SGLang: see fleet.Queues
	preallocQueue
	transferQueue
	prefillInflightQueue
	quantityCount
)

// metricFamily is a metric family that is read. Its name has an underscore after the
// engine's name; a colon is accepted there, too, because engines have used both.
type metricFamily struct {
	name     string
	quantity quantity
}

// metricFamilies lists all families that are read. If several of them report the same
// quantity, the first one counts.
var metricFamilies = [...]metricFamily{
	// vLLM: vllm/v1/metrics/loggers.py. The names with gpu_ are the older ones. The last name
	// is from the older engine, vllm/engine/metrics.py.
	{"vllm_num_requests_running", runningRequests},
	{"vllm_num_requests_waiting", waitingRequests},
	{"vllm_kv_cache_usage_perc", cacheUsage},
	{"vllm_gpu_cache_usage_perc", cacheUsage},
	{"vllm_prefix_cache_queries_total", prefixLookups},
	{"vllm_prefix_cache_hits_total", prefixHits},
	{"vllm_gpu_prefix_cache_queries_total", prefixLookups},
	{"vllm_gpu_prefix_cache_hits_total", prefixHits},
	{"vllm_gpu_prefix_cache_hit_rate", cacheHitRate},

	// SGLang: python/sglang/srt/observability/metrics_collector.py, earlier
	// python/sglang/srt/metrics/collector.py.
	{"sglang_num_running_reqs", runningRequests},
	{"sglang_num_queue_reqs", waitingRequests},
	{"sglang_token_usage", cacheUsage},
	{"sglang_cache_hit_rate", cacheHitRate},
	// SGLang with disaggregation only. The second name is what the first one was until 2025.
	{"sglang_num_prefill_bootstrap_queue_reqs", bootstrapQueue},
	{"sglang_num_prefill_prealloc_queue_reqs", bootstrapQueue},
	{"sglang_num_prefill_inflight_queue_reqs", prefillInflightQueue},
	{"sglang_num_decode_prealloc_queue_reqs", preallocQueue},
	{"sglang_num_decode_transfer_queue_reqs", transferQueue},

	// TensorRT-LLM: tensorrt_llm/metrics/collector.py. Only Dynamo's mock engine has the last
	// two: lib/llm/src/mocker/metrics.rs.
	{"trtllm_num_requests_running", runningRequests},
	{"trtllm_max_num_active_requests", requestSlots},
	{"trtllm_num_requests_waiting", waitingRequests},
	{"trtllm_kv_cache_used_blocks", usedBlocks},
	{"trtllm_kv_cache_max_blocks", totalBlocks},
	{"trtllm_kv_cache_utilization", cacheUsage},
	{"trtllm_kv_cache_hit_rate", cacheHitRate},
	{"trtllm_kv_cache_usage_perc", cacheUsage},
	{"trtllm_gpu_cache_usage_perc", cacheUsage},

	// Dynamo: lib/runtime/src/metrics/prometheus_names.rs. The names with kvstats_ are in use
	// up to 0.8.
	{"dynamo_component_total_blocks", totalBlocks},
	{"dynamo_component_gpu_cache_usage_percent", cacheUsage},
	{"dynamo_component_kv_cache_hit_rate", cacheHitRate},
	{"dynamo_component_kvstats_active_blocks", usedBlocks},
	{"dynamo_component_kvstats_total_blocks", totalBlocks},
	{"dynamo_component_kvstats_gpu_cache_usage_percent", cacheUsage},
	{"dynamo_component_kvstats_gpu_prefix_cache_hit_rate", cacheHitRate},
	{"dynamo_component_inflight_requests", inflightRequests},
}

// isFraction reports whether the values of q are fractions. All others are counts.
func (q quantity) isFraction() bool { return q == cacheUsage || q == cacheHitRate }

// isCounter reports whether q is a counter, which only grows while the engine runs.
func (q quantity) isCounter() bool { return q == prefixLookups || q == prefixHits }

// dynamoPrefix is the prefix of the names of Dynamo's own families.
const dynamoPrefix = "dynamo_component_"

// familyIndex maps every spelling of a name to its index in metricFamilies.
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
