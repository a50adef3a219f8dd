package wire

import (
	"encoding/json"
	"errors"
	"fmt"

	"dynamo-metrics/internal/fleet"
)

// LoadEvent is the load of one rank of a worker, as JSON (0.4.1 to 0.8).
type LoadEvent struct {
	Worker   uint64
	Rank     uint32
	Load     fleet.Load
	Source   fleet.Source // FromLoadEvent, or FromActiveLoad (0.8)
	Estimate bool         // a router's, not the worker's own (0.8); see ActiveLoad.IsEstimate
}

var errLoadEventWorker = errors.New("decode load event: no worker_id")

// ParseLoadEvent decodes a load event in JSON. To 0.7 it carries a load as in the
// replies to a stats poll, in 0.8 only the KV cache blocks of an ActiveLoad.
func ParseLoadEvent(b []byte) (LoadEvent, error) {
	var v struct {
		Worker  *uint64   `json:"worker_id"`
		Data    *loadData `json:"data"`
		Rank    *uint32   `json:"dp_rank"`
		Blocks  *uint64   `json:"active_decode_blocks"`
		Prefill *uint64   `json:"active_prefill_tokens"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return LoadEvent{}, fmt.Errorf("decode load event: %w", err)
	}
	if v.Worker == nil {
		return LoadEvent{}, errLoadEventWorker
	}
	e := LoadEvent{Worker: *v.Worker, Load: fleet.Load{KVActive: opt(v.Blocks)}, Source: fleet.FromActiveLoad, Estimate: v.Prefill != nil}
	if v.Rank != nil {
		e.Rank = *v.Rank
	}
	if v.Data != nil {
		e.Load, e.Rank = v.Data.load()
		e.Load.CacheUsage, e.Load.HitRate = widened(e.Load.CacheUsage), widened(e.Load.HitRate)
		e.Source, e.Estimate = fleet.FromLoadEvent, false
	}
	if e.Load == (fleet.Load{}) && !e.Estimate {
		return LoadEvent{}, errNoKnownField
	}
	return e, nil
}

// widened is the fraction as a reply to a stats poll has it. The worker has 0.4 in
// single precision; its events say 0.4, its replies 0.4000000059604645, and one that
// reports both ways must not seem to change all the time.
func widened(o fleet.Opt[float64]) fleet.Opt[float64] {
	if f := single(o); f != nil {
		return fleet.Some(float64(*f))
	}
	return fleet.Opt[float64]{}
}
