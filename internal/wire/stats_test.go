package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

func TestParseStatsReplyReadsCaptures(t *testing.T) {
	for _, c := range []struct {
		release     string
		number      int
		service, id string
		lease       uint64
	}{
		{"0.1.1", 1, "dynamo_backend_9ce3f3b7", "CsgAmtqLwkJxQTmEo2KmbD", 0x7d7ba2096ef23e30},
		{"0.1.1", 2, "dynamo_backend_9ce3f3b7", "OrmSqKaPoheuRBC4a5K8IZ", 0x7d7ba2096ef23e32},
		{"0.1.1", 3, "dynamo_backend_9ce3f3b7", "wuPJspoSg9mr7nOwDaRyHx", 0x7d7ba2096ef23e2d},
		{"0.1.1", 4, "dynamo_my_component_64f6b8db", "rMkEcEL4uclI6NFDP8flQ8", 0x7d7ba2096ef23e2a},
		{"0.2.1", 1, "dynamo_backend", "5tkrbuvMD4nqHT5Yu5QCdu", 0x7d7ba2096ef23e41},
		{"0.2.1", 2, "dynamo_backend", "Oti5rNpIjGy9mj5GTOmeep", 0x7d7ba2096ef23e49},
		{"0.2.1", 3, "dynamo_backend", "HFkGsODJuR4sgR2vf9bv6R", 0x7d7ba2096ef23e47},
		{"0.2.1", 4, "dynamo_my-component", "poFhRtuInDMszHB7b24v0u", 0x7d7ba2096ef23e43},
		{"0.3.0", 1, "dynamo_backend", "NSwiedCfr8metCtzYWnX3i", 0x7d7ba2096ef247b3},
		{"0.3.0", 2, "dynamo_backend", "4R93qxraMuQyUZCvFXl2vi", 0x7d7ba2096ef247b0},
		{"0.3.0", 3, "dynamo_backend", "ruPflujqOmIp82hxu43gXR", 0x7d7ba2096ef247ad},
		{"0.3.0", 4, "dynamo_my-component", "E6pjOrnDQHFdDuysuoEOBg", 0x7d7ba2096ef247b6},
		{"0.3.2", 1, "dynamo_backend", "Impq4mbADbm4MwJhUPsmZi", 0x7d7ba2096ef24752},
		{"0.3.2", 2, "dynamo_backend", "QgKPBOi8RA7uUfuHftNmsN", 0x7d7ba2096ef2474e},
		{"0.3.2", 3, "dynamo_backend", "tAx3Cyyr64rNZLB5xDOZTP", 0x7d7ba2096ef24755},
		{"0.3.2", 4, "dynamo_my-component", "RBCuoetDiLPN3zu2W7gLRH", 0x7d7ba2096ef2474c},
		{"0.5.1", 1, "dynamo_backend", "mCIQqRvADPpeTfzy6uEKpa", 0x7d7ba2096ef23e6f},
		{"0.5.1", 2, "dynamo_backend", "mlCmLGawmKd9l2NV766ZK8", 0x7d7ba2096ef23e73},
		{"0.5.1", 3, "dynamo_backend", "npuCFb3Ge96Dg5w9AxUimF", 0x7d7ba2096ef23e71},
		{"0.5.1", 4, "dynamo_my-component", "svqQcnuv4n8cuwbn7UdEdk", 0x7d7ba2096ef23e75},
	} {
		file := fmt.Sprintf("stats_reply_%d.json", c.number)
		t.Run(c.release+"/"+file, func(t *testing.T) {
			workers := testutil.CapturedJSON[[]capturedWorker](t, c.release, "workers.json")
			i := slices.IndexFunc(workers, func(w capturedWorker) bool { return w.LeaseID == c.lease })
			if i < 0 {
				t.Fatalf("no worker has lease %x", c.lease)
			}
			want := []endpointLoad{}
			for _, endpoint := range slices.Sorted(slices.Values(workers[i].Endpoints)) {
				s := endpointLoad{Endpoint: endpoint, Lease: c.lease}
				if endpoint == "load_metrics" {
					s.Load = fleet.Some(workers[i].load())
				}
				want = append(want, s)
			}
			reply, got := endpointLoadsOf(t, testutil.Captured(t, c.release, file))
			testutil.Equal(t, "service", reply.Service, c.service)
			testutil.Equal(t, "id", reply.ID, c.id)
			testutil.Equal(t, "result", got, want)
		})
	}
}

