package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"dynamo-metrics/internal/fleet"
)

// LoadEvent is the load of one rank of a worker, published as JSON (0.4.1 to 0.8).
type LoadEvent struct {
	Worker   uint64
	Rank     uint32
	Load     fleet.Load
	Source   fleet.Source // FromLoadEvent, or FromActiveLoad (0.8)
	Estimate bool         // published by a router, not by the worker (0.8); see ActiveLoad.IsEstimate
}

var errLoadEventWorker = errors.New("decode load event: no worker_id")

// loadEventFields are the fields of a load event.
type loadEventFields struct {
	worker, rank    fleet.Opt[uint64]
	blocks, prefill fleet.Opt[uint64] // 0.8

	hasData  bool // the event has a load of its own (up to 0.7)
	data     fleet.Load
	dataRank uint32
}

// ParseLoadEvent decodes a load event in JSON. Up to 0.7 the event has a load as in the
// replies to a stats poll. In 0.8 it has only the KV cache blocks of an ActiveLoad.
func ParseLoadEvent(b []byte) (LoadEvent, error) {
	var v loadEventFields
	if !v.scan(b) {
		v = loadEventFields{}
		if err := v.unmarshal(b); err != nil {
			return LoadEvent{}, fmt.Errorf("decode load event: %w", err)
		}
	}
	return v.event()
}

// event returns the LoadEvent that the fields describe.
func (v *loadEventFields) event() (LoadEvent, error) {
	if !v.worker.OK {
		return LoadEvent{}, errLoadEventWorker
	}
	e := LoadEvent{
		Worker: v.worker.V, Rank: uint32(v.rank.V), Load: fleet.Load{KVActive: v.blocks},
		Source: fleet.FromActiveLoad, Estimate: v.prefill.OK,
	}
	if v.hasData {
		e.Load, e.Rank = v.data, v.dataRank
		e.Load.CacheUsage, e.Load.HitRate = widen(e.Load.CacheUsage), widen(e.Load.HitRate)
		e.Source, e.Estimate = fleet.FromLoadEvent, false
	}
	if e.Load == (fleet.Load{}) && !e.Estimate {
		return LoadEvent{}, errNoKnownField
	}
	return e, nil
}

const (
	loadEventWorker = iota
	loadEventData
	loadEventRank
	loadEventBlocks
	loadEventPrefill
)

var loadEventKeys = keyList{
	loadEventWorker:  `"worker_id":`,
	loadEventData:    `"data":`,
	loadEventRank:    `"dp_rank":`,
	loadEventBlocks:  `"active_decode_blocks":`,
	loadEventPrefill: `"active_prefill_tokens":`,
}

// scan is the fast path of ParseLoadEvent.
func (v *loadEventFields) scan(s jsonScanner) (ok bool) {
	which := -1
	i := s.open(s.skipSpace(0), '{')
	for ; s.at(i, '"'); i = s.nextElement(i, '"') {
		switch which, i = s.matchKey(i, loadEventKeys, which+1); which {
		case loadEventWorker:
			i = s.optUint(i, &v.worker)
		case loadEventData:
			if v.hasData {
				return false
			}
			f := loadFields{Load: &v.data, lastKey: -1}
			i = f.scan(s, i)
			v.dataRank, v.hasData = uint32(f.rank.V), true
		case loadEventRank:
			i = s.optUint(i, &v.rank)
		case loadEventBlocks:
			i = s.optUint(i, &v.blocks)
		case loadEventPrefill:
			i = s.optUint(i, &v.prefill)
		default:
			i = s.skipValue(i, maxSkip)
		}
	}
	return s.atEnd(s.close(i, '}')) && v.rank.V <= math.MaxUint32
}

// unmarshal is the slow path of ParseLoadEvent.
func (v *loadEventFields) unmarshal(b []byte) error {
	var slow struct {
		Worker  *uint64   `json:"worker_id"`
		Data    *loadData `json:"data"`
		Rank    *uint32   `json:"dp_rank"`
		Blocks  *uint64   `json:"active_decode_blocks"`
		Prefill *uint64   `json:"active_prefill_tokens"`
	}
	if err := json.Unmarshal(b, &slow); err != nil {
		return err
	}
	v.worker, v.blocks, v.prefill = opt(slow.Worker), opt(slow.Blocks), opt(slow.Prefill)
	if slow.Rank != nil {
		v.rank = fleet.Some(uint64(*slow.Rank))
	}
	if slow.Data != nil {
		v.hasData = true
		v.data, v.dataRank = slow.Data.load()
	}
	return nil
}

// widen returns the fraction as a reply to a stats poll has it. A worker has the fraction
// in single precision: its events write 0.4, and its replies 0.4000000059604645. Without
// this, the load of a worker that reports in both ways would seem to change all the time.
func widen(o fleet.Opt[float64]) fleet.Opt[float64] {
	if f := singlePrecision(o); f != nil {
		return fleet.Some(float64(*f))
	}
	return fleet.Opt[float64]{}
}
