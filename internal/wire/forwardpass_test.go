package wire

import (
	"math"
	"testing"

	"dynamo-metrics/internal/testutil"
)

func forwardPassFields() pairs {
	return pairs{
		"version", 1, "worker_id", "2228897027003909783", "dp_rank", 2, "counter_id", 7, "wall_time", 0.0125,
		"scheduled_requests", scheduledFields(), "queued_requests", queuedFields(),
	}
}

func scheduledFields() pairs {
	return pairs{
		"num_prefill_requests", 1, "sum_prefill_tokens", 128, "var_prefill_length", 0.0, "sum_prefill_kv_tokens", 64,
		"num_decode_requests", 11, "sum_decode_kv_tokens", 672, "var_decode_kv_tokens", 0.0,
	}
}

func queuedFields() pairs {
	return pairs{
		"num_prefill_requests", 4, "sum_prefill_tokens", 400, "var_prefill_length", 0.0,
		"num_decode_requests", 1, "sum_decode_kv_tokens", 16, "var_decode_kv_tokens", 0.0,
	}
}

// forwardPass returns the pass that forwardPassFields encode.
func forwardPass() ForwardPass {
	return ForwardPass{
		Worker: 2228897027003909783, HasWorkerID: true, Rank: 2, Counter: 7, WallTime: 0.0125,
		Scheduled: PassRequests{PrefillRequests: 1, PrefillTokens: 128, PrefillKVTokens: 64, DecodeRequests: 11, DecodeKVTokens: 672},
		Queued:    PassRequests{PrefillRequests: 4, PrefillTokens: 400, DecodeRequests: 1, DecodeKVTokens: 16},
	}
}

func TestParseForwardPassReadsCaptures(t *testing.T) {
	events := natsEvents(t, "1.6.1")
	pass := forwardPass()
	pass.Rank, pass.Counter = 0, 2
	engine := testutil.CapturedJSON[struct {
		Payload []byte `json:"payload_base64"`
	}](t, "1.6.1", "fpm_of_an_engine.json")
	for name, c := range map[string]struct {
		payload          []byte
		want             ForwardPass
		running, waiting uint64
	}{
		"a pass":                {envelopeOf(t, events[6].data).Payload, pass, 12, 5},
		"before the first pass": {envelopeOf(t, events[2].data).Payload, ForwardPass{Worker: 2228897027003909783, HasWorkerID: true, Counter: 1}, 0, 0},
		"of an engine that was started with another name": {engine.Payload, ForwardPass{
			Rank: 1, Counter: 7, WallTime: 0.25,
			Scheduled: PassRequests{PrefillRequests: 2, PrefillTokens: 300, PrefillKVTokens: 64, DecodeRequests: 5, DecodeKVTokens: 640},
			Queued:    PassRequests{PrefillRequests: 3, PrefillTokens: 900, DecodeRequests: 1, DecodeKVTokens: 32},
		}, 7, 4},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseForwardPass(c.payload)
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, c.want)
			testutil.Equal(t, "running and waiting", []uint64{got.Running(), got.Waiting()}, []uint64{c.running, c.waiting})
		})
	}
}

func TestParseForwardPassReadsEveryRelease(t *testing.T) {
	// The test wrote these events, and the runtimes of 1.1 to 1.5 relayed them. The worker's
	// id is empty.
	want := forwardPass()
	want.Worker, want.HasWorkerID, want.Rank, want.WallTime = 0, false, 0, 0.25
	for _, release := range []string{"1.1.1", "1.2.1", "1.3.1", "1.4.2", "1.5.1"} {
		var counters []uint64
		for _, m := range natsEvents(t, release) {
			e := envelopeOf(t, m.data)
			if string(e.Topic) != TopicForwardPass {
				continue
			}
			got, err := ParseForwardPass(e.Payload)
			if err != nil {
				t.Fatalf("%s: %v", release, err)
			}
			counters = append(counters, got.Counter)
			got.Counter = want.Counter
			testutil.Equal(t, "result", got, want)
		}
		testutil.Equal(t, "counters", counters, []uint64{0, 1})
	}
}