// load40 returns the load of the workers in the edge cases, unless a test sets another.
func load40() fleet.Load {
	return fleet.Load{
		ActiveSlots: fleet.Some[uint64](3), TotalSlots: fleet.Some[uint64](16), Waiting: fleet.Some[uint64](2),
		KVActive: fleet.Some[uint64](40), KVTotal: fleet.Some[uint64](100),
		CacheUsage: fleet.Some(0.4000000059604645), HitRate: fleet.Some(0.25),
	}
}

func TestParseStatsReplyOfStaticWorkers(t *testing.T) {
	for _, c := range []struct {
		release, service string
		ids              [2]string
		active           [2]uint64
	}{
		{"0.1.1", "edge_stat_48120d7c", [2]string{"p6nqGIpvsufbGe0wLMOj0A", "hPB5m9ZEpxuG7coMu2nFks"}, [2]uint64{41, 40}},
		{"0.2.1", "edge_stat", [2]string{"JvhirmrZpuntqgkyE0aPbH", "MnttfEtSM4NiEiQbrqifNK"}, [2]uint64{40, 41}},
		{"0.5.1", "edge_stat", [2]string{"L7ocPASDlrhsY3FqaEOtSt", "lLAESSrtGNMR7yAT9u4Uwb"}, [2]uint64{41, 40}},
	} {
		for i, id := range c.ids {
			reply, loads := endpointLoadsOf(t, testutil.Captured(t, c.release, "edge", fmt.Sprintf("static_%d.json", i+1)))
			want := load40()
			want.KVActive = fleet.Some(c.active[i])
			testutil.Equal(t, "service", reply.Service, c.service)
			testutil.Equal(t, "id", reply.ID, id)
			testutil.Equal(t, "ValidStaticID", ValidStaticID(reply.ID), true)
			testutil.Equal(t, "loads", loads, []endpointLoad{{Endpoint: "generate"}, {Endpoint: "load_metrics", Load: fleet.Some(want)}})
		}
	}
}

func TestParseStatsReplyWithoutStatsHandler(t *testing.T) {
	for release, lease := range map[string]uint64{"0.1.1": 0x7d7ba2096ef23f3a, "0.2.1": 0x7d7ba2096ef240f8, "0.5.1": 0x7d7ba2096ef24456} {
		_, loads := endpointLoadsOf(t, testutil.Captured(t, release, "edge", "no_stats_handler.json"))
		testutil.Equal(t, "loads", loads, []endpointLoad{{Endpoint: "generate", Lease: lease}})
	}
}

func TestParseStatsReplyWithoutEndpoints(t *testing.T) {
	for release, want := range map[string]StatsReply{
		"0.1.1": {Service: "edge_noend_9dffc575", ID: "wrun9sqesvgHrzA7mrNpgq", Endpoints: []EndpointStats{}},
		"0.2.1": {Service: "edge_noend", ID: "Qfj5pLKRIBJ6algari3VI9", Endpoints: []EndpointStats{}},
		"0.5.1": {Service: "edge_noend", ID: "u7EkDRLvNMb8dF9a8pJ83Y", Endpoints: []EndpointStats{}},
	} {
		got, err := ParseStatsReply(testutil.Captured(t, release, "edge", "no_endpoints.json"))
		if err != nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "result", got, want)
	}
}

