package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// traces returns the captured trace records of ten requests that share prefixes.
func traces(t testing.TB) (all [][]byte) {
	t.Helper()
	for _, m := range natsEvents(t, "1.6.1") {
		if m.subject == TraceSubject {
			all = append(all, m.data)
		}
	}
	return all
}

func TestParseTraceReadsCaptures(t *testing.T) {
	got, err := ParseTrace(traces(t)[1])
	if err != nil {
		t.Fatal(err)
	}
	some := fleet.Some[uint64]
	worker := fleet.Some(TraceWorker{Worker: 2228897027003910715})
	testutil.Equal(t, "result", got, Trace{
		Prefill: worker, Decode: worker,
		ISLBlocks: some(26), OverlapBlocks: some(23), BlockSize: some(16),
		InputTokens: some(404), CachedTokens: some(368), OutputTokens: some(24), QueueDepth: some(0),
		TTFT: fleet.Some(0.023371346), InterToken: fleet.Some(0.008457025347826087), Duration: fleet.Some(0.217882929),
	})
}

func TestParseTraceAgreesWithHitRateEvents(t *testing.T) {
	// 0.6.1 served the same ten requests: see TestParseHitRateReadsPipelineCapture.
	want := map[[2]uint64]int{{25, 0}: 1, {26, 23}: 2, {27, 23}: 1, {28, 23}: 1, {25, 23}: 1, {25, 24}: 1, {28, 27}: 1, {26, 25}: 1, {27, 26}: 1}
	got := make(map[[2]uint64]int)
	for _, record := range traces(t) {
		trace, err := ParseTrace(record)
		if err != nil {
			t.Fatal(err)
		}
		got[[2]uint64{trace.ISLBlocks.V, trace.OverlapBlocks.V}]++
		testutil.Equal(t, "cached tokens", trace.OverlapBlocks.V*trace.BlockSize.V, trace.CachedTokens.V)
	}
	testutil.Equal(t, "result", got, want)
}

// requestRecord returns the trace record of a finished request with these fields.
func requestRecord(fields string) string {
	return `{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":1,"request":{"request_id":"x"` + fields + `}}`
}

func TestParseTraceAcceptsVariants(t *testing.T) {
	some := fleet.Some[uint64]
	for name, c := range map[string]struct {
		record string
		want   Trace
	}{
		"an empty request": {requestRecord(``), Trace{}},
		"null for all fields": {requestRecord(`,"input_tokens":null,"cached_tokens":null,"output_tokens":null,"queue_depth":null,"kv_hit_rate":null,` +
			`"ttft_ms":null,"avg_itl_ms":null,"total_time_ms":null,"worker":null,"replay":null`), Trace{}},
		"two workers, each of a rank": {requestRecord(`,"worker":{"prefill_worker_id":1,"prefill_dp_rank":3,"decode_worker_id":18446744073709551615,"decode_dp_rank":4294967295}`),
			Trace{Prefill: fleet.Some(TraceWorker{1, 3}), Decode: fleet.Some(TraceWorker{1<<64 - 1, 1<<32 - 1})}},
		"only a decode worker":    {requestRecord(`,"worker":{"decode_worker_id":2}`), Trace{Decode: fleet.Some(TraceWorker{Worker: 2})}},
		"a rank without a worker": {requestRecord(`,"worker":{"prefill_dp_rank":2}`), Trace{}},
		"a last block that is not full": {requestRecord(`,"kv_hit_rate":0.5,"replay":{"trace_block_size":16,"input_length":33,"input_sequence_hashes":[]}`),
			Trace{BlockSize: some(16), ISLBlocks: some(3), OverlapBlocks: some(2)}}, // 1.5 is rounded away from zero, as Rust does
		"a last block that is full": {requestRecord(`,"kv_hit_rate":1,"replay":{"trace_block_size":16,"input_length":32}`),
			Trace{BlockSize: some(16), ISLBlocks: some(2), OverlapBlocks: some(2)}},
		"no input": {requestRecord(`,"kv_hit_rate":0.0,"replay":{"trace_block_size":16,"input_length":0}`),
			Trace{BlockSize: some(16), ISLBlocks: some(0), OverlapBlocks: some(0)}},
		"no hit rate":               {requestRecord(`,"replay":{"trace_block_size":16,"input_length":32}`), Trace{BlockSize: some(16), ISLBlocks: some(2)}},
		"a hit rate without blocks": {requestRecord(`,"kv_hit_rate":0.5`), Trace{}},
		"blocks of size 0":          {requestRecord(`,"kv_hit_rate":0.5,"replay":{"trace_block_size":0,"input_length":32}`), Trace{}},
		"the longest input": {requestRecord(`,"replay":{"trace_block_size":256,"input_length":1099511627776}`),
			Trace{BlockSize: some(256), ISLBlocks: some(maxBlocks)}},
		"fields of another release": {strings.Replace(requestRecord(`,"model":"m","x_request_id":"y","kv_transfer_estimated_latency_ms":1.5,"finish_reason_metadata":{"finish_reason":"stop"},"cached_tokens":5`),
			`"request":`, `"event_source":"dynamo","agent_context":{"session_id":"s"},"request":`, 1), Trace{CachedTokens: some(5)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseTrace([]byte(c.record))
			if err != nil {
				t.Fatal(err)
			}
			testutil.Equal(t, "result", got, c.want)
		})
	}
}

