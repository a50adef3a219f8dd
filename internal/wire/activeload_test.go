package wire

import (
	"math"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

func activeLoadFields() pairs {
	return pairs{
		"worker_id", uint64(2228897027003909783), "dp_rank", 0, "active_decode_blocks", 42,
		"active_prefill_tokens", nil, "kv_used_blocks", 47,
	}
}

func TestParseActiveLoadReadsCaptures(t *testing.T) {
	some, none := fleet.Some[uint64], fleet.Opt[uint64]{}
	nats := func(release string, i int) []byte { return envelopeOf(t, natsEvents(t, release)[i].data).Payload }
	zmq := func(release string, i int) []byte {
		_, e, err := ParseFrames(zmqEvents(t, release)[i])
		if err != nil {
			t.Fatal(err)
		}
		return e.Payload
	}
	for name, c := range map[string]struct {
		payload  []byte
		want     ActiveLoad
		active   fleet.Opt[uint64]
		estimate bool
	}{
		"0.9.1, a worker's":       {nats("0.9.1", 0), ActiveLoad{2228897027003908015, 0, some(42), none, none}, some(42), false},
		"0.9.1, a router's":       {nats("0.9.1", 6), ActiveLoad{2228897027003907597, 0, some(24), some(388), none}, some(24), true},
		"1.0.2":                   {nats("1.0.2", 0), ActiveLoad{9626373414965886546, 0, some(40), none, none}, some(40), false},
		"1.3.1, no blocks used":   {zmq("1.3.1", 0), ActiveLoad{17374797852512241050, 0, some(40), none, none}, some(40), false},
		"1.6.1, both":             {nats("1.6.1", 0), ActiveLoad{2228897027003909783, 0, some(42), none, some(47)}, some(47), false},
		"1.6.1, of a real engine": {zmq("1.6.1", 10), ActiveLoad{2228897027003910715, 0, none, none, some(25)}, some(25), false},
		"1.6.1, through a broker": {zmq("1.6.1", 13), ActiveLoad{2228897027003910407, 0, some(40), none, some(45)}, some(45), false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseActiveLoad(c.payload)
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, c.want)
			testutil.Equal(t, "KVActive", got.KVActive(), c.active)
			testutil.Equal(t, "IsEstimate", got.IsEstimate(), c.estimate)
		})
	}
}

func TestParseActiveLoadAcceptsVariants(t *testing.T) {
	some, none := fleet.Some[uint64], fleet.Opt[uint64]{}
	fields := activeLoadFields()
	const worker = 2228897027003909783
	for name, c := range map[string]struct {
		fields pairs
		want   ActiveLoad
	}{
		"in another order":       {fields.reversed(), ActiveLoad{worker, 0, some(42), none, some(47)}},
		"with more fields":       {fields.with("waiting_requests", 3).with("later", unknownValue()), ActiveLoad{worker, 0, some(42), none, some(47)}},
		"without a rank":         {fields.without("dp_rank"), ActiveLoad{worker, 0, some(42), none, some(47)}},
		"with a nil rank":        {fields.with("dp_rank", nil), ActiveLoad{worker, 0, some(42), none, some(47)}},
		"of the last rank":       {fields.with("dp_rank", uint64(math.MaxUint32)), ActiveLoad{worker, math.MaxUint32, some(42), none, some(47)}},
		"no known value":         {pairs{"worker_id", 1, "kv_used_blocks", nil}, ActiveLoad{Worker: 1}},
		"zero, which is not nil": {pairs{"worker_id", 1, "kv_used_blocks", 0}, ActiveLoad{Worker: 1, UsedBlocks: some(0)}},
		"the last id":            {pairs{"worker_id", uint64(math.MaxUint64), "kv_used_blocks", 0}, ActiveLoad{Worker: math.MaxUint64, UsedBlocks: some(0)}},
		"the largest count":      {pairs{"worker_id", 1, "kv_used_blocks", uint64(math.MaxUint64)}, ActiveLoad{Worker: 1, UsedBlocks: some(math.MaxUint64)}},
		"zero prefill tokens":    {pairs{"worker_id", 1, "active_prefill_tokens", 0}, ActiveLoad{Worker: 1, PrefillTokens: some(0)}},
		"a field twice":          {pairs{"worker_id", 1, "kv_used_blocks", 1, "kv_used_blocks", 2}, ActiveLoad{Worker: 1, UsedBlocks: some(2)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseActiveLoad(pack(c.fields))
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, c.want)
		})
	}
}

func TestParseActiveLoadRejectsInvalid(t *testing.T) {
	fields := activeLoadFields()
	for name, payload := range map[string][]byte{
		"empty":                       {},
		"an empty map":                pack(pairs{}),
		"no worker":                   pack(fields.without("worker_id")),
		"a nil worker":                pack(fields.with("worker_id", nil)),
		"a worker in text":            pack(fields.with("worker_id", "1")),
		"a negative worker":           pack(fields.with("worker_id", -1)),
		"no known field":              pack(pairs{"worker_id", 1, "dp_rank", 0, "kv_occupied_blocks", 5}),
		"a negative count":            pack(fields.with("active_decode_blocks", -1)),
		"a very negative count":       pack(fields.with("active_decode_blocks", int64(math.MinInt64))),
		"a float for a count":         pack(fields.with("kv_used_blocks", 47.0)),
		"text for a count":            pack(fields.with("kv_used_blocks", "47")),
		"true for a count":            pack(fields.with("active_prefill_tokens", true)),
		"a list for a count":          pack(fields.with("active_prefill_tokens", []any{})),
		"a negative rank":             pack(fields.with("dp_rank", -1)),
		"a rank of 2^32":              pack(fields.with("dp_rank", uint64(1)<<32)),
		"trailing bytes":              append(pack(fields), 0),
		"an array of the values":      pack([]any{1, 0, 42, nil, 47}),
		"a load in JSON, as of 0.8":   []byte(`{"worker_id":1,"dp_rank":0,"active_decode_blocks":43,"active_prefill_tokens":null}`),
		"the payload of another kind": pack(hitRateFields()),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseActiveLoad(payload); err == nil || got != (ActiveLoad{}) {
				t.Errorf("ParseActiveLoad = %+v, %v, want an error and nothing else", got, err)
			}
		})
	}
}

func TestParseActiveLoadRejectsTruncated(t *testing.T) {
	checkTruncated(t, pack(activeLoadFields()), func(b []byte) error { _, err := ParseActiveLoad(b); return err })
}
