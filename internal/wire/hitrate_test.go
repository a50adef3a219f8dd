package wire

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestParseHitRateReadsCaptures(t *testing.T) {
	six := func(h HitRate) []HitRate { return []HitRate{h, h, h, h, h, h} }
	for _, c := range []struct {
		release, file string
		want          []HitRate
	}{
		{"0.1.1", "kv_hit_rate.jsonl", six(HitRate{9041998838276177807, 1, 3})},
		{"0.2.1", "kv_hit_rate.jsonl", six(HitRate{9041998838276178257, 1, 3})},
		{"0.3.0", "kv_hit_rate.jsonl", six(HitRate{9041998838276179912, 4, 3})},
		{"0.5.1", "kv_hit_rate.jsonl", []HitRate{
			{9041998838276179123, 4, 3}, {9041998838276179119, 4, 3}, {9041998838276179119, 4, 3},
			{9041998838276179123, 4, 3}, {9041998838276179123, 4, 3}, {9041998838276179119, 4, 3},
		}},
		{"0.5.1", "kv_hit_rate_frontend.jsonl", []HitRate{
			{9041998838276179704, 8, 0}, {9041998838276179698, 8, 0}, {9041998838276179704, 8, 0}, {9041998838276179698, 8, 0},
		}},
	} {
		t.Run(c.release+"/"+c.file, func(t *testing.T) {
			var got []HitRate
			for line := range bytes.Lines(testutil.Captured(t, c.release, c.file)) {
				var message struct{ Subject, Payload string }
				if err := json.Unmarshal(line, &message); err != nil {
					t.Fatal(err)
				}
				testutil.Equal(t, "subject", message.Subject, HitRateSubject("edge"))
				hit, err := ParseHitRate([]byte(message.Payload))
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, hit)
			}
			testutil.Equal(t, "result", got, c.want)
		})
	}
}

func TestParseHitRateReadsEventsSentToOriginal(t *testing.T) {
	var got []HitRate
	for _, event := range testutil.CapturedJSON[[]json.RawMessage](t, "original", "hit_rate_events.json") {
		hit, err := ParseHitRate(event)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, hit)
	}
	testutil.Equal(t, "result", got, []HitRate{
		{9041998838276177456, 20, 0}, {9041998838276177458, 21, 5}, {9041998838276177453, 22, 10},
		{9041998838276177456, 0, 0}, {977, 3, 1},
	})
}

func TestParseHitRateAcceptsVariants(t *testing.T) {
	for name, c := range map[string]struct {
		event string
		want  HitRate
	}{
		"id 2^53+1, which no float64 holds": {`{"worker_id":9007199254740993,"isl_blocks":12,"overlap_blocks":4}`, HitRate{9007199254740993, 12, 4}},
		"id above 2^63":                     {`{"worker_id":9223372036854775809,"isl_blocks":12,"overlap_blocks":4}`, HitRate{1<<63 + 1, 12, 4}},
		"the last id":                       {`{"worker_id":18446744073709551615,"isl_blocks":12,"overlap_blocks":4}`, HitRate{1<<64 - 1, 12, 4}},
		"no input at all":                   {`{"worker_id":1,"isl_blocks":0,"overlap_blocks":0}`, HitRate{1, 0, 0}},
		"more overlap than input":           {`{"worker_id":1,"isl_blocks":1,"overlap_blocks":3}`, HitRate{1, 1, 3}},
		"fields in another order":           {`{"overlap_blocks":4,"isl_blocks":12,"worker_id":1}`, HitRate{1, 12, 4}},
		"spaces":                            {" {\n\t\"worker_id\" : 1 , \"isl_blocks\":12,\"overlap_blocks\":4\r\n} ", HitRate{1, 12, 4}},
		"fields of a later release":         {`{"worker_id":1,"dp_rank":{"a":[null]},"isl_blocks":12,"overlap_blocks":4}`, HitRate{1, 12, 4}},
		"the most blocks":                   {`{"worker_id":1,"isl_blocks":4294967296,"overlap_blocks":4294967296}`, HitRate{1, maxBlocks, maxBlocks}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseHitRate([]byte(c.event))
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, c.want)
		})
	}
}

