package fleet

import (
	"time"

	"dynamo-metrics/internal/stats"
)

// Pass is what one rank of a worker's engine says of one forward pass of its model,
// or while it has none to do (1.1 to 1.6).
type Pass struct {
	Counter    uint64  // one more with every event of the rank, idle or not; 0: not counted
	Seconds    float64 // 0 while idle, and then it was no pass
	OutOfOrder bool    // a newer one came before it: it says nothing of the present

	Running, Waiting  uint64 // requests
	PrefillTokens     uint64 // computed
	DecodeTokens      uint64 // made
	QueuedTokens      uint64 // prefill tokens of the requests that wait
	ScheduledKVTokens uint64 // in the KV cache, of the requests that run
}

// passes is what the passes of one rank add up to.
type passes struct {
	receivedAt time.Time
	lastPass   Pass
	count      uint64
	prefill    uint64
	decode     uint64
	missed     uint64
	seconds    stats.Histogram
}

// maxGap is a gap in a counter beyond which it is not believed: it began anew.
const maxCounterGap = 1 << 32

// Pass books one forward pass.
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

// add adds the passes of a rank whose process is no more.
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
