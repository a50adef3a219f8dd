package wire

import (
	"encoding/json"
	"errors"
	"fmt"
)

// HitRate is one KV hit-rate event: a router's word on how much of a request's
// input the chosen worker had in its KV cache.
type HitRate struct {
	Worker        uint64 // lease id
	ISLBlocks     uint64 // blocks of the input; never above 1 to 0.2.1
	OverlapBlocks uint64 // those of them in the cache; may exceed ISLBlocks to 0.2.1
}

// maxBlocks bounds one event. No prompt has four billion blocks; without a bound
// one forged event could make the sums wrap, and a counter go back.
const maxBlocks = 1 << 32

var errHitRateField = errors.New("decode hit-rate event: worker_id, isl_blocks or overlap_blocks is missing or out of range")

// ParseHitRate decodes a hit-rate event (JSON, all releases to 0.8).
func ParseHitRate(b []byte) (HitRate, error) {
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
