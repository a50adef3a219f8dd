package monitor

import (
	"time"

	"dynamo-metrics/internal/fleet"
)

// A window of hits slides by one bucket at a time, so that "the last five minutes" means between
// four and a half and five minutes.
const (
	bucket  = 30 * time.Second
	buckets = 10
)

// hitBlocks are blocks of input, and those of them that a KV cache held.
type hitBlocks struct{ isl, overlap float64 }

func (p *hitBlocks) add(o hitBlocks) { p.isl += o.isl; p.overlap += o.overlap }

// rate returns the fraction of the blocks that a cache held, and nothing where there were no
// blocks. Up to 0.2.1 workers may report more overlap than input, which counts as all of it.
func (p hitBlocks) rate() number {
	if p.isl == 0 {
		return number{}
	}
	return fleet.Some(min(1, p.overlap/p.isl))
}

// hitWindow holds the hits of the last minutes.
type hitWindow struct {
	in   [buckets]struct{ isl, overlap uint32 }
	last int64 // number of the current bucket
}

// advance moves the window on to a bucket.
func (w *hitWindow) advance(bucket int64) {
	for n := min(bucket-w.last, buckets); n > 0; n-- {
		w.in[(bucket-n+1)%buckets] = struct{ isl, overlap uint32 }{}
	}
	w.last = bucket
}

// add counts hits in the current bucket.
func (w *hitWindow) add(isl, overlap uint64) {
	b := &w.in[w.last%buckets]
	b.isl, b.overlap = saturatingAdd(b.isl, isl), saturatingAdd(b.overlap, overlap)
}

// saturatingAdd adds without overflow.
func saturatingAdd(a uint32, b uint64) uint32 { return uint32(min(uint64(a)+min(b, 1<<32-1), 1<<32-1)) }

// sum returns the hits of the newest n buckets.
func (w *hitWindow) sum(n int64) (all hitBlocks) {
	for i := range n {
		b := w.in[(w.last-i+buckets)%buckets]
		all.add(hitBlocks{float64(b.isl), float64(b.overlap)})
	}
	return all
}

// workerHits holds one worker's counters as they were in the last sample, and a window for
// workers that are shown.
type workerHits struct {
	isl, overlap uint64
	lastSeen     uint64
	window       *hitWindow
}

// update stores the counters and returns their increase. Counters that decreased have restarted
// from 0.
func (h *workerHits) update(c fleet.Hits) (isl, overlap uint64) {
	isl, overlap = c.ISLBlocks, c.OverlapBlocks
	if isl >= h.isl && overlap >= h.overlap {
		isl, overlap = isl-h.isl, overlap-h.overlap
	}
	h.isl, h.overlap = c.ISLBlocks, c.OverlapBlocks
	return isl, overlap
}

// hitBaseline is the normal hit rate of an endpoint: a moving average over the buckets without a
// collapse.
type hitBaseline struct {
	rate    float64
	buckets int // number of buckets it was learnt from
}

const (
	minBaselineBlocks  = 50 // input blocks that a bucket needs to count
	minBaselineBuckets = 10 // buckets until it is known: five minutes
	maxBaselineBuckets = 20 // buckets that the average spans at most
)

func (n *hitBaseline) learn(p hitBlocks) {
	if p.isl < minBaselineBlocks {
		return
	}
	n.buckets++
	n.rate += (p.rate().V - n.rate) / float64(min(n.buckets, maxBaselineBuckets))
}

func (n *hitBaseline) known() bool { return n.buckets >= minBaselineBuckets }