func TestParseStatsReplyBeforeFirstPublish(t *testing.T) {
	zeros := fleet.Load{
		ActiveSlots: fleet.Some[uint64](0), TotalSlots: fleet.Some[uint64](0), Waiting: fleet.Some[uint64](0),
		KVActive: fleet.Some[uint64](0), KVTotal: fleet.Some[uint64](0),
		CacheUsage: fleet.Some(0.0), HitRate: fleet.Some(0.0),
	}
	for release, lease := range map[string]uint64{"0.1.1": 0x7d7ba2096ef23f3f, "0.2.1": 0x7d7ba2096ef240fd, "0.5.1": 0x7d7ba2096ef2445b} {
		_, loads := endpointLoadsOf(t, testutil.Captured(t, release, "edge", "no_publish.json"))
		testutil.Equal(t, "loads", loads, []endpointLoad{{Endpoint: "load_metrics", Lease: lease, Load: fleet.Some(zeros)}})
	}
}

func TestParseLoadReadsLargeCountsExactly(t *testing.T) {
	want := load40()
	want.KVActive, want.KVTotal = fleet.Some[uint64](math.MaxUint64), fleet.Some[uint64](math.MaxUint64)
	want.Waiting = fleet.Some[uint64](1<<53 + 1)
	for release, lease := range map[string]uint64{"0.1.1": 0x7d7ba2096ef23f64, "0.2.1": 0x7d7ba2096ef24122, "0.5.1": 0x7d7ba2096ef24480} {
		_, loads := endpointLoadsOf(t, testutil.Captured(t, release, "edge", "big.json"))
		testutil.Equal(t, "loads", loads, []endpointLoad{{Endpoint: "load_metrics", Lease: lease, Load: fleet.Some(want)}})
	}
}

func TestParseLoadReadsSpecDecode(t *testing.T) {
	plain, spec := load40(), load40()
	spec.SpecDrafts, spec.SpecDraftTokens, spec.SpecAccepted = fleet.Some[uint64](10), fleet.Some[uint64](50), fleet.Some[uint64](30)
	for release, want := range map[string]endpointLoad{
		"0.3.0": {Endpoint: "load_metrics", Lease: 0x7d7ba2096ef2483e, Load: fleet.Some(plain)}, // 0.3.0 has only the rank
		"0.3.2": {Endpoint: "load_metrics", Lease: 0x7d7ba2096ef24843, Load: fleet.Some(spec)},
		"0.5.1": {Endpoint: "load_metrics", Lease: 0x7d7ba2096ef24485, Load: fleet.Some(spec)},
	} {
		_, loads := endpointLoadsOf(t, testutil.Captured(t, release, "edge", "spec_and_rank.json"))
		testutil.Equal(t, "loads", loads, []endpointLoad{want})
	}
}

func TestParseLoadOmitsInvalidFractions(t *testing.T) {
	for _, release := range []string{"0.1.1", "0.2.1", "0.5.1"} {
		got := make(map[string]fleet.Load)
		for published, data := range testutil.CapturedJSON[map[string]json.RawMessage](t, release, "edge", "nan.json") {
			load, _, ok, err := ParseLoad(data)
			if !ok || err != nil {
				t.Fatalf("%s: ParseLoad(%s) = %v, %v", release, data, ok, err)
			}
			got[published] = load
		}
		with := func(fraction fleet.Opt[float64]) fleet.Load {
			load := load40()
			load.CacheUsage, load.HitRate = fraction, fraction
			return load
		}
		testutil.Equal(t, "result", got, map[string]fleet.Load{
			"nan":           with(fleet.Opt[float64]{}),
			"inf":           with(fleet.Opt[float64]{}),
			"1e-9":          with(fleet.Some(float64(float32(1e-9)))),
			"123456789.123": with(fleet.Some(123456792.0)),
		})
	}
}