func TestParseTraceReportsOtherRecords(t *testing.T) {
	for _, event := range []string{"tool_start", "tool_end", "tool_error", "request_payload", "later"} {
		record := fmt.Sprintf(`{"schema":"dynamo.request.trace.v1","event_type":%q,"event_time_unix_ms":1,"tool":{"tool_call_id":"x"}}`, event)
		if got, err := ParseTrace([]byte(record)); !errors.Is(err, ErrNotRequestEnd) || got != (Trace{}) {
			t.Errorf("ParseTrace of a %s = %+v, %v, want %v", event, got, err, ErrNotRequestEnd)
		}
	}
}

func TestParseTraceRejectsInvalid(t *testing.T) {
	for name, record := range map[string]string{
		"empty":                   ``,
		"null":                    `null`,
		"an empty object":         `{}`,
		"another schema":          strings.Replace(requestRecord(``), "trace.v1", "trace.v2", 1),
		"an agent's, as of 1.2":   strings.Replace(requestRecord(``), "request.trace", "agent.trace", 1),
		"no request":              `{"schema":"dynamo.request.trace.v1","event_type":"request_end"}`,
		"a null request":          `{"schema":"dynamo.request.trace.v1","event_type":"request_end","request":null}`,
		"a negative id":           requestRecord(`,"worker":{"prefill_worker_id":-1}`),
		"an id in text":           requestRecord(`,"worker":{"prefill_worker_id":"1"}`),
		"a rank of 2^32":          requestRecord(`,"worker":{"prefill_worker_id":1,"prefill_dp_rank":4294967296}`),
		"a negative time":         requestRecord(`,"ttft_ms":-0.1`),
		"a time of years":         requestRecord(`,"total_time_ms":1e11`),
		"a time in text":          requestRecord(`,"avg_itl_ms":"8"`),
		"a time beyond float64":   requestRecord(`,"avg_itl_ms":1e400`),
		"a negative hit rate":     requestRecord(`,"kv_hit_rate":-0.5,"replay":{"trace_block_size":16,"input_length":32}`),
		"a hit rate out of range": requestRecord(`,"kv_hit_rate":1e300,"replay":{"trace_block_size":16,"input_length":32}`),
		"too long an input":       requestRecord(`,"replay":{"trace_block_size":16,"input_length":18446744073709551615}`),
		"too large a block":       requestRecord(`,"replay":{"trace_block_size":18446744073709551615,"input_length":1}`),
		"too many tokens":         requestRecord(`,"output_tokens":1099511627777`),
		"a negative count":        requestRecord(`,"cached_tokens":-1`),
		"a float for a count":     requestRecord(`,"queue_depth":1.5`),
		"cut off":                 strings.TrimSuffix(requestRecord(``), "}"),
		"trailing bytes":          requestRecord(``) + "{}",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseTrace([]byte(record))
			if err == nil || errors.Is(err, ErrNotRequestEnd) || got != (Trace{}) {
				t.Errorf("ParseTrace = %+v, %v, want an error and nothing else", got, err)
			}
		})
	}
}
