package wire

import (
	"encoding/json"
	"math"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// decodeL2C encodes an l2c event and decodes it as a subscriber would.
func decodeL2C(t *testing.T, stats fleet.Spread, workers ...*fleet.WorkerState) (event map[string]any) {
	t.Helper()
	b, err := L2C(workers, stats)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &event); err != nil {
		t.Fatal(err)
	}
	return event
}

func workerState(service string, id fleet.WorkerID, load fleet.Load) *fleet.WorkerState {
	return &fleet.WorkerState{
		Endpoint: fleet.Endpoint{Component: "backend", Name: "load_metrics"},
		ID:       id, Label: id.String(), Service: service, Load: fleet.Some(load),
	}
}

func TestL2CEqualsTheOriginals(t *testing.T) {
	var rows []*fleet.WorkerState
	for _, file := range []string{"stats_reply_1.json", "stats_reply_2.json", "stats_reply_3.json"} {
		reply, loads := endpointLoadsOf(t, testutil.Captured(t, "original", file))
		for _, s := range loads {
			if s.Endpoint == "load_metrics" {
				rows = append(rows, workerState(reply.Service, fleet.WorkerID{Lease: s.Lease}, s.Load.V))
			}
		}
	}
	got := decodeL2C(t, fleet.Spread{Mean: 50, Std: 37.416573867739416, Max: 100}, rows...)
	testutil.Equal(t, "result", got, testutil.CapturedJSON[map[string]any](t, "original", "l2c.json"))
}

func TestL2COmitsUnknownValues(t *testing.T) {
	got := decodeL2C(t, fleet.Spread{Mean: 40, Max: 40},
		workerState("svc", fleet.WorkerID{Lease: 0x1f}, fleet.Load{KVActive: fleet.Some[uint64](40), KVTotal: fleet.Some[uint64](0)}),
		workerState("svc", fleet.WorkerID{Static: "p6nqGIpvsufbGe0wLMOj0A"}, fleet.Load{HitRate: fleet.Some(0.0)}),
		workerState("svc", fleet.WorkerID{Lease: 0x20}, fleet.Load{}),
	)
	testutil.Equal(t, "result", got, map[string]any{
		"endpoints": map[string]any{
			"31": map[string]any{
				"name": "worker-31", "subject": "svc.load_metrics-1f",
				"data": map[string]any{"kv_active_blocks": 40.0, "kv_total_blocks": 0.0},
			},
			"p6nqGIpvsufbGe0wLMOj0A": map[string]any{
				"name": "worker-p6nqGIpvsufbGe0wLMOj0A", "subject": "svc.load_metrics",
				"data": map[string]any{"gpu_prefix_cache_hit_rate": 0.0},
			},
			"32": map[string]any{"name": "worker-32", "subject": "svc.load_metrics-20", "data": map[string]any{}},
		},
		"load_avg": 40.0, "load_std": 0.0,
	})
}

func TestL2COmitsFractionsBeyondFloat32(t *testing.T) {
	got := decodeL2C(t, fleet.Spread{}, workerState("svc", fleet.WorkerID{Lease: 1}, fleet.Load{
		CacheUsage: fleet.Some(1e300),
		HitRate:    fleet.Some(float64(float32(0.1))),
	}), workerState("svc", fleet.WorkerID{Lease: 2}, fleet.Load{
		CacheUsage: fleet.Some(-1e300),
		HitRate:    fleet.Some(float64(math.MaxFloat32)),
	}))
	data := func(id string) any { return got["endpoints"].(map[string]any)[id].(map[string]any)["data"] }
	testutil.Equal(t, "data", data("1"), any(map[string]any{"gpu_prefix_cache_hit_rate": 0.1}))
	testutil.Equal(t, "data", data("2"), any(map[string]any{"gpu_prefix_cache_hit_rate": 3.4028235e38}))
}

func TestL2CWritesLargeCountsExactly(t *testing.T) {
	b, err := L2C([]*fleet.WorkerState{workerState("svc", fleet.WorkerID{Lease: math.MaxUint64}, fleet.Load{
		KVActive: fleet.Some[uint64](math.MaxUint64),
	})}, fleet.Spread{Mean: 1 << 53, Std: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	testutil.Equal(t, "b", string(b), `{"endpoints":{"18446744073709551615":{"name":"worker-18446744073709551615",`+
		`"subject":"svc.load_metrics-ffffffffffffffff","data":{"kv_active_blocks":18446744073709551615}}},`+
		`"load_avg":9007199254740992,"load_std":0.1}`)
}

func TestL2CWithoutWorkersHasNoEndpoints(t *testing.T) {
	testutil.Equal(t, "l2c", decodeL2C(t, fleet.Spread{}), map[string]any{"endpoints": map[string]any{}, "load_avg": 0.0, "load_std": 0.0})
}
