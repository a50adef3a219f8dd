package wire

import (
	"encoding/json"
	"errors"
	"fmt"

	"dynamo-metrics/internal/fleet"
)

// HitRate is one KV hit-rate event (to 0.9): a router's word on how much of a
// request's input the chosen worker had in its KV cache.
type HitRate struct {
	Worker        uint64 // lease id
	ISLBlocks     uint64 // blocks of the input; never above 1 to 0.2.1
	OverlapBlocks uint64 // those of them in the cache; may exceed ISLBlocks to 0.2.1
}

// maxBlocks bounds one event. No prompt has four billion blocks; without a bound
// one forged event could make the sums wrap, and a counter go back.
const maxBlocks = 1 << 32

var errHitRateField = errors.New("decode hit-rate event: worker_id, isl_blocks or overlap_blocks is missing or out of range")

// ParseHitRate decodes a hit-rate event in JSON (all releases to 0.8; from 0.6 on it
// names the rank as well).
func ParseHitRate(b []byte) (HitRate, error) {
	if h, ok := scanHitRate(b); ok {
		return h, nil
	}
	return unmarshalHitRate(b)
}

const (
	hitWorker = iota
	hitRank
	hitISL
	hitOverlap
)

var hitRateKeys = keys{hitWorker: `"worker_id":`, hitRank: `"dp_rank":`, hitISL: `"isl_blocks":`, hitOverlap: `"overlap_blocks":`}

// scanHitRate is the fast path of ParseHitRate.
func scanHitRate(s scan) (h HitRate, ok bool) {
	var worker, isl, overlap fleet.Opt[uint64]
	which := -1
	i := s.open(s.space(0), '{')
	for ; s.at(i, '"'); i = s.next(i, '"') {
		switch which, i = s.member(i, hitRateKeys, which+1); which {
		case hitWorker:
			i = s.count(i, &worker)
		case hitISL:
			i = s.count(i, &isl)
		case hitOverlap:
			i = s.count(i, &overlap)
		default:
			i = s.skip(i, maxSkip)
		}
	}
	ok = s.done(s.shut(i, '}')) && worker.OK && isl.OK && overlap.OK && isl.V <= maxBlocks && overlap.V <= maxBlocks
	return HitRate{Worker: worker.V, ISLBlocks: isl.V, OverlapBlocks: overlap.V}, ok
}

// unmarshalHitRate is the slow path of ParseHitRate.
func unmarshalHitRate(b []byte) (HitRate, error) {
	var v struct {
		Worker  *uint64 `json:"worker_id"`
		ISL     *uint64 `json:"isl_blocks"`
		Overlap *uint64 `json:"overlap_blocks"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return HitRate{}, fmt.Errorf("decode hit-rate event: %w", err)
	}
	if v.Worker == nil || v.ISL == nil || v.Overlap == nil || *v.ISL > maxBlocks || *v.Overlap > maxBlocks {
		return HitRate{}, errHitRateField
	}
	return HitRate{Worker: *v.Worker, ISLBlocks: *v.ISL, OverlapBlocks: *v.Overlap}, nil
}

// ParseHitRatePack decodes the payload of an event of TopicHitRate (0.9).
func ParseHitRatePack(payload []byte) (HitRate, error) {
	var h HitRate
	var got uint
	u := unpack{b: payload}
	for range u.fields() {
		switch string(u.key()) {
		case "worker_id":
			h.Worker, got = u.uint(), got|1
		case "isl_blocks":
			h.ISLBlocks, got = u.count(maxBlocks), got|2
		case "overlap_blocks":
			h.OverlapBlocks, got = u.count(maxBlocks), got|4
		default:
			u.skip()
		}
	}
	u.require(got, 1|2|4)
	if err := u.done(); err != nil {
		return HitRate{}, fmt.Errorf("decode hit-rate event: %w", err)
	}
	return h, nil
}