func TestParseForwardPassAcceptsVariants(t *testing.T) {
	fields := forwardPassFields()
	withoutID := func(f func(*ForwardPass)) ForwardPass {
		p := forwardPass()
		p.Worker, p.HasWorkerID = 0, false
		f(&p)
		return p
	}
	some := func(f func(*ForwardPass)) ForwardPass {
		p := forwardPass()
		f(&p)
		return p
	}
	same := func(*ForwardPass) {}
	for name, c := range map[string]struct {
		fields pairs
		want   ForwardPass
	}{
		"in another order":          {fields.with("queued_requests", queuedFields().reversed()).reversed(), forwardPass()},
		"with more fields":          {fields.with("later", unknownValue()).with("scheduled_requests", scheduledFields().with("later", unknownValue())), forwardPass()},
		"without a rank":            {fields.without("dp_rank"), some(func(p *ForwardPass) { p.Rank = 0 })},
		"without a worker":          {fields.without("worker_id"), withoutID(same)},
		"an empty worker":           {fields.with("worker_id", ""), withoutID(same)},
		"a nil worker":              {fields.with("worker_id", nil), withoutID(same)},
		"a worker with a name":      {fields.with("worker_id", "known-worker"), withoutID(same)},
		"a worker in hexadecimal":   {fields.with("worker_id", "0x1eeea2096f7e0697"), withoutID(same)},
		"a negative worker":         {fields.with("worker_id", "-1"), withoutID(same)},
		"worker 0":                  {fields.with("worker_id", "0"), withoutID(same)},
		"worker 2^64":               {fields.with("worker_id", "18446744073709551616"), withoutID(same)},
		"a worker of many digits":   {fields.with("worker_id", "000000000000000000000000001"), withoutID(same)},
		"the last worker":           {fields.with("worker_id", "18446744073709551615"), some(func(p *ForwardPass) { p.Worker = math.MaxUint64 })},
		"the last counter":          {fields.with("counter_id", uint64(math.MaxUint64)), some(func(p *ForwardPass) { p.Counter = math.MaxUint64 })},
		"a time that is whole":      {fields.with("wall_time", 2), some(func(p *ForwardPass) { p.WallTime = 2 })},
		"a time of single width":    {fields.with("wall_time", float32(0.5)), some(func(p *ForwardPass) { p.WallTime = 0.5 })},
		"no time":                   {fields.with("wall_time", 0.0), some(func(p *ForwardPass) { p.WallTime = 0 })},
		"no time, and signed":       {fields.with("wall_time", math.Copysign(0, -1)), some(func(p *ForwardPass) { p.WallTime = 0 })},
		"queued with cached tokens": {fields.with("queued_requests", queuedFields().with("sum_prefill_kv_tokens", 5)), some(func(p *ForwardPass) { p.Queued.PrefillKVTokens = 5 })},
		"the most tokens": {fields.with("queued_requests", queuedFields().with("sum_prefill_tokens", uint64(maxTokens))),
			some(func(p *ForwardPass) { p.Queued.PrefillTokens = maxTokens })},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseForwardPass(pack(c.fields))
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, c.want)
			if math.Signbit(got.WallTime) {
				t.Error("WallTime is -0")
			}
		})
	}
}

func TestParseForwardPassRejectsInvalid(t *testing.T) {
	fields := forwardPassFields()
	for name, payload := range map[string][]byte{
		"empty":                   {},
		"an empty map":            pack(pairs{}),
		"another version":         pack(fields.with("version", 2)),
		"no version":              pack(fields.without("version")),
		"no counter":              pack(fields.without("counter_id")),
		"no time":                 pack(fields.without("wall_time")),
		"no scheduled requests":   pack(fields.without("scheduled_requests")),
		"no queued requests":      pack(fields.without("queued_requests")),
		"nil for queued requests": pack(fields.with("queued_requests", nil)),
		"a number for a worker":   pack(fields.with("worker_id", uint64(2228897027003909783))),
		"a negative rank":         pack(fields.with("dp_rank", -1)),
		"a negative counter":      pack(fields.with("counter_id", -1)),
		"a negative time":         pack(fields.with("wall_time", -0.1)),
		"a time that is NaN":      pack(fields.with("wall_time", math.NaN())),
		"an infinite time":        pack(fields.with("wall_time", math.Inf(1))),
		"a time of years":         pack(fields.with("wall_time", 1e8)),
		"a time in text":          pack(fields.with("wall_time", "0.0125")),
		"a nil time":              pack(fields.with("wall_time", nil)),
		"no prefill requests":     pack(fields.with("queued_requests", queuedFields().without("num_prefill_requests"))),
		"no prefill tokens":       pack(fields.with("queued_requests", queuedFields().without("sum_prefill_tokens"))),
		"no decode requests":      pack(fields.with("scheduled_requests", scheduledFields().without("num_decode_requests"))),
		"no decode tokens":        pack(fields.with("scheduled_requests", scheduledFields().without("sum_decode_kv_tokens"))),
		"negative requests":       pack(fields.with("scheduled_requests", scheduledFields().with("num_decode_requests", -1))),
		"a float for requests":    pack(fields.with("scheduled_requests", scheduledFields().with("num_decode_requests", 1.0))),
		"too many requests":       pack(fields.with("scheduled_requests", scheduledFields().with("num_decode_requests", uint64(maxRequests+1)))),
		"too many tokens":         pack(fields.with("scheduled_requests", scheduledFields().with("sum_prefill_kv_tokens", uint64(maxTokens+1)))),
		"trailing bytes":          append(pack(fields), 0),
		"the event in JSON":       []byte(`{"version":1}`),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseForwardPass(payload); err == nil || got != (ForwardPass{}) {
				t.Errorf("ParseForwardPass = %+v, %v, want an error and nothing else", got, err)
			}
		})
	}
	checkTruncated(t, pack(fields), func(b []byte) error { _, err := ParseForwardPass(b); return err })
}