func TestParseHitRateRejectsInvalid(t *testing.T) {
	for name, event := range map[string]string{
		"empty":                   ``,
		"null":                    `null`,
		"an empty object":         `{}`,
		"an array":                `[1,12,4]`,
		"two events":              `{"worker_id":1,"isl_blocks":12,"overlap_blocks":4}{"worker_id":1,"isl_blocks":12,"overlap_blocks":4}`,
		"cut off":                 `{"worker_id":1,"isl_blocks":12,"overlap_blocks":4`,
		"no id":                   `{"isl_blocks":12,"overlap_blocks":4}`,
		"no isl":                  `{"worker_id":1,"overlap_blocks":4}`,
		"no overlap":              `{"worker_id":1,"isl_blocks":12}`,
		"null id":                 `{"worker_id":null,"isl_blocks":12,"overlap_blocks":4}`,
		"null isl":                `{"worker_id":1,"isl_blocks":null,"overlap_blocks":4}`,
		"null overlap":            `{"worker_id":1,"isl_blocks":12,"overlap_blocks":null}`,
		"negative id":             `{"worker_id":-1,"isl_blocks":12,"overlap_blocks":4}`,
		"negative isl":            `{"worker_id":1,"isl_blocks":-12,"overlap_blocks":4}`,
		"negative overlap":        `{"worker_id":1,"isl_blocks":12,"overlap_blocks":-4}`,
		"id 2^64":                 `{"worker_id":18446744073709551616,"isl_blocks":12,"overlap_blocks":4}`,
		"isl out of range":        `{"worker_id":1,"isl_blocks":4294967297,"overlap_blocks":4}`,
		"overlap out of range":    `{"worker_id":1,"isl_blocks":12,"overlap_blocks":4294967297}`,
		"isl 2^64":                `{"worker_id":1,"isl_blocks":18446744073709551616,"overlap_blocks":4}`,
		"a float for an id":       `{"worker_id":1.0,"isl_blocks":12,"overlap_blocks":4}`,
		"a float for blocks":      `{"worker_id":1,"isl_blocks":12.5,"overlap_blocks":4}`,
		"an exponent":             `{"worker_id":1,"isl_blocks":1e1,"overlap_blocks":4}`,
		"a string for an id":      `{"worker_id":"1","isl_blocks":12,"overlap_blocks":4}`,
		"a number in hexadecimal": `{"worker_id":0x1f,"isl_blocks":12,"overlap_blocks":4}`,
	} {
		t.Run(name, func(t *testing.T) {
			if hit, err := ParseHitRate([]byte(event)); err == nil || hit != (HitRate{}) {
				t.Errorf("ParseHitRate = %+v, %v, want an error and nothing else", hit, err)
			}
		})
	}
}

func hitRateFields() pairs {
	return pairs{"worker_id", uint64(2228897027003907597), "dp_rank", 0, "isl_blocks", 26, "overlap_blocks", 23}
}

func TestParseHitRateReadsPipelineCapture(t *testing.T) {
	var got []HitRate
	for _, m := range natsEvents(t, "0.6.1") {
		if m.subject != HitRateSubject("lab") {
			continue
		}
		hit, err := ParseHitRate(m.data)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, hit)
	}
	const w = 2228897027003908224
	testutil.Equal(t, "result", got, []HitRate{
		{w, 25, 0}, {w, 26, 23}, {w, 27, 23}, {w, 28, 23}, {w, 25, 23},
		{w, 26, 23}, {w, 25, 24}, {w, 28, 27}, {w, 26, 25}, {w, 27, 26},
	})
}

func TestParseHitRateMsgpackReadsCaptures(t *testing.T) {
	var got []HitRate
	for _, payload := range payloadsOf(t, TopicHitRate) {
		hit, err := ParseHitRateMsgpack(payload)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, hit)
	}
	testutil.Equal(t, "result", got, []HitRate{{2228897027003907597, 26, 23}, {2228897027003907814, 26, 23}}) // from NATS and from ZMQ
}

func TestParseHitRateMsgpackAcceptsVariants(t *testing.T) {
	fields := hitRateFields()
	const w = 2228897027003907597
	for name, c := range map[string]struct {
		fields pairs
		want   HitRate
	}{
		"in another order":        {fields.reversed(), HitRate{w, 26, 23}},
		"with more fields":        {fields.with("later", unknownValue()), HitRate{w, 26, 23}},
		"without a rank":          {fields.without("dp_rank"), HitRate{w, 26, 23}},
		"a rank of any kind":      {fields.with("dp_rank", "x"), HitRate{w, 26, 23}},
		"no input at all":         {fields.with("isl_blocks", 0).with("overlap_blocks", 0), HitRate{w, 0, 0}},
		"more overlap than input": {fields.with("isl_blocks", 1), HitRate{w, 1, 23}},
		"the most blocks":         {fields.with("isl_blocks", uint64(maxBlocks)).with("overlap_blocks", uint64(maxBlocks)), HitRate{w, maxBlocks, maxBlocks}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseHitRateMsgpack(pack(c.fields))
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, c.want)
		})
	}
}

func TestParseHitRateMsgpackRejectsInvalid(t *testing.T) {
	fields := hitRateFields()
	for name, payload := range map[string][]byte{
		"empty":                {},
		"an empty map":         pack(pairs{}),
		"no id":                pack(fields.without("worker_id")),
		"no isl":               pack(fields.without("isl_blocks")),
		"no overlap":           pack(fields.without("overlap_blocks")),
		"a nil overlap":        pack(fields.with("overlap_blocks", nil)),
		"a negative isl":       pack(fields.with("isl_blocks", -26)),
		"a float for an isl":   pack(fields.with("isl_blocks", 26.0)),
		"isl out of range":     pack(fields.with("isl_blocks", uint64(maxBlocks+1))),
		"overlap out of range": pack(fields.with("overlap_blocks", uint64(math.MaxUint64))),
		"trailing bytes":       append(pack(fields), pack(fields)...),
		"an event in JSON":     []byte(`{"worker_id":1,"isl_blocks":12,"overlap_blocks":4}`),
	} {
		t.Run(name, func(t *testing.T) {
			if hit, err := ParseHitRateMsgpack(payload); err == nil || hit != (HitRate{}) {
				t.Errorf("ParseHitRateMsgpack = %+v, %v, want an error and nothing else", hit, err)
			}
		})
	}
	checkTruncated(t, pack(fields), func(b []byte) error { _, err := ParseHitRateMsgpack(b); return err })
}
