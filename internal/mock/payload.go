package mock

import (
	"math"
	"strconv"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// The payloads below have their fields in the order of the releases they imitate.
// A value that a load does not have is left out, as the oldest workers do.

type flatLoad struct {
	DataParallelRank *uint64   `json:"data_parallel_rank,omitempty"`
	CacheUsage       *fraction `json:"gpu_cache_usage_perc,omitempty"`
	HitRate          *fraction `json:"gpu_prefix_cache_hit_rate,omitempty"`
	KVActive         *uint64   `json:"kv_active_blocks,omitempty"`
	KVTotal          *uint64   `json:"kv_total_blocks,omitempty"`
	Waiting          *uint64   `json:"num_requests_waiting,omitempty"`
	ActiveSlots      *uint64   `json:"request_active_slots,omitempty"`
	TotalSlots       *uint64   `json:"request_total_slots,omitempty"`
}

type nestedLoad struct {
	Worker struct {
		DataParallelRank *uint64 `json:"data_parallel_rank"`
		ActiveSlots      *uint64 `json:"request_active_slots,omitempty"`
		TotalSlots       *uint64 `json:"request_total_slots,omitempty"`
		Waiting          *uint64 `json:"num_requests_waiting,omitempty"`
	} `json:"worker_stats"`
	KV struct {
		Active     *uint64   `json:"kv_active_blocks,omitempty"`
		Total      *uint64   `json:"kv_total_blocks,omitempty"`
		CacheUsage *fraction `json:"gpu_cache_usage_perc,omitempty"`
		HitRate    *fraction `json:"gpu_prefix_cache_hit_rate,omitempty"`
	} `json:"kv_stats"`
	Spec *specLoad `json:"spec_decode_stats"`
}

type specLoad struct {
	SpecTokens        *uint64  `json:"num_spec_tokens"`
	Drafts            *uint64  `json:"num_drafts"`
	DraftTokens       *uint64  `json:"num_draft_tokens"`
	AcceptedTokens    *uint64  `json:"num_accepted_tokens"`
	AcceptedPerPlaces []uint64 `json:"num_accepted_tokens_per_pos"`
}

func flat(l fleet.Load) any {
	return flatLoad{
		CacheUsage: fractionOf(l.CacheUsage), HitRate: fractionOf(l.HitRate),
		KVActive: l.KVActive.Pointer(), KVTotal: l.KVTotal.Pointer(),
		Waiting: l.Waiting.Pointer(), ActiveSlots: l.ActiveSlots.Pointer(), TotalSlots: l.TotalSlots.Pointer(),
	}
}

func flatWithRank(l fleet.Load) any {
	f := flat(l).(flatLoad)
	f.DataParallelRank = new(uint64)
	return f
}

func nested(l fleet.Load) any {
	var n nestedLoad
	n.Worker.ActiveSlots, n.Worker.TotalSlots, n.Worker.Waiting = l.ActiveSlots.Pointer(), l.TotalSlots.Pointer(), l.Waiting.Pointer()
	n.KV.Active, n.KV.Total = l.KVActive.Pointer(), l.KVTotal.Pointer()
	n.KV.CacheUsage, n.KV.HitRate = fractionOf(l.CacheUsage), fractionOf(l.HitRate)
	if l.SpecDrafts.OK || l.SpecDraftTokens.OK || l.SpecAccepted.OK {
		n.Spec = &specLoad{Drafts: l.SpecDrafts.Pointer(), DraftTokens: l.SpecDraftTokens.Pointer(), AcceptedTokens: l.SpecAccepted.Pointer()}
	}
	return n
}

// fraction is an f32 in Dynamo, and is written as Rust does: widened, with a digit
// behind the point, and null if it is no number.
type fraction float64

func fractionOf(o fleet.Opt[float64]) *fraction {
	if !o.OK {
		return nil
	}
	f := fraction(float32(o.V))
	return &f
}

// MarshalJSON implements json.Marshaler.
func (f fraction) MarshalJSON() ([]byte, error) {
	v := float64(f)
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return []byte("null"), nil
	}
	s := strconv.FormatFloat(v, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return []byte(s), nil
}
