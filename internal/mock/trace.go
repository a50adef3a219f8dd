package mock

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// trace is a record of a finished request, as frontends of 1.6 publish it.
type trace struct {
	Schema  string       `json:"schema"`
	Event   string       `json:"event_type"`
	Time    int64        `json:"event_time_unix_ms"`
	Request traceRequest `json:"request"`
}

type traceRequest struct {
	ID           string      `json:"request_id"`
	InputTokens  int         `json:"input_tokens"`
	OutputTokens int         `json:"output_tokens"`
	CachedTokens int         `json:"cached_tokens"`
	Received     int64       `json:"request_received_ms"`
	PrefillWait  rustFloat64 `json:"prefill_wait_time_ms"`
	Prefill      rustFloat64 `json:"prefill_time_ms"`
	TTFT         rustFloat64 `json:"ttft_ms"`
	Total        rustFloat64 `json:"total_time_ms"`
	InterToken   rustFloat64 `json:"avg_itl_ms"`
	HitRate      rustFloat64 `json:"kv_hit_rate"`
	QueueDepth   int         `json:"queue_depth"`
	Worker       traceWorker `json:"worker"`
	Replay       traceReplay `json:"replay"`
}

type traceWorker struct {
	Prefill     uint64 `json:"prefill_worker_id"`
	PrefillRank int    `json:"prefill_dp_rank"`
	Decode      uint64 `json:"decode_worker_id"`
	DecodeRank  int    `json:"decode_dp_rank"`
}

type traceReplay struct {
	BlockSize   int      `json:"trace_block_size"`
	InputLength int      `json:"input_length"`
	Hashes      []uint64 `json:"input_sequence_hashes"`
}

// Values of every made-up request.
const (
	outputTokens = 24
	prefillWait  = 1.0  // ms
	tokenTime    = 0.05 // ms, for each input token that is not in the cache
	interToken   = 8.0  // ms
)

// encodeTrace encodes a trace of a hit. Its times follow from the number of tokens that are
// not in the cache.
func encodeTrace(h hit) []byte { return mustJSON(newTrace(h, time.Now())) }

func newTrace(h hit, end time.Time) trace {
	input, cached := h.isl*blockSize, h.overlap*blockSize
	prefill := tokenTime * float64(max(input-cached, 0))
	total := prefillWait + prefill + interToken*(outputTokens-1)
	r := traceRequest{
		ID:          fmt.Sprintf("%08x-0000-4000-8000-%012x", rand.Uint32(), rand.Uint64N(1<<48)),
		InputTokens: input, OutputTokens: outputTokens, CachedTokens: cached,
		Received:    end.UnixMilli() - int64(total),
		PrefillWait: prefillWait, Prefill: rustFloat64(prefill), TTFT: rustFloat64(prefillWait + prefill),
		Total: rustFloat64(total), InterToken: interToken,
		Worker: traceWorker{Prefill: h.worker, Decode: h.worker},
		Replay: traceReplay{BlockSize: blockSize, InputLength: input, Hashes: []uint64{}},
	}
	if h.isl > 0 {
		r.HitRate = rustFloat64(float64(h.overlap) / float64(h.isl))
	}
	return trace{Schema: "dynamo.request.trace.v1", Event: "request_end", Time: end.UnixMilli(), Request: r}
}

// rustFloat64 is an f64 that is encoded as by Rust.
type rustFloat64 float64

// MarshalJSON implements json.Marshaler.
func (f rustFloat64) MarshalJSON() ([]byte, error) { return formatRustFloat(float64(f), 64), nil }
