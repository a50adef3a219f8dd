package wire

import (
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// keyValue is a key and a value in etcd.
type keyValue struct{ Key, Value string }

// etcdKeys returns the captured keys of a release that start with prefix, and their values.
func etcdKeys(t testing.TB, release, prefix string) (all []keyValue) {
	t.Helper()
	for _, kv := range testutil.CapturedJSON[[]keyValue](t, release, "etcd_keys.json") {
		if strings.HasPrefix(kv.Key, prefix) {
			all = append(all, kv)
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s: no key below %s is captured", release, prefix)
	}
	return all
}

func TestParseCardReadsCaptures(t *testing.T) {
	some := fleet.Some[uint64]
	card := func(model string, blocks, seqs uint64) fleet.Card {
		return fleet.Card{Model: model, KVTotal: some(blocks), MaxSeqs: some(seqs), BlockSize: some(16), Ranks: some(1)}
	}
	mocker := func(model string) fleet.Card { return card(model, 512, 8) }
	served := func(metrics string) fleet.Card {
		c := mocker("tiny")
		c.Metrics = metrics
		return c
	}
	known := card("known", 1000, 100)
	for release, want := range map[string]map[fleet.Instance]fleet.Card{
		"0.6.1": {instance("backend", "generate", 0x1eeea2096f7e0080): mocker("model"), instance("backend", "generate", 0x1eeea2096f7e0082): mocker("model")},
		"0.9.1": {instance("backend", "generate", 0x1eeea2096f7dffaf): known, instance("backend", "generate", 0x1eeea2096f7dffb3): known},
		"1.6.1": {instance("backend", "generate", 0x1eeea2096f7e0a32): served("192.0.2.2:28082"), instance("backend", "generate", 0x1eeea2096f7e0a3b): served("192.0.2.2:28081")},
	} {
		t.Run(release, func(t *testing.T) {
			got := make(map[fleet.Instance]fleet.Card)
			for _, kv := range etcdKeys(t, release, CardPrefix("lab")) {
				in, ok := ParseCardKey("lab", kv.Key)
				if !ok {
					t.Errorf("ParseCardKey(%q) is not ok", kv.Key)
				}
				testutil.Equal(t, "CardKey", CardKey("lab", in), kv.Key)
				card, err := ParseCard([]byte(kv.Value))
				if err != nil {
					t.Fatal(err)
				}
				got[in] = card
			}
			testutil.Equal(t, "result", got, want)
		})
	}
}

// TestParseCardReadsMetricsAddressFrom14 reads the cards of workers that have a system server.
// Only from 1.4 on the cards have its address.
func TestParseCardReadsMetricsAddressFrom14(t *testing.T) {
	for release, want := range map[string]string{"1.3.1": "", "1.4.2": "192.0.2.2:28081", "1.5.1": "192.0.2.2:28081"} {
		kv := testutil.CapturedJSON[keyValue](t, release, "card_with_system_port.json")
		if _, ok := ParseCardKey("dynamo", kv.Key); !ok {
			t.Errorf("%s: ParseCardKey(%q) is not ok", release, kv.Key)
		}
		card, err := ParseCard([]byte(kv.Value))
		if err != nil || card.Metrics != want {
			t.Errorf("%s: the metrics are at %q, %v, want %q", release, card.Metrics, err, want)
		}
	}
}

func TestParseCardAcceptsVariants(t *testing.T) {
	some := fleet.Some[uint64]
	for name, c := range map[string]struct {
		value string
		want  fleet.Card
	}{
		"without totals":               {`{"type":"Model","card_json":{"display_name":"m","runtime_config":{"total_kv_blocks":null}}}`, fleet.Card{Model: "m"}},
		"without a name":               {`{"runtime_config":{"max_num_seqs":3}}`, fleet.Card{MaxSeqs: some(3)}},
		"with a name that is too long": {`{"display_name":"` + strings.Repeat("m", maxName+1) + `","runtime_config":{}}`, fleet.Card{}},
		"with ranks":                   {`{"display_name":"m","runtime_config":{"total_kv_blocks":18446744073709551615,"data_parallel_size":8}}`, fleet.Card{Model: "m", KVTotal: some(1<<64 - 1), Ranks: some(8)}},
		"with a path as its name":      {`{"display_name":"Qwen/Qwen3-0.6B","kv_cache_block_size":32,"runtime_config":{}}`, fleet.Card{Model: "Qwen/Qwen3-0.6B", BlockSize: some(32)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseCard([]byte(c.value))
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, c.want)
		})
	}
}

func TestParseCardRejectsInvalid(t *testing.T) {
	for name, value := range map[string]string{
		"empty":                ``,
		"null":                 `null`,
		"an empty object":      `{}`,
		"an endpoint":          `{"type":"Endpoint","component":"backend","endpoint":"generate","namespace":"lab","instance_id":1}`,
		"an endpoint's card":   `{"type":"Endpoint","card_json":{"display_name":"m","runtime_config":{}}}`,
		"no runtime config":    `{"type":"Model","card_json":{"display_name":"m"}}`,
		"a null card":          `{"type":"Model","card_json":null}`,
		"a negative total":     `{"display_name":"m","runtime_config":{"total_kv_blocks":-1}}`,
		"a float for a total":  `{"display_name":"m","runtime_config":{"max_num_seqs":1.5}}`,
		"a number for a name":  `{"display_name":5,"runtime_config":{}}`,
		"cut off":              `{"display_name":"m","runtime_config":{}`,
		"trailing bytes":       `{"display_name":"m","runtime_config":{}}x`,
		"deeply nested arrays": `{"deep":` + strings.Repeat("[", 1_000_000),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseCard([]byte(value)); err == nil || got != (fleet.Card{}) {
				t.Errorf("ParseCard = %+v, %v, want an error and nothing else", got, err)
			}
		})
	}
}

