package wire

import (
	"encoding/json"
	"math"

	"dynamo-metrics/internal/fleet"
)

// l2cLoad is a load as the original published it, whichever release it came from:
// flat, the fractions in single precision. What is not known is left out.
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

// L2C encodes the original's l2c event, in its later form, for one endpoint: the
// loads of workers, and the spread of their blocks in use.
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

// single is the fraction as the worker had it before it was widened for the wire.
// What JSON has no number for, such as one too large for single precision, is left out.
func singlePrecision(o fleet.Opt[float64]) *float32 {
	f := float32(o.V)
	if !o.OK || math.IsInf(float64(f), 0) || math.IsNaN(o.V) {
		return nil
	}
	return &f
}