func TestParseStatsReplyKeepsOtherLoads(t *testing.T) {
	good := testutil.Captured(t, "0.5.1", "stats_reply_2.json") // load_metrics, generate, generate2; the first has data
	bad := bytes.Replace(good, []byte(`"data":null`), []byte(`"data":{"worker_stats":{"request_active_slots":-1}}`), 1)
	_, want := endpointLoadsOf(t, good)
	want[0].Malformed = true
	_, got := endpointLoadsOf(t, bad)
	testutil.Equal(t, "result", got, want)
}

func TestParseStatsReplyRejectsInvalid(t *testing.T) {
	for name, reply := range map[string]string{
		"empty, as NATS replies for a service without instances": "",
		"a reply to a ping":          string(testutil.Captured(t, "0.5.1", "ping_reply_1.json")),
		"a reply to an info request": string(testutil.Captured(t, "0.5.1", "info_reply_1.json")),
		"a reply without a type":     `{"name":"svc","id":"x","endpoints":[]}`,
		"null":                       `null`,
		"an array":                   `[]`,
		"a number for a name":        `{"type":"io.nats.micro.v1.stats_response","name":5,"id":"x","endpoints":[]}`,
		"a number for a subject":     `{"type":"io.nats.micro.v1.stats_response","name":"svc","id":"x","endpoints":[{"subject":5}]}`,
		"an object for endpoints":    `{"type":"io.nats.micro.v1.stats_response","name":"svc","id":"x","endpoints":{}}`,
		"data that is not JSON":      `{"type":"io.nats.micro.v1.stats_response","name":"svc","id":"x","endpoints":[{"subject":"svc.e","data":NaN}]}`,
		"trailing bytes":             `{"type":"io.nats.micro.v1.stats_response","name":"svc","id":"x","endpoints":[]}x`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseStatsReply([]byte(reply))
			if err == nil {
				t.Errorf("ParseStatsReply = %+v, want an error", got)
			}
			testutil.Equal(t, "result", got, StatsReply{})
		})
	}
}

func TestParseStatsReplyRejectsTruncated(t *testing.T) {
	for _, r := range releases {
		whole := testutil.Captured(t, r.name, "stats_reply_1.json")
		for n := range whole {
			if _, err := ParseStatsReply(whole[:n]); err == nil {
				t.Fatalf("%s: the first %d of %d bytes are accepted", r.name, n, len(whole))
			}
		}
	}
}

func TestParseStatsReplyLeavesMissingFieldsEmpty(t *testing.T) {
	got, err := ParseStatsReply([]byte(`{"type":"io.nats.micro.v1.stats_response","endpoints":[{"subject":"svc.e"},null,{"data":null}]}`))
	if err != nil {
		t.Fatal(err)
	}
	testutil.Equal(t, "result", got, StatsReply{Endpoints: []EndpointStats{{Subject: "svc.e"}, {}, {Data: []byte("null")}}})
}

func TestParseLoadAcceptsNoLoad(t *testing.T) {
	for _, data := range []string{"", "null"} {
		load, _, ok, err := ParseLoad([]byte(data))
		if load != (fleet.Load{}) || ok || err != nil {
			t.Errorf("ParseLoad(%q) = %+v, %v, %v, want no load and no error", data, load, ok, err)
		}
	}
}

