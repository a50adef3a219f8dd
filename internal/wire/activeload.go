package wire

import (
	"fmt"

	"dynamo-metrics/internal/fleet"
)

// ActiveLoad is the load of one rank of a worker, sent in an Envelope (0.9 to 1.6).
// A value that the sender does not know is absent.
type ActiveLoad struct {
	Worker        uint64
	Rank          uint32
	DecodeBlocks  fleet.Opt[uint64] // KV cache blocks of requests that decode
	PrefillTokens fleet.Opt[uint64] // tokens that are still to be computed
	UsedBlocks    fleet.Opt[uint64] // all KV cache blocks in use (1.1 and later)
}

// IsEstimate reports whether a router estimated the load from the requests that it had
// sent to the worker. Routers publish on the same subject as workers (captured with 0.9.1;
// the source says so for the releases around it). A router always sets the number of
// prefill tokens, and a worker never does. The publisher's id does not help: it is random
// from 1.3 on.
func (l ActiveLoad) IsEstimate() bool { return l.PrefillTokens.OK }

// KVActive returns how many KV cache blocks are in use. It prefers the engine's count to
// the scheduler's.
func (l ActiveLoad) KVActive() fleet.Opt[uint64] {
	if l.UsedBlocks.OK {
		return l.UsedBlocks
	}
	return l.DecodeBlocks
}

// ParseActiveLoad decodes the payload of an event of TopicLoad (0.9 to 1.6).
func ParseActiveLoad(payload []byte) (ActiveLoad, error) {
	const (
		workerID = 1 << iota
		anyCount
	)
	var l ActiveLoad
	var got uint
	m := msgpackReader{b: payload}
	for range m.mapLen() {
		switch string(m.key()) {
		case "worker_id":
			l.Worker, got = m.uint(), got|workerID
		case "dp_rank":
			l.Rank = m.rank()
		case "active_decode_blocks":
			l.DecodeBlocks, got = m.optUint(), got|anyCount
		case "active_prefill_tokens":
			l.PrefillTokens, got = m.optUint(), got|anyCount
		case "kv_used_blocks":
			l.UsedBlocks, got = m.optUint(), got|anyCount
		default:
			m.skipValue()
		}
	}
	// An event without any of the three counts, even as nil, is from an unknown release.
	m.require(got, workerID|anyCount)
	if err := m.finish(); err != nil {
		return ActiveLoad{}, fmt.Errorf("decode active load: %w", err)
	}
	return l, nil
}
