package wire

import (
	"fmt"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// loadEventsOf returns the captured load events of a release that publishes them as JSON.
func loadEventsOf(t testing.TB, release string) (all [][]byte) {
	t.Helper()
	for _, m := range natsEvents(t, release) {
		if strings.HasSuffix(m.subject, "."+TopicLoad) {
			all = append(all, m.data)
		}
	}
	return all
}

func TestParseLoadEventReadsCaptures(t *testing.T) {
	some := fleet.Some[uint64]
	load := func(active, total, waiting, kvActive, kvTotal uint64, usage, hit float64) fleet.Load {
		return fleet.Load{
			ActiveSlots: some(active), TotalSlots: some(total), Waiting: some(waiting),
			KVActive: some(kvActive), KVTotal: some(kvTotal), CacheUsage: fleet.Some(float64(float32(usage))), HitRate: fleet.Some(float64(float32(hit))),
		}
	}
	spec := func(l fleet.Load) fleet.Load {
		l.SpecDrafts, l.SpecDraftTokens, l.SpecAccepted = some(10), some(20), some(15)
		return l
	}
	blocks := func(n uint64) fleet.Load { return fleet.Load{KVActive: some(n)} }
	for release, want := range map[string][]LoadEvent{
		"0.5.1": {
			{Worker: 9041998838276177525, Source: fleet.FromLoadEvent, Load: load(1, 8, 1, 6, 50, 0.12, 0)},
			{Worker: 9041998838276177521, Source: fleet.FromLoadEvent, Load: load(5, 32, 0, 10, 200, 0.05, 0.75)},
			{Worker: 9041998838276177519, Source: fleet.FromLoadEvent, Load: load(3, 16, 2, 40, 100, 0.4, 0.25)},
			{Worker: 9041998838276177523, Source: fleet.FromLoadEvent, Load: load(7, 64, 9, 100, 400, 0.25, 0.5)},
			{Worker: 9041998838276177519, Source: fleet.FromLoadEvent, Load: load(3, 16, 3, 41, 100, 0.4, 0.25)},
			{Worker: 9041998838276177519, Source: fleet.FromLoadEvent, Load: load(3, 16, 2, 40, 100, 0.4, 0.25)},
		},
		"0.6.1": {
			{Worker: 2228897027003908410, Source: fleet.FromLoadEvent, Load: spec(load(11, 100, 4, 42, 1000, 0.25, 0.5))},
			{Worker: 2228897027003908413, Source: fleet.FromLoadEvent, Load: spec(load(10, 100, 3, 40, 1000, 0.25, 0.5))},
			{Worker: 2228897027003908410, Source: fleet.FromLoadEvent, Load: spec(load(11, 100, 4, 43, 1000, 0.25, 0.5))},
			{Worker: 2228897027003908410, Source: fleet.FromLoadEvent, Load: spec(load(11, 100, 4, 42, 1000, 0.25, 0.5))},
			{Worker: 2228897027003908224, Source: fleet.FromLoadEvent, Load: load(1, 1024, 0, 25, 512, 0.048828125, 0)},
			{Worker: 2228897027003908224, Source: fleet.FromLoadEvent, Load: load(1, 1024, 0, 26, 512, 0.05078125, 0)},
			{Worker: 2228897027003908224, Source: fleet.FromLoadEvent, Load: load(0, 1024, 0, 0, 512, 0, 0)},
		},
		"0.7.1": {
			{Worker: 6318054997115220728, Source: fleet.FromLoadEvent, Load: load(10, 100, 3, 40, 1000, 0.25, 0.5)},
			{Worker: 6318054997115220728, Source: fleet.FromLoadEvent, Load: load(11, 100, 3, 41, 1000, 0.25, 0.5)},
		},
		"0.8.1": {
			{Worker: 5843087455060271333, Source: fleet.FromActiveLoad, Load: blocks(40)},
			{Worker: 5843087455060271333, Source: fleet.FromActiveLoad, Load: blocks(41)},
		},
	} {
		t.Run(release, func(t *testing.T) {
			var got []LoadEvent
			for _, data := range loadEventsOf(t, release) {
				e, err := ParseLoadEvent(data)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e)
			}
			testutil.Equal(t, "result", got, want)
		})
	}
}