func TestParseLoadAcceptsVariants(t *testing.T) {
	some := fleet.Some[uint64]
	for name, c := range map[string]struct {
		data string
		want fleet.Load
	}{
		"the seed's oldest form, four fields": {
			`{"request_active_slots":3,"request_total_slots":16,"kv_active_blocks":40,"kv_total_blocks":100}`,
			fleet.Load{ActiveSlots: some(3), TotalSlots: some(16), KVActive: some(40), KVTotal: some(100)},
		},
		"one field": {
			`{"num_requests_waiting":0}`,
			fleet.Load{Waiting: some(0)},
		},
		"flat with a rank": {
			`{"data_parallel_rank":3,"request_active_slots":1,"request_total_slots":2,"kv_active_blocks":3,"kv_total_blocks":4,"num_requests_waiting":5,"gpu_cache_usage_perc":0.5,"gpu_prefix_cache_hit_rate":0.25}`,
			fleet.Load{ActiveSlots: some(1), TotalSlots: some(2), KVActive: some(3), KVTotal: some(4), Waiting: some(5), CacheUsage: fleet.Some(0.5), HitRate: fleet.Some(0.25)},
		},
		"only the worker's part": {
			`{"worker_stats":{"request_active_slots":1,"request_total_slots":2,"num_requests_waiting":3},"kv_stats":null}`,
			fleet.Load{ActiveSlots: some(1), TotalSlots: some(2), Waiting: some(3)},
		},
		"only the cache's part": {
			`{"kv_stats":{"kv_active_blocks":3,"kv_total_blocks":4,"gpu_cache_usage_perc":1,"gpu_prefix_cache_hit_rate":0}}`,
			fleet.Load{KVActive: some(3), KVTotal: some(4), CacheUsage: fleet.Some(1.0), HitRate: fleet.Some(0.0)},
		},
		"only speculative decoding": {
			`{"spec_decode_stats":{"num_spec_tokens":null,"num_drafts":1,"num_draft_tokens":2,"num_accepted_tokens":3,"num_accepted_tokens_per_pos":null}}`,
			fleet.Load{SpecDrafts: some(1), SpecDraftTokens: some(2), SpecAccepted: some(3)},
		},
		"a part of speculative decoding": {
			`{"kv_stats":{"kv_active_blocks":3},"spec_decode_stats":{"num_drafts":1}}`,
			fleet.Load{KVActive: some(3), SpecDrafts: some(1)},
		},
		"null for some fields": {
			`{"kv_active_blocks":3,"kv_total_blocks":null,"gpu_cache_usage_perc":null}`,
			fleet.Load{KVActive: some(3)},
		},
		"fields of another release": {
			`{"kv_active_blocks":3,"later":{"kv_total_blocks":[1,{}]},"later_still":"x"}`,
			fleet.Load{KVActive: some(3)},
		},
		"the largest count": {
			`{"kv_active_blocks":18446744073709551615}`,
			fleet.Load{KVActive: some(math.MaxUint64)},
		},
		"fractions of any size": {
			`{"gpu_cache_usage_perc":-1.5,"gpu_prefix_cache_hit_rate":3.4028234663852886e38}`,
			fleet.Load{CacheUsage: fleet.Some(-1.5), HitRate: fleet.Some(float64(math.MaxFloat32))},
		},
		"spaces": {
			" {\n\t\"kv_active_blocks\" : 3 }\r\n",
			fleet.Load{KVActive: some(3)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, ok, err := ParseLoad([]byte(c.data))
			if !ok || err != nil {
				t.Fatalf("ParseLoad = %v, %v, want a load", ok, err)
			}
			testutil.Equal(t, "result", got, c.want)
		})
	}
}

