package mock

import (
	"encoding/json"
	"math"
	"testing"

	"dynamo-metrics/internal/fleet"
)

// capturedLoads are loads as workers of the releases wrote them. The form of 0.1.0 is known
// from its source only.
var capturedLoads = []struct {
	release, data string
	load          fleet.Load
}{
	{"0.1.1", `{"gpu_cache_usage_perc":0.05000000074505806,"gpu_prefix_cache_hit_rate":0.75,"kv_active_blocks":10,"kv_total_blocks":200,` +
		`"num_requests_waiting":0,"request_active_slots":5,"request_total_slots":32}`, newLoad(5, 32, 0, 10, 200, 0.05, 0.75)},
	{"0.2.1", `{"gpu_cache_usage_perc":0.4000000059604645,"gpu_prefix_cache_hit_rate":0.25,"kv_active_blocks":40,"kv_total_blocks":100,` +
		`"num_requests_waiting":2,"request_active_slots":3,"request_total_slots":16}`, newLoad(3, 16, 2, 40, 100, 0.4, 0.25)},
	{"0.3.0", `{"data_parallel_rank":0,"gpu_cache_usage_perc":0.25,"gpu_prefix_cache_hit_rate":0.5,"kv_active_blocks":100,"kv_total_blocks":400,` +
		`"num_requests_waiting":9,"request_active_slots":7,"request_total_slots":64}`, newLoad(7, 64, 9, 100, 400, 0.25, 0.5)},
	{"0.5.1", `{"worker_stats":{"data_parallel_rank":null,"request_active_slots":3,"request_total_slots":16,"num_requests_waiting":2},` +
		`"kv_stats":{"kv_active_blocks":40,"kv_total_blocks":100,"gpu_cache_usage_perc":0.4000000059604645,"gpu_prefix_cache_hit_rate":0.25},` +
		`"spec_decode_stats":null}`, newLoad(3, 16, 2, 40, 100, 0.4, 0.25)},
}

func newLoad(active, slots, waiting, blocks, total uint64, usage, hitRate float64) fleet.Load {
	return fleet.Load{
		ActiveSlots: fleet.Some(active), TotalSlots: fleet.Some(slots), Waiting: fleet.Some(waiting),
		KVActive: fleet.Some(blocks), KVTotal: fleet.Some(total),
		CacheUsage: fleet.Some(usage), HitRate: fleet.Some(hitRate),
	}
}

func payload(t *testing.T, name string, l fleet.Load) string {
	t.Helper()
	r, ok := Config{Release: name}.release()
	if !ok {
		t.Fatalf("no release %s", name)
	}
	b, err := json.Marshal(r.statsData(l))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStatsDataMatchesCaptures(t *testing.T) {
	for _, c := range capturedLoads {
		if got := payload(t, c.release, c.load); got != c.data {
			t.Errorf("%s:\ngot  %s\nwant %s", c.release, got, c.data)
		}
	}
}

func TestStatsDataOmitsAbsentValues(t *testing.T) {
	few := fleet.Load{KVActive: fleet.Some[uint64](math.MaxUint64), CacheUsage: fleet.Some(math.NaN()), HitRate: fleet.Some(1.0)}
	for name, want := range map[string]string{
		"0.1.0": `{"gpu_cache_usage_perc":null,"gpu_prefix_cache_hit_rate":1.0,"kv_active_blocks":18446744073709551615}`,
		"0.5.1": `{"worker_stats":{"data_parallel_rank":null},"kv_stats":{"kv_active_blocks":18446744073709551615,` +
			`"gpu_cache_usage_perc":null,"gpu_prefix_cache_hit_rate":1.0},"spec_decode_stats":null}`,
	} {
		if got := payload(t, name, few); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
		}
	}
}

func TestStatsDataOfSpecDecode(t *testing.T) {
	l := fleet.Load{SpecDrafts: fleet.Some[uint64](1), SpecDraftTokens: fleet.Some[uint64](5), SpecAccepted: fleet.Some[uint64](3)}
	want := `{"worker_stats":{"data_parallel_rank":null},"kv_stats":{},"spec_decode_stats":{"num_spec_tokens":null,"num_drafts":1,` +
		`"num_draft_tokens":5,"num_accepted_tokens":3,"num_accepted_tokens_per_pos":null}}`
	if got := payload(t, "0.5.1", l); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := payload(t, "0.2.1", l), "{}"; got != want {
		t.Errorf("0.2.1: got %s, want %s", got, want)
	}
}