func TestParseLoadEventAcceptsVariants(t *testing.T) {
	some := fleet.Some[uint64]
	for name, c := range map[string]struct {
		event string
		want  LoadEvent
	}{
		"of a rank": {
			`{"worker_id":1,"data":{"worker_stats":{"data_parallel_rank":3,"request_active_slots":2}}}`,
			LoadEvent{Source: fleet.FromLoadEvent, Worker: 1, Rank: 3, Load: fleet.Load{ActiveSlots: some(2)}},
		},
		"flat, as 0.3.0 would have": {
			`{"worker_id":1,"data":{"data_parallel_rank":3,"kv_active_blocks":2}}`,
			LoadEvent{Source: fleet.FromLoadEvent, Worker: 1, Rank: 3, Load: fleet.Load{KVActive: some(2)}},
		},
		"of a rank, 0.8": {
			`{"worker_id":1,"dp_rank":3,"active_decode_blocks":2,"active_prefill_tokens":null}`,
			LoadEvent{Source: fleet.FromActiveLoad, Worker: 1, Rank: 3, Load: fleet.Load{KVActive: some(2)}},
		},
		"of a router, 0.8": {
			`{"worker_id":1,"dp_rank":0,"active_decode_blocks":24,"active_prefill_tokens":388}`,
			LoadEvent{Source: fleet.FromActiveLoad, Worker: 1, Load: fleet.Load{KVActive: some(24)}, Estimate: true},
		},
		"of a router, without blocks": {
			`{"worker_id":1,"dp_rank":0,"active_decode_blocks":null,"active_prefill_tokens":0}`,
			LoadEvent{Source: fleet.FromActiveLoad, Worker: 1, Estimate: true},
		},
		"the last id": {
			`{"worker_id":18446744073709551615,"data":{"kv_stats":{"kv_active_blocks":0}}}`,
			LoadEvent{Source: fleet.FromLoadEvent, Worker: 1<<64 - 1, Load: fleet.Load{KVActive: some(0)}},
		},
		"fields of another release": {
			`{"later":[{}],"data":{"later":1,"kv_stats":{"kv_active_blocks":0}},"worker_id":1}`,
			LoadEvent{Source: fleet.FromLoadEvent, Worker: 1, Load: fleet.Load{KVActive: some(0)}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseLoadEvent([]byte(c.event))
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, c.want)
		})
	}
}

func TestParseLoadEventRejectsInvalid(t *testing.T) {
	for name, event := range map[string]string{
		"empty":                  ``,
		"null":                   `null`,
		"an empty object":        `{}`,
		"an array":               `[]`,
		"no worker":              `{"data":{"kv_stats":{"kv_active_blocks":1}}}`,
		"a worker in text":       `{"worker_id":"1","data":{"kv_stats":{"kv_active_blocks":1}}}`,
		"a negative worker":      `{"worker_id":-1,"data":{"kv_stats":{"kv_active_blocks":1}}}`,
		"no load":                `{"worker_id":1}`,
		"a null load":            `{"worker_id":1,"data":null}`,
		"an empty load":          `{"worker_id":1,"data":{}}`,
		"a load of nothing":      `{"worker_id":1,"data":{"worker_stats":{"data_parallel_rank":0},"kv_stats":null}}`,
		"nothing known, 0.8":     `{"worker_id":1,"dp_rank":0,"active_decode_blocks":null,"active_prefill_tokens":null}`,
		"a negative count":       `{"worker_id":1,"data":{"kv_stats":{"kv_active_blocks":-1}}}`,
		"a negative count, 0.8":  `{"worker_id":1,"dp_rank":0,"active_decode_blocks":-1}`,
		"a negative rank":        `{"worker_id":1,"data":{"worker_stats":{"data_parallel_rank":-1,"request_active_slots":2}}}`,
		"a rank of 2^32":         `{"worker_id":1,"dp_rank":4294967296,"active_decode_blocks":1}`,
		"a float for a count":    `{"worker_id":1,"data":{"kv_stats":{"kv_active_blocks":1.5}}}`,
		"a load in text":         `{"worker_id":1,"data":"{}"}`,
		"cut off":                `{"worker_id":1,"data":{"kv_stats":{"kv_active_blocks":1}}`,
		"trailing bytes":         `{"worker_id":1,"data":{"kv_stats":{"kv_active_blocks":1}}}{}`,
		"a load in an envelope":  string(natsEvents(t, "0.9.1")[0].data),
		"an event of a hit rate": `{"worker_id":1,"dp_rank":0,"isl_blocks":25,"overlap_blocks":0}`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseLoadEvent([]byte(event)); err == nil || got != (LoadEvent{}) {
				t.Errorf("ParseLoadEvent = %+v, %v, want an error and nothing else", got, err)
			}
		})
	}
}

func TestParseLoadEventAgreesWithStatsReply(t *testing.T) {
	// The event and the replies are of worker 7d7ba2096ef23e6f of 0.5.1. Its cache is 0.4 full.
	e, err := ParseLoadEvent(loadEventsOf(t, "0.5.1")[2])
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		_, loads := endpointLoadsOf(t, testutil.Captured(t, "0.5.1", fmt.Sprintf("stats_reply_%d.json", i+1)))
		for _, s := range loads {
			if s.Lease == e.Worker && s.Load.OK {
				testutil.Equal(t, "load", e.Load, s.Load.V)
				return
			}
		}
	}
	t.Errorf("no reply of worker %x is captured", e.Worker)
}

func TestParseLoadEventOmitsInvalidFractions(t *testing.T) {
	e, err := ParseLoadEvent([]byte(`{"worker_id":1,"data":{"kv_stats":{"kv_active_blocks":1,"gpu_cache_usage_perc":null,"gpu_prefix_cache_hit_rate":1e39}}}`))
	if err != nil {
		t.Fatal(err)
	}
	testutil.Equal(t, "load", e.Load, fleet.Load{KVActive: fleet.Some[uint64](1)})
}
