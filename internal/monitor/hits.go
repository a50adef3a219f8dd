package monitor

import (
	"time"

	"dynamo-metrics/internal/fleet"
)

// A window of hits slides in steps of a bucket, so that "the last five minutes" are
// between four and a half and five.
const (
	bucket  = 30 * time.Second
	buckets = 10
)

// pair are blocks of input, and those of them that a cache held.
type hitBlocks struct{ isl, overlap float64 }

func (p *hitBlocks) add(o hitBlocks) { p.isl += o.isl; p.overlap += o.overlap }

// rate is the share of the blocks that a cache held; absent where there were none. To
// 0.2.1 workers may report more overlap than input, which is still all of it.
func (p hitBlocks) rate() number {
	if p.isl == 0 {
		return number{}
	}
	return fleet.Some(min(1, p.overlap/p.isl))
}

// window are the hits of the last minutes.
type hitWindow struct {
	in   [buckets]struct{ isl, overlap uint32 }
	last int64 // the bucket that is being filled
}

// turn moves the window on to a bucket.
func (w *hitWindow) advance(bucket int64) {
	for n := min(bucket-w.last, buckets); n > 0; n-- {
		w.in[(bucket-n+1)%buckets] = struct{ isl, overlap uint32 }{}
	}
	w.last = bucket
}

// add books hits in the bucket that is being filled.
func (w *hitWindow) add(isl, overlap uint64) {
	b := &w.in[w.last%buckets]
	b.isl, b.overlap = saturatingAdd(b.isl, isl), saturatingAdd(b.overlap, overlap)
}

// more is a sum that stays at its largest.
func saturatingAdd(a uint32, b uint64) uint32 { return uint32(min(uint64(a)+min(b, 1<<32-1), 1<<32-1)) }

// sum are the hits of the newest buckets, so many of them.
func (w *hitWindow) sum(n int64) (all hitBlocks) {
	for i := range n {
		b := w.in[(w.last-i+buckets)%buckets]
		all.add(hitBlocks{float64(b.isl), float64(b.overlap)})
	}
	return all
}

// hits are what is known of one worker's: the counters as they were last seen, and for
// workers that are shown a window.
type workerHits struct {
	isl, overlap uint64
	lastSeen     uint64
	window       *hitWindow
}

// book notes the counters, and returns what is new. Counters that went back began anew.
func (h *workerHits) update(c fleet.Hits) (isl, overlap uint64) {
	isl, overlap = c.ISLBlocks, c.OverlapBlocks
	if isl >= h.isl && overlap >= h.overlap {
		isl, overlap = isl-h.isl, overlap-h.overlap
	}
	h.isl, h.overlap = c.ISLBlocks, c.OverlapBlocks
	return isl, overlap
}

// normal is the hit rate that an endpoint has when all is well, learnt while it has.
type hitBaseline struct {
	rate    float64
	buckets int // from so many buckets
}

const (
	minBaselineBlocks  = 50 // of input in a bucket, below which it teaches nothing
	minBaselineBuckets = 10 // buckets: five minutes
	maxBaselineBuckets = 20 // buckets: at most so much weighs the past
)

func (n *hitBaseline) learn(p hitBlocks) {
	if p.isl < minBaselineBlocks {
		return
	}
	n.buckets++
	n.rate += (p.rate().V - n.rate) / float64(min(n.buckets, maxBaselineBuckets))
}

func (n *hitBaseline) known() bool { return n.buckets >= minBaselineBuckets }
