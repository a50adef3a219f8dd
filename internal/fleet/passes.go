package fleet

import (
	"time"

	"dynamo-metrics/internal/stats"
)

// Pass is a report of one rank of a worker's engine about one forward pass of its model, or
// about an idle period (1.1 to 1.6).
type Pass struct {
	Counter    uint64  // grows by one with every event of the rank, idle or not; 0 if the engine does not count
	Seconds    float64 // duration; 0 if the rank was idle, so that there was no pass
	OutOfOrder bool    // a newer report was received before it: it does not describe the present

	Running, Waiting  uint64 // requests
	PrefillTokens     uint64 // prefill tokens computed
	DecodeTokens      uint64 // output tokens generated
	QueuedTokens      uint64 // prefill tokens of waiting requests
	ScheduledKVTokens uint64 // tokens of running requests in the KV cache
}

// passes has the sums over the forward passes of one rank.
type passes struct {
	receivedAt time.Time
	lastPass   Pass
	count      uint64
	prefill    uint64
	decode     uint64
	missed     uint64
	seconds    stats.Histogram
}

// maxCounterGap is the smallest gap in a counter that is not counted as missed events. The
// counter has probably restarted.
const maxCounterGap = 1 << 32

// RecordForwardPass records one forward pass.
func (f *Fleet) RecordForwardPass(from Origin, p Pass) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, ranks := f.origin(from)
	if w == nil {
		return
	}
	if r := f.ensureRank(w, ranks, from.Rank); r != nil {
		if r.passes == nil {
			r.passes = &passes{seconds: stats.NewHistogram(stats.PassBounds)}
		}
		r.passes.record(p, f.now)
	}
}

// add adds the passes of a rank of a former process.
func (r *passes) add(o *passes) {
	r.count += o.count
	r.missed += o.missed
	r.prefill += o.prefill
	r.decode += o.decode
	r.seconds.Add(&o.seconds)
}

func (r *passes) record(p Pass, now time.Time) {
	if !p.OutOfOrder {
		if gap := p.Counter - r.lastPass.Counter - 1; r.lastPass.Counter > 0 && p.Counter > r.lastPass.Counter && gap < maxCounterGap {
			r.missed += gap
		}
		r.receivedAt, r.lastPass = now, p
	}
	if p.Seconds == 0 {
		return
	}
	r.count++
	r.prefill += p.PrefillTokens
	r.decode += p.DecodeTokens
	r.seconds.Observe(p.Seconds)
}
