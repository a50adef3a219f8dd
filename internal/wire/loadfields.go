package wire

import (
	"math"

	"dynamo-metrics/internal/fleet"
)

// loadFields are the fields of a load as they are found, the fast path to what
// loadData.load makes of them.
type loadFields struct {
	*fleet.Load
	rank fleet.Opt[uint64]

	lastKey      int      // of loadKeys, that was found
	parts        loadPart // that were there, null or not
	flat, nested bool     // how the fields came
}

// The keys of a load, as 0.5.1 and later order them.
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

// part is a set of fields of a load, and of objects that they come in.
type loadPart uint8

const (
	workerPart loadPart = 1 << iota
	kvPart
	specPart
	wholePart // the object that has the halves in it, or the fields of worker and kv themselves
)

// scan reads a load into the empty one of f. In which order and from which object the
// fields come only encoding/json knows where one is there twice, or in both shapes.
func (f *loadFields) scan(s jsonScanner, i int) int {
	i = f.object(s, i, wholePart|workerPart|kvPart)
	if f.flat && f.nested || f.rank.V > math.MaxUint32 {
		return s.fail()
	}
	return i
}

// object reads an object that may have the fields of these parts.
func (f *loadFields) object(s jsonScanner, i int, in loadPart) int {
	for i = s.open(i, '{'); s.at(i, '"'); i = s.nextElement(i, '"') {
		f.lastKey, i = s.matchKey(i, loadKeys, f.lastKey+1)
		i = f.fieldValue(s, i, in)
	}
	return s.close(i, '}')
}

// field reads the value of the last key.
func (f *loadFields) fieldValue(s jsonScanner, i int, in loadPart) int {
	var count *fleet.Opt[uint64]
	var fraction *fleet.Opt[float64]
	var of loadPart
	switch f.lastKey {
	case loadRank:
		count, of = &f.rank, workerPart
	case loadActiveSlots:
		count, of = &f.ActiveSlots, workerPart
	case loadTotalSlots:
		count, of = &f.TotalSlots, workerPart
	case loadWaiting:
		count, of = &f.Waiting, workerPart
	case loadKVActive:
		count, of = &f.KVActive, kvPart
	case loadKVTotal:
		count, of = &f.KVTotal, kvPart
	case loadCacheUsage:
		fraction, of = &f.CacheUsage, kvPart
	case loadHitRate:
		fraction, of = &f.HitRate, kvPart
	case loadDrafts:
		count, of = &f.SpecDrafts, specPart
	case loadDraftTokens:
		count, of = &f.SpecDraftTokens, specPart
	case loadAccepted:
		count, of = &f.SpecAccepted, specPart
	case loadWorker:
		return f.partObject(s, i, in, workerPart)
	case loadKV:
		return f.partObject(s, i, in, kvPart)
	case loadSpec:
		return f.partObject(s, i, in, specPart)
	default:
		return s.skipValue(i, maxSkip)
	}
	f.flat = f.flat || in&wholePart != 0
	switch {
	case in&of == 0:
		return s.fail() // it is not where it belongs
	case fraction != nil:
		return s.optFloat(i, fraction)
	}
	return s.optUint(i, count)
}

// half reads the object of a part, once.
func (f *loadFields) partObject(s jsonScanner, i int, in, of loadPart) int {
	if in&wholePart == 0 || f.parts&of != 0 {
		return s.fail()
	}
	f.parts |= of
	if s.at(i, 'n') {
		return s.literal(i, "null")
	}
	f.nested = true
	return f.object(s, i, of)
}