func TestParseCardKeyRejectsOtherKeys(t *testing.T) {
	for _, key := range []string{
		"", "v1/mdc/lab/", "v1/mdc/lab", "v1/mdc/lab/backend", "v1/mdc/lab/backend/generate", "v1/mdc/lab/backend/generate/",
		"v1/mdc/lab/backend/generate/1G", "v1/mdc/lab/backend/generate/0", "v1/mdc/lab/backend//1f", "v1/mdc/lab//generate/1f",
		"v1/mdc/lab/backend/generate/1f/", "v1/mdc/lab/backend/generate/1f/my-lora", "v1/mdc/lab/backend/generate/1f/beef",
		"v1/mdc/lab2/backend/generate/1f", "v1/instances/lab/backend/generate/1f", "mdc/tiny",
	} {
		if in, ok := ParseCardKey("lab", key); ok {
			t.Errorf("ParseCardKey(%q) = %+v, want it rejected", key, in)
		}
	}
}

func TestIsIgnoredKeyKnowsUnneededKeys(t *testing.T) {
	want := make(map[string]bool)
	for _, kv := range testutil.CapturedJSON[[]keyValue](t, "1.6.1", "etcd_keys.json") {
		want[kv.Key] = strings.Contains(kv.Key, "worker_kv_query_source_") && strings.HasPrefix(kv.Key, "v1/instances/")
	}
	for key, ignored := range map[string]bool{
		"v1/mdc/lab/backend/generate/1f/my-lora":                      true,
		"v1/mdc/lab/backend/generate/1f/beef":                         true,
		"v1/mdc/lab/backend/generate/1f/":                             false,
		"v1/mdc/lab/backend/generate/1F/my-lora":                      true,
		"v1/mdc/lab/backend/generate/1G/my-lora":                      false,
		"v1/mdc/lab/backend/generate/1f/a/b":                          false,
		"v1/mdc/lab/backend/generate/1f":                              false,
		"v1/mdc/lab2/backend/generate/1f/lora":                        false,
		"v1/instances/lab/backend/worker_kv_query_source_1f/":         false,
		"v1/instances/lab/backend/worker_kv_query_source_1f/01F":      true,
		"v1/instances/lab/backend/worker_kv_query_source_1f/1G":       false,
		"v1/instances/lab/backend/worker_kv_indexer_query/1f":         true,
		"v1/instances/lab/backend/worker_kv_indexer_query_dp0/1f":     true,
		"v1/instances/lab/backend/worker_kv_indexer_query_dp12/1f":    true,
		"v1/instances/lab/backend/worker_kv_indexer_queries/1f":       false,
		"v1/instances/lab/backend/kv_indexer_query/1f":                false,
		"v1/instances/lab/backend/clear_kv_blocks/1f":                 true,
		"instances/lab/backend/clear_kv_blocks:1f":                    true,
		"lab/components/backend/clear_kv_blocks:1f":                   true,
		"lab/components/backend/clear_kv_blocks/1f":                   false,
		"v1/instances/lab2/backend/worker_kv_query_source_1f/1f":      false,
		"v1/instances/lab/worker_kv_query_source_1f/generate/1f":      false,
		"v1/instances/lab/backend/my_worker_kv_query_source_1f/1f":    false,
		"instances/lab/backend/worker_kv_query_source_1f:1f":          true,
		"v1/instances/lab/backend/worker_kv_query_source_1f/1f":       true,
		"v1/instances/lab/backend/worker_kv_query_source_1f_dp3/beef": true,
		"": false,
	} {
		want[key] = ignored
	}
	got := make(map[string]bool)
	for key := range want {
		got[key] = IsIgnoredKey("lab", key)
	}
	testutil.Equal(t, "result", got, want)
}
