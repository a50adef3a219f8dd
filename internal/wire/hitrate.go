package wire

import (
	"encoding/json"
	"errors"
	"fmt"
)

// HitRate is one KV hit-rate event (up to 0.9). A router reports with it how much of a
// request's input the chosen worker had in its KV cache.
type HitRate struct {
	Worker        uint64 // lease id
	ISLBlocks     uint64 // blocks of the input; at most 1 up to 0.2.1
	OverlapBlocks uint64 // blocks of the input that are in the cache; may exceed ISLBlocks up to 0.2.1
}

// maxBlocks is the limit of the blocks in one event. No prompt has four billion blocks.
// Without a limit one forged event could overflow the sums, and a counter would decrease.
const maxBlocks = 1 << 32

var errHitRateField = errors.New("decode hit-rate event: worker_id, isl_blocks or overlap_blocks is missing or out of range")

// ParseHitRate decodes a hit-rate event in JSON (all releases up to 0.8). From 0.6 on the
// event also names the rank, which is not read.
func ParseHitRate(b []byte) (HitRate, error) {
	if h, ok := scanHitRate(b); ok {
		return h, nil
	}
	return unmarshalHitRate(b)
}

// scanHitRate is the fast path of ParseHitRate. It accepts exactly the bytes that routers
// send (with a rank from 0.6 on), and nothing else.
func scanHitRate(s jsonScanner) (h HitRate, ok bool) {
	i := s.literal(0, `{"worker_id":`)
	h.Worker, i = s.uint(i)
	if rank := s.literal(i, `,"dp_rank":`); rank <= len(s) {
		_, i = s.uint(rank)
	}
	h.ISLBlocks, i = s.uint(s.literal(i, `,"isl_blocks":`))
	h.OverlapBlocks, i = s.uint(s.literal(i, `,"overlap_blocks":`))
	ok = s.literal(i, "}") == len(s) && h.ISLBlocks <= maxBlocks && h.OverlapBlocks <= maxBlocks
	return h, ok
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

// ParseHitRateMsgpack decodes the payload of an event of TopicHitRate (0.9).
func ParseHitRateMsgpack(payload []byte) (HitRate, error) {
	const (
		workerID = 1 << iota
		islBlocks
		overlapBlocks
		all = 1<<iota - 1
	)
	var h HitRate
	var got uint
	m := msgpackReader{b: payload}
	for range m.mapLen() {
		switch string(m.key()) {
		case "worker_id":
			h.Worker, got = m.uint(), got|workerID
		case "isl_blocks":
			h.ISLBlocks, got = m.boundedUint(maxBlocks), got|islBlocks
		case "overlap_blocks":
			h.OverlapBlocks, got = m.boundedUint(maxBlocks), got|overlapBlocks
		default:
			m.skipValue()
		}
	}
	m.require(got, all)
	if err := m.finish(); err != nil {
		return HitRate{}, fmt.Errorf("decode hit-rate event: %w", err)
	}
	return h, nil
}
