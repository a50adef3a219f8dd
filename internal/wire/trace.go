package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"dynamo-metrics/internal/fleet"
)

// TraceSubject is the NATS subject on which frontends of all namespaces publish a record of
// each finished request (1.4 to 1.6, with DYN_REQUEST_TRACE=1 and
// DYN_REQUEST_TRACE_SINKS=nats).
const TraceSubject = "dynamo.request_trace.v1"

// traceSchema is the schema of every record there.
const traceSchema = "dynamo.request.trace.v1"

// Trace is the record of one finished request. Every field may be absent. 1.4 sets the
// workers, the hits and the times only for requests with a session header.
type Trace struct {
	Prefill fleet.Opt[TraceWorker]
	Decode  fleet.Opt[TraceWorker] // equals Prefill if one worker does both

	ISLBlocks     fleet.Opt[uint64] // blocks of the input, as in HitRate
	OverlapBlocks fleet.Opt[uint64] // blocks of the input in the cache of the prefill worker
	BlockSize     fleet.Opt[uint64] // tokens in a block

	InputTokens  fleet.Opt[uint64]
	CachedTokens fleet.Opt[uint64] // tokens of the input in the cache
	OutputTokens fleet.Opt[uint64]
	QueueDepth   fleet.Opt[uint64] // requests ahead of it in the router's queue

	TTFT       fleet.Opt[float64] // seconds to the first token
	InterToken fleet.Opt[float64] // mean seconds between tokens
	Duration   fleet.Opt[float64] // seconds in total
}

// TraceWorker is a rank of a worker that served a request.
type TraceWorker struct {
	Worker uint64
	Rank   uint32
}

// ErrNotRequestEnd reports that a trace record is valid, but not about the end of a
// request. It may be about a tool call, or hold the content of a request.
var ErrNotRequestEnd = errors.New("trace record is not of a request's end")

var (
	errTraceSchema = errors.New("decode trace record: not of schema " + traceSchema)
	errTraceField  = errors.New("decode trace record: a field is missing or out of range")
)

// ParseTrace decodes a record from TraceSubject (1.4 to 1.6).
func ParseTrace(b []byte) (Trace, error) {
	var v struct {
		Schema  string        `json:"schema"`
		Event   string        `json:"event_type"`
		Request *traceRequest `json:"request"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return Trace{}, fmt.Errorf("decode trace record: %w", err)
	}
	if v.Schema != traceSchema {
		return Trace{}, errTraceSchema
	}
	if v.Event != "request_end" {
		return Trace{}, ErrNotRequestEnd
	}
	if v.Request == nil {
		return Trace{}, errTraceField
	}
	return v.Request.trace()
}

type traceRequest struct {
	InputTokens  *uint64  `json:"input_tokens"`
	CachedTokens *uint64  `json:"cached_tokens"`
	OutputTokens *uint64  `json:"output_tokens"`
	QueueDepth   *uint64  `json:"queue_depth"`
	HitRate      *float64 `json:"kv_hit_rate"`
	TTFT         *float64 `json:"ttft_ms"`
	InterToken   *float64 `json:"avg_itl_ms"`
	Duration     *float64 `json:"total_time_ms"`
	Worker       struct {
		PrefillID   *uint64 `json:"prefill_worker_id"`
		PrefillRank *uint32 `json:"prefill_dp_rank"`
		DecodeID    *uint64 `json:"decode_worker_id"`
		DecodeRank  *uint32 `json:"decode_dp_rank"`
	} `json:"worker"`
	Replay *struct {
		BlockSize uint64 `json:"trace_block_size"`
		Length    uint64 `json:"input_length"`
	} `json:"replay"`
}

func (r *traceRequest) trace() (Trace, error) {
	t := Trace{
		Prefill:      traceWorker(r.Worker.PrefillID, r.Worker.PrefillRank),
		Decode:       traceWorker(r.Worker.DecodeID, r.Worker.DecodeRank),
		InputTokens:  opt(r.InputTokens),
		CachedTokens: opt(r.CachedTokens),
		OutputTokens: opt(r.OutputTokens),
		QueueDepth:   opt(r.QueueDepth),
		TTFT:         seconds(r.TTFT),
		InterToken:   seconds(r.InterToken),
		Duration:     seconds(r.Duration),
	}
	if r.Replay != nil && r.Replay.BlockSize > 0 {
		isl := r.Replay.Length / r.Replay.BlockSize
		if r.Replay.Length%r.Replay.BlockSize > 0 {
			isl++
		}
		t.BlockSize, t.ISLBlocks = fleet.Some(r.Replay.BlockSize), fleet.Some(isl)
		if r.HitRate != nil {
			overlap := math.Round(*r.HitRate * float64(isl))
			if !(overlap >= 0 && overlap <= maxBlocks) {
				return Trace{}, errTraceField
			}
			t.OverlapBlocks = fleet.Some(uint64(overlap))
		}
	}
	if !t.withinLimits() {
		return Trace{}, errTraceField
	}
	return t, nil
}

// withinLimits reports whether the values are small enough that sums of them do not
// overflow.
func (t *Trace) withinLimits() bool {
	for _, o := range [...]fleet.Opt[uint64]{t.BlockSize, t.InputTokens, t.CachedTokens, t.OutputTokens, t.QueueDepth} {
		if o.V > maxTokens {
			return false
		}
	}
	for _, o := range [...]fleet.Opt[float64]{t.TTFT, t.InterToken, t.Duration} {
		if o.V < 0 || o.V > maxSeconds {
			return false
		}
	}
	return t.ISLBlocks.V <= maxBlocks
}

func traceWorker(id *uint64, rank *uint32) fleet.Opt[TraceWorker] {
	if id == nil {
		return fleet.Opt[TraceWorker]{}
	}
	w := TraceWorker{Worker: *id}
	if rank != nil {
		w.Rank = *rank
	}
	return fleet.Some(w)
}

func seconds(milli *float64) fleet.Opt[float64] {
	if milli == nil {
		return fleet.Opt[float64]{}
	}
	return fleet.Some(*milli / 1000)
}
