package wire

import (
	"strings"

	"dynamo-metrics/internal/fleet"
)

// loadEndpoint is the one endpoint of a worker whose answers to polls have its load, where
// that is served from Python (to 0.5.1).
const loadEndpoint = "load_metrics"

// roleOf is what an endpoint is for, as far as its name says. A frontend with a KV router
// registers kv-router/generate (0.8, 0.9), or router-discovery in the component of its
// workers (1.0 to 1.5), and with --serve-indexer kv_indexer_query (1.4 to 1.6); a router of
// its own best_worker_id (1.0 to 1.6) and get_overlap_scores (1.4 to 1.6).
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

// isAside reports whether an endpoint of a worker is for something else than its requests,
// by its name: where it is told to drop its KV cache (all releases), and where routers ask it
// for lost KV events (from 0.9 on).
func isAuxiliary(name string) bool {
	return name == "clear_kv_blocks" || name == "worker_kv_indexer_query" ||
		strings.HasPrefix(name, "worker_kv_indexer_query_dp") || strings.HasPrefix(name, "worker_kv_query_source_")
}
