package mock

import (
	"math"
	"strconv"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// The fields of all payloads are in the order in which the imitated releases write them.
// Values that a load does not have are omitted, as the oldest workers do.

type flatLoad struct {
	DataParallelRank *uint64      `json:"data_parallel_rank,omitempty"`
	CacheUsage       *rustFloat32 `json:"gpu_cache_usage_perc,omitempty"`
	HitRate          *rustFloat32 `json:"gpu_prefix_cache_hit_rate,omitempty"`
	KVActive         *uint64      `json:"kv_active_blocks,omitempty"`
	KVTotal          *uint64      `json:"kv_total_blocks,omitempty"`
	Waiting          *uint64      `json:"num_requests_waiting,omitempty"`
	ActiveSlots      *uint64      `json:"request_active_slots,omitempty"`
	TotalSlots       *uint64      `json:"request_total_slots,omitempty"`
}

type nestedLoad struct {
	Worker struct {
		DataParallelRank *uint64 `json:"data_parallel_rank"`
		ActiveSlots      *uint64 `json:"request_active_slots,omitempty"`
		TotalSlots       *uint64 `json:"request_total_slots,omitempty"`
		Waiting          *uint64 `json:"num_requests_waiting,omitempty"`
	} `json:"worker_stats"`
	KV struct {
		Active     *uint64      `json:"kv_active_blocks,omitempty"`
		Total      *uint64      `json:"kv_total_blocks,omitempty"`
		CacheUsage *rustFloat32 `json:"gpu_cache_usage_perc,omitempty"`
		HitRate    *rustFloat32 `json:"gpu_prefix_cache_hit_rate,omitempty"`
	} `json:"kv_stats"`
	Spec *specLoad `json:"spec_decode_stats"`
}

type specLoad struct {
	SpecTokens          *uint64  `json:"num_spec_tokens"`
	Drafts              *uint64  `json:"num_drafts"`
	DraftTokens         *uint64  `json:"num_draft_tokens"`
	AcceptedTokens      *uint64  `json:"num_accepted_tokens"`
	AcceptedPerPosition []uint64 `json:"num_accepted_tokens_per_pos"`
}

func flatData(l fleet.Load) any {
	return flatLoad{
		CacheUsage: newRustFloat32(l.CacheUsage, 64), HitRate: newRustFloat32(l.HitRate, 64),
		KVActive: l.KVActive.Pointer(), KVTotal: l.KVTotal.Pointer(),
		Waiting: l.Waiting.Pointer(), ActiveSlots: l.ActiveSlots.Pointer(), TotalSlots: l.TotalSlots.Pointer(),
	}
}

func flatDataWithRank(l fleet.Load) any {
	f := flatData(l).(flatLoad)
	f.DataParallelRank = new(uint64)
	return f
}

// noData returns the data of workers without a stats handler.
func noData(fleet.Load) any { return nil }

func nestedData(l fleet.Load) any { return newNestedLoad(l, 64) }

func newNestedLoad(l fleet.Load, bits int) any {
	var n nestedLoad
	n.Worker.ActiveSlots, n.Worker.TotalSlots, n.Worker.Waiting = l.ActiveSlots.Pointer(), l.TotalSlots.Pointer(), l.Waiting.Pointer()
	n.KV.Active, n.KV.Total = l.KVActive.Pointer(), l.KVTotal.Pointer()
	n.KV.CacheUsage, n.KV.HitRate = newRustFloat32(l.CacheUsage, bits), newRustFloat32(l.HitRate, bits)
	if l.SpecDrafts.OK || l.SpecDraftTokens.OK || l.SpecAccepted.OK {
		n.Spec = &specLoad{Drafts: l.SpecDrafts.Pointer(), DraftTokens: l.SpecDraftTokens.Pointer(), AcceptedTokens: l.SpecAccepted.Pointer()}
	}
	return n
}

// encodeLoad06 encodes a load event of 0.6, which is JSON.
func encodeLoad06(worker uint64, l fleet.Load) (event []byte, known bool) {
	return mustJSON(struct {
		Worker uint64 `json:"worker_id"`
		Data   any    `json:"data"`
	}{worker, newNestedLoad(l, 32)}), l != (fleet.Load{})
}

// rustFloat32 is an f32 of Dynamo. It is encoded as by Rust: with a digit after the point, and as
// null if it is NaN or infinite. In replies to a stats poll it is widened to 64 bits first.
type rustFloat32 struct {
	v    float32
	bits int // 64 if it is widened, else 32
}

func newRustFloat32(o fleet.Opt[float64], bits int) *rustFloat32 {
	if !o.OK {
		return nil
	}
	return &rustFloat32{float32(o.V), bits}
}

// MarshalJSON implements json.Marshaler.
func (f rustFloat32) MarshalJSON() ([]byte, error) { return formatRustFloat(float64(f.v), f.bits), nil }

func formatRustFloat(v float64, bits int) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return []byte("null")
	}
	s := strconv.FormatFloat(v, 'g', -1, bits)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return []byte(s)
}
