package wire

import (
	"encoding/json"
	"math"

	"dynamo-metrics/internal/fleet"
)

// l2cLoad is a load as the original published it for workers of any release: flat, with
// the fractions in single precision. Unknown values are omitted.
type l2cLoad struct {
	ActiveSlots  *uint64  `json:"request_active_slots,omitempty"`
	TotalSlots   *uint64  `json:"request_total_slots,omitempty"`
	ActiveBlocks *uint64  `json:"kv_active_blocks,omitempty"`
	TotalBlocks  *uint64  `json:"kv_total_blocks,omitempty"`
	Waiting      *uint64  `json:"num_requests_waiting,omitempty"`
	CacheUsage   *float32 `json:"gpu_cache_usage_perc,omitempty"`
	HitRate      *float32 `json:"gpu_prefix_cache_hit_rate,omitempty"`
}

type l2cEndpoint struct {
	Name    string  `json:"name"`
	Subject string  `json:"subject"`
	Data    l2cLoad `json:"data"`
}

// L2C encodes the original's l2c event for one endpoint, as its last releases published it. The
// event has the workers' loads, and the mean and standard deviation of their blocks in use.
func L2C(workers []*fleet.WorkerState, load fleet.Spread) ([]byte, error) {
	event := struct {
		Endpoints map[string]l2cEndpoint `json:"endpoints"`
		LoadAvg   float64                `json:"load_avg"`
		LoadStd   float64                `json:"load_std"`
	}{make(map[string]l2cEndpoint, len(workers)), load.Mean, load.Std}
	for _, w := range workers {
		reported := &w.Load.V
		event.Endpoints[w.Label] = l2cEndpoint{
			Name:    "worker-" + w.Label,
			Subject: Subject(w.Service, w.Name, w.ID.Lease),
			Data: l2cLoad{
				ActiveSlots:  reported.ActiveSlots.Pointer(),
				TotalSlots:   reported.TotalSlots.Pointer(),
				ActiveBlocks: reported.KVActive.Pointer(),
				TotalBlocks:  reported.KVTotal.Pointer(),
				Waiting:      reported.Waiting.Pointer(),
				CacheUsage:   singlePrecision(reported.CacheUsage),
				HitRate:      singlePrecision(reported.HitRate),
			},
		}
	}
	return json.Marshal(event)
}

// singlePrecision returns the fraction as the worker had it before it was widened to a
// float64 for the wire. It returns nil for a value that JSON cannot express in single
// precision: NaN, and numbers that are too large.
func singlePrecision(o fleet.Opt[float64]) *float32 {
	f := float32(o.V)
	if !o.OK || math.IsInf(float64(f), 0) || math.IsNaN(o.V) {
		return nil
	}
	return &f
}
