package mock

import (
	"strconv"
	"time"

	"dynamo-metrics/internal/fleet"

	"github.com/tinylib/msgp/msgp"
)

// The fields of all events are in the order in which the imitated releases write them.

// appendEnvelope appends the envelope of an event (0.9 to 1.6).
func appendEnvelope(b []byte, publisher, sequence uint64, at time.Time, topic string, payload []byte) []byte {
	b = msgp.AppendMapHeader(b, 5)
	b = appendUint(b, "publisher_id", publisher)
	b = appendUint(b, "sequence", sequence)
	b = appendUint(b, "published_at", uint64(at.UnixMilli()))
	b = msgp.AppendString(msgp.AppendString(b, "topic"), topic)
	return msgp.AppendBytes(msgp.AppendString(b, "payload"), payload)
}

// encodeLoad09 encodes a load event of 0.9. It has only the blocks in use as the scheduler
// counts them.
func encodeLoad09(worker uint64, l fleet.Load) ([]byte, bool) {
	b := msgp.AppendMapHeader(nil, 4)
	b = appendActiveLoad(b, worker, l.KVActive)
	return b, l.KVActive.OK
}

// encodeLoad16 encodes a load event of 1.6. It has only the blocks in use as the engine
// counts them, like those of real engines.
func encodeLoad16(worker uint64, l fleet.Load) ([]byte, bool) {
	b := msgp.AppendMapHeader(nil, 5)
	b = appendActiveLoad(b, worker, fleet.Opt[uint64]{})
	b = appendOpt(b, "kv_used_blocks", l.KVActive)
	return b, l.KVActive.OK
}

func appendActiveLoad(b []byte, worker uint64, decodeBlocks fleet.Opt[uint64]) []byte {
	b = appendUint(b, "worker_id", worker)
	b = appendUint(b, "dp_rank", 0)
	b = appendOpt(b, "active_decode_blocks", decodeBlocks)
	return appendOpt(b, "active_prefill_tokens", fleet.Opt[uint64]{}) // set by routers only
}

// encodeHit09 encodes a hit-rate event of 0.9.
func encodeHit09(h hit) []byte {
	b := msgp.AppendMapHeader(nil, 4)
	b = appendUint(b, "worker_id", h.worker)
	b = appendUint(b, "dp_rank", 0)
	b = appendUint(b, "isl_blocks", uint64(h.isl))
	return appendUint(b, "overlap_blocks", uint64(h.overlap))
}

// forwardPass is a forward pass of a worker's model, or an idle report.
type forwardPass struct {
	counter           uint64
	wallTime          float64 // seconds
	scheduled, queued passRequests
}

type passRequests struct {
	prefill, prefillTokens, prefillKVTokens uint64
	decode, decodeKVTokens                  uint64
}

// encodeForwardPass encodes an event of TopicForwardPass.
func encodeForwardPass(worker uint64, p forwardPass) []byte {
	b := msgp.AppendMapHeader(nil, 7)
	b = appendUint(b, "version", 1)
	b = msgp.AppendString(msgp.AppendString(b, "worker_id"), strconv.FormatUint(worker, 10))
	b = appendUint(b, "dp_rank", 0)
	b = appendUint(b, "counter_id", p.counter)
	b = appendFloat(b, "wall_time", p.wallTime)
	b = msgp.AppendMapHeader(msgp.AppendString(b, "scheduled_requests"), 7)
	b = appendPrefill(b, p.scheduled)
	b = appendUint(b, "sum_prefill_kv_tokens", p.scheduled.prefillKVTokens)
	b = appendDecode(b, p.scheduled)
	b = msgp.AppendMapHeader(msgp.AppendString(b, "queued_requests"), 6)
	b = appendPrefill(b, p.queued)
	return appendDecode(b, p.queued)
}

func appendPrefill(b []byte, r passRequests) []byte {
	b = appendUint(b, "num_prefill_requests", r.prefill)
	b = appendUint(b, "sum_prefill_tokens", r.prefillTokens)
	return appendFloat(b, "var_prefill_length", 0)
}

func appendDecode(b []byte, r passRequests) []byte {
	b = appendUint(b, "num_decode_requests", r.decode)
	b = appendUint(b, "sum_decode_kv_tokens", r.decodeKVTokens)
	return appendFloat(b, "var_decode_kv_tokens", 0)
}

func appendUint(b []byte, name string, v uint64) []byte {
	return msgp.AppendUint64(msgp.AppendString(b, name), v)
}

func appendFloat(b []byte, name string, v float64) []byte {
	return msgp.AppendFloat64(msgp.AppendString(b, name), v)
}

func appendOpt(b []byte, name string, o fleet.Opt[uint64]) []byte {
	if !o.OK {
		return msgp.AppendNil(msgp.AppendString(b, name))
	}
	return appendUint(b, name, o.V)
}