func TestParseLoadRejectsInvalid(t *testing.T) {
	for name, data := range map[string]string{
		"no field":                     `{}`,
		"no field that is known":       `{"later":1,"data_parallel_rank":0}`,
		"null for all fields":          `{"kv_active_blocks":null,"gpu_cache_usage_perc":null,"worker_stats":null,"kv_stats":null,"spec_decode_stats":null}`,
		"no field in its parts":        `{"worker_stats":{},"kv_stats":{"later":1},"spec_decode_stats":{}}`,
		"a negative count":             `{"kv_active_blocks":-1}`,
		"2^64":                         `{"kv_active_blocks":18446744073709551616}`,
		"a float for a count":          `{"kv_active_blocks":40.0}`,
		"an exponent for a count":      `{"kv_active_blocks":4e1}`,
		"a string for a count":         `{"kv_active_blocks":"40"}`,
		"true for a count":             `{"kv_active_blocks":true}`,
		"one bad count of many":        `{"request_active_slots":3,"request_total_slots":16,"kv_active_blocks":-1,"kv_total_blocks":100}`,
		"a bad count in its part":      `{"worker_stats":{"request_active_slots":3},"kv_stats":{"kv_active_blocks":0.5}}`,
		"a bad count of spec decode":   `{"kv_active_blocks":3,"spec_decode_stats":{"num_drafts":-1}}`,
		"a number for a part":          `{"worker_stats":{"request_active_slots":3},"kv_stats":5}`,
		"an array for a part":          `{"worker_stats":{"request_active_slots":3},"kv_stats":[]}`,
		"a string for a fraction":      `{"kv_active_blocks":3,"gpu_cache_usage_perc":"NaN"}`,
		"a fraction beyond float64":    `{"kv_active_blocks":3,"gpu_cache_usage_perc":1e400}`,
		"NaN, which is not JSON":       `{"kv_active_blocks":3,"gpu_cache_usage_perc":NaN}`,
		"infinity, which is not JSON":  `{"kv_active_blocks":3,"gpu_cache_usage_perc":Infinity}`,
		"a string":                     `"load"`,
		"a number":                     `5`,
		"an array":                     `[{"kv_active_blocks":3}]`,
		"cut off":                      `{"kv_active_blocks":3`,
		"trailing bytes":               `{"kv_active_blocks":3}{}`,
		"bytes that are not even text": "\x00\xff",
	} {
		t.Run(name, func(t *testing.T) {
			load, _, ok, err := ParseLoad([]byte(data))
			if load != (fleet.Load{}) || ok || err == nil {
				t.Errorf("ParseLoad = %+v, %v, %v, want an error and nothing else", load, ok, err)
			}
		})
	}
}

func TestParsersRejectDeeplyNestedJSON(t *testing.T) {
	const depth = 1_000_000
	arrays := strings.Repeat("[", depth) + strings.Repeat("]", depth)
	objects := strings.Repeat(`{"data":`, depth) + "null" + strings.Repeat("}", depth)
	in := instance("backend", "generate", 0x1f)
	for shape, deep := range map[string]string{
		"arrays":        arrays,
		"objects":       objects,
		"arrays, open":  arrays[:depth],
		"objects, open": objects[:depth],
		"arrays in an object": `{"type":"io.nats.micro.v1.stats_response","endpoints":[{"subject":"svc.e","data":` + arrays + `}],` +
			`"kv_active_blocks":3,"worker_id":1,"isl_blocks":12,"overlap_blocks":4,"deep":` + arrays + `}`,
	} {
		b := []byte(deep)
		if _, err := ParseStatsReply(b); err == nil {
			t.Errorf("%s: ParseStatsReply has no error", shape)
		}
		if _, _, _, err := ParseLoad(b); err == nil {
			t.Errorf("%s: ParseLoad has no error", shape)
		}
		if _, err := ParseHitRate(b); err == nil {
			t.Errorf("%s: ParseHitRate has no error", shape)
		}
		if err := checkValue(LayoutInstances, "dynamo", in, b); err == nil {
			t.Errorf("%s: ParseValue has no error", shape)
		}
		if _, err := ParseLoadEvent(b); err == nil {
			t.Errorf("%s: ParseLoadEvent has no error", shape)
		}
		if _, err := ParseTrace(b); err == nil {
			t.Errorf("%s: ParseTrace has no error", shape)
		}
		if _, err := ParseCard(b); err == nil {
			t.Errorf("%s: ParseCard has no error", shape)
		}
		if _, err := ParseChannel("lab", "v1/event_channels/lab//kv_metrics/1f", b); err == nil {
			t.Errorf("%s: ParseChannel has no error", shape)
		}
	}
}
