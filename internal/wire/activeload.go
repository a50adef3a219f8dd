package wire

import (
	"fmt"

	"dynamo-metrics/internal/fleet"
)

// ActiveLoad is the load of one rank of a worker, in an Envelope (0.9 to 1.6).
// What the sender does not know is absent.
type ActiveLoad struct {
	Worker        uint64
	Rank          uint32
	DecodeBlocks  fleet.Opt[uint64] // KV cache blocks of requests that decode
	PrefillTokens fleet.Opt[uint64] // still to be computed
	UsedBlocks    fleet.Opt[uint64] // KV cache blocks in use, whatever for (from 1.1 on)
}

// IsEstimate reports whether a router made the load up from what it had sent to the
// worker, and published it on the same subject (captured of 0.9.1; by its source, of
// releases around it). A router always says how many prefill tokens there are, and
// a worker never does. The publisher tells no more: from 1.3 on it is random.
func (l ActiveLoad) IsEstimate() bool { return l.PrefillTokens.OK }

// KVActive is how many KV cache blocks are in use: as the engine counts them, else
// as the scheduler does.
func (l ActiveLoad) KVActive() fleet.Opt[uint64] {
	if l.UsedBlocks.OK {
		return l.UsedBlocks
	}
	return l.DecodeBlocks
}

// ParseActiveLoad decodes the payload of an event of TopicLoad (0.9 to 1.6).
func ParseActiveLoad(payload []byte) (ActiveLoad, error) {
	var l ActiveLoad
	var got uint
	u := msgpackReader{b: payload}
	for range u.mapLen() {
		switch string(u.key()) {
		case "worker_id":
			l.Worker, got = u.uint(), got|1
		case "dp_rank":
			l.Rank = u.rank()
		case "active_decode_blocks":
			l.DecodeBlocks, got = u.optUint(), got|2
		case "active_prefill_tokens":
			l.PrefillTokens, got = u.optUint(), got|2
		case "kv_used_blocks":
			l.UsedBlocks, got = u.optUint(), got|2
		default:
			u.skipValue()
		}
	}
	// One that has none of the three, not even as nil, is of a release we do not know.
	u.require(got, 1|2)
	if err := u.finish(); err != nil {
		return ActiveLoad{}, fmt.Errorf("decode active load: %w", err)
	}
	return l, nil
}
