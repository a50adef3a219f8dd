package mock

import (
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/google/go-cmp/cmp"
)

func TestTraceMatchesCapture(t *testing.T) {
	const worker = 2228897027003910715
	got := mustJSON(trace{"dynamo.request.trace.v1", "request_end", 1795456260801, traceRequest{
		ID: "4d665f7f-b5bc-4f82-98e4-c10240c06eae", InputTokens: 388, OutputTokens: 24, Received: 1795456260583,
		PrefillWait: 1.803384, Prefill: 25.207952, TTFT: 27.011336, Total: 218.480069, InterToken: 8.324727521739131,
		Worker: traceWorker{Prefill: worker, Decode: worker},
		Replay: traceReplay{16, 388, []uint64{15959621774081419800}},
	}})
	equalText(t, got, `{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":1795456260801,"request":{`+
		`"request_id":"4d665f7f-b5bc-4f82-98e4-c10240c06eae","input_tokens":388,"output_tokens":24,"cached_tokens":0,"request_received_ms":1795456260583,`+
		`"prefill_wait_time_ms":1.803384,"prefill_time_ms":25.207952,"ttft_ms":27.011336,"total_time_ms":218.480069,"avg_itl_ms":8.324727521739131,`+
		`"kv_hit_rate":0.0,"queue_depth":0,"worker":{"prefill_worker_id":2228897027003910715,"prefill_dp_rank":0,"decode_worker_id":2228897027003910715,`+
		`"decode_dp_rank":0},"replay":{"trace_block_size":16,"input_length":388,"input_sequence_hashes":[15959621774081419800]}}}`)
}

func TestTraceIsReadByWire(t *testing.T) {
	for _, h := range []hit{{7, 26, 23}, {7, 0, 0}, {7, 3, 3}, {7, 97, 31}} {
		got, err := wire.ParseTrace(mustJSON(newTrace(h, time.UnixMilli(1795456260801))))
		if err != nil {
			t.Fatal(err)
		}
		isl, overlap := uint64(h.isl), uint64(h.overlap)
		ttft := (1 + 0.05*16*float64(isl-overlap)) / 1000
		same := fleet.Some(wire.TraceWorker{Worker: 7})
		want := wire.Trace{
			Prefill: same, Decode: same,
			ISLBlocks: fleet.Some(isl), OverlapBlocks: fleet.Some(overlap), BlockSize: fleet.Some[uint64](16),
			InputTokens: fleet.Some(16 * isl), CachedTokens: fleet.Some(16 * overlap), OutputTokens: fleet.Some[uint64](24), QueueDepth: fleet.Some[uint64](0),
			TTFT: fleet.Some(ttft), InterToken: fleet.Some(0.008), Duration: fleet.Some(ttft + 0.184),
		}
		near := cmp.Comparer(func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 })
		if diff := cmp.Diff(want, got, near); diff != "" {
			t.Errorf("%+v (-want +got)\n%s", h, diff)
		}
	}
}
