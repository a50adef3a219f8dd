package wire

import (
	"math"

	"dynamo-metrics/internal/fleet"
)

// loadFields collects the fields of a load in one pass over its JSON. It is the fast path
// for the result of loadData.load.
type loadFields struct {
	*fleet.Load
	rank fleet.Opt[uint64]

	lastKey      int      // index in loadKeys of the last key that was found
	parts        loadPart // objects that were found, null or not
	flat, nested bool     // which shapes were found: fields at the top, fields in objects
}

// Indices in loadKeys, in the order in which 0.5.1 and later write the keys.
const (
	loadWorker = iota
	loadRank
	loadActiveSlots
	loadTotalSlots
	loadWaiting
	loadKV
	loadKVActive
	loadKVTotal
	loadCacheUsage
	loadHitRate
	loadSpec
	loadSpecTokens
	loadDrafts
	loadDraftTokens
	loadAccepted
	loadAcceptedPerPos
)

var loadKeys = keyList{
	loadWorker:         `"worker_stats":`,
	loadRank:           `"data_parallel_rank":`,
	loadActiveSlots:    `"request_active_slots":`,
	loadTotalSlots:     `"request_total_slots":`,
	loadWaiting:        `"num_requests_waiting":`,
	loadKV:             `"kv_stats":`,
	loadKVActive:       `"kv_active_blocks":`,
	loadKVTotal:        `"kv_total_blocks":`,
	loadCacheUsage:     `"gpu_cache_usage_perc":`,
	loadHitRate:        `"gpu_prefix_cache_hit_rate":`,
	loadSpec:           `"spec_decode_stats":`,
	loadSpecTokens:     `"num_spec_tokens":`,
	loadDrafts:         `"num_drafts":`,
	loadDraftTokens:    `"num_draft_tokens":`,
	loadAccepted:       `"num_accepted_tokens":`,
	loadAcceptedPerPos: `"num_accepted_tokens_per_pos":`,
}

// loadPart is a set of groups of a load's fields, each of which may have an object of its
// own.
type loadPart uint8

const (
	workerPart loadPart = 1 << iota
	kvPart
	specPart
	wholePart // the outer object: it has the objects of the parts, or the fields of worker and kv itself
)

// scan reads a load into the empty f.Load. It fails if a field is there twice or in both
// shapes: only encoding/json decides which of them counts.
func (f *loadFields) scan(s jsonScanner, i int) int {
	i = f.object(s, i, wholePart|workerPart|kvPart)
	if f.flat && f.nested || f.rank.V > math.MaxUint32 {
		return s.fail()
	}
	return i
}

// object reads an object that may have the fields of the parts in allowed.
func (f *loadFields) object(s jsonScanner, i int, allowed loadPart) int {
	for i = s.open(i, '{'); s.at(i, '"'); i = s.nextElement(i, '"') {
		f.lastKey, i = s.matchKey(i, loadKeys, f.lastKey+1)
		i = f.fieldValue(s, i, allowed)
	}
	return s.close(i, '}')
}

// fieldValue reads the value of the last key.
func (f *loadFields) fieldValue(s jsonScanner, i int, allowed loadPart) int {
	var count *fleet.Opt[uint64]
	var fraction *fleet.Opt[float64]
	var part loadPart
	switch f.lastKey {
	case loadRank:
		count, part = &f.rank, workerPart
	case loadActiveSlots:
		count, part = &f.ActiveSlots, workerPart
	case loadTotalSlots:
		count, part = &f.TotalSlots, workerPart
	case loadWaiting:
		count, part = &f.Waiting, workerPart
	case loadKVActive:
		count, part = &f.KVActive, kvPart
	case loadKVTotal:
		count, part = &f.KVTotal, kvPart
	case loadCacheUsage:
		fraction, part = &f.CacheUsage, kvPart
	case loadHitRate:
		fraction, part = &f.HitRate, kvPart
	case loadDrafts:
		count, part = &f.SpecDrafts, specPart
	case loadDraftTokens:
		count, part = &f.SpecDraftTokens, specPart
	case loadAccepted:
		count, part = &f.SpecAccepted, specPart
	case loadWorker:
		return f.partObject(s, i, allowed, workerPart)
	case loadKV:
		return f.partObject(s, i, allowed, kvPart)
	case loadSpec:
		return f.partObject(s, i, allowed, specPart)
	default:
		return s.skipValue(i, maxSkip)
	}
	f.flat = f.flat || allowed&wholePart != 0
	switch {
	case allowed&part == 0:
		return s.fail() // the field is in the wrong object
	case fraction != nil:
		return s.optFloat(i, fraction)
	}
	return s.optUint(i, count)
}

// partObject reads the object of a part. It fails if the part was there before, or if this
// is not the outer object.
func (f *loadFields) partObject(s jsonScanner, i int, allowed, part loadPart) int {
	if allowed&wholePart == 0 || f.parts&part != 0 {
		return s.fail()
	}
	f.parts |= part
	if s.at(i, 'n') {
		return s.literal(i, "null")
	}
	f.nested = true
	return f.object(s, i, part)
}
