package wire

import (
	"strings"

	"dynamo-metrics/internal/fleet"
)

// loadEndpoint is the only endpoint of a Python worker whose replies to stats polls have
// the worker's load (up to 0.5.1).
const loadEndpoint = "load_metrics"

// roleOf returns the role of an endpoint, as far as its name shows it. A frontend with a KV
// router registers kv-router/generate (0.8, 0.9), or router-discovery in the component of
// its workers (1.0 to 1.5). With --serve-indexer it also registers kv_indexer_query (1.4 to
// 1.6). A standalone router registers best_worker_id (1.0 to 1.6) and get_overlap_scores
// (1.4 to 1.6).
func roleOf(l Layout, e fleet.Endpoint) fleet.Role {
	if l != LayoutV1 {
		if e.Name == loadEndpoint {
			return fleet.LoadRole
		}
		return fleet.AnyRole
	}
	switch e.Name {
	case "router-discovery", "best_worker_id", "get_overlap_scores", "kv_indexer_query":
		return fleet.RouterRole
	case "generate":
		if e.Component == "kv-router" {
			return fleet.RouterRole
		}
	}
	return fleet.AnyRole
}

// isAuxiliary reports whether the name of an endpoint shows that it takes no inference
// requests. A request to clear_kv_blocks makes a worker drop its KV cache (all releases).
// Routers use the other endpoints to fetch KV events that they missed (from 0.9 on).
func isAuxiliary(name string) bool {
	return name == "clear_kv_blocks" || name == "worker_kv_indexer_query" ||
		strings.HasPrefix(name, "worker_kv_indexer_query_dp") || strings.HasPrefix(name, "worker_kv_query_source_")
}
