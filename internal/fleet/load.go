package fleet

import "math"

// Load is what one worker last reported about itself, whichever release sent it.
type Load struct {
	ActiveSlots Opt[uint64] // requests being served
	TotalSlots  Opt[uint64] // requests that can be served at once
	Waiting     Opt[uint64] // requests queued

	KVActive Opt[uint64] // KV cache blocks in use
	KVTotal  Opt[uint64] // KV cache blocks there are

	// CacheUsage is the fraction of the KV cache in use, 0..1. In a Snapshot it is KV use,
	// the one definition of it: what the worker says itself; else, and where the blocks alone
	// are published (0.8 to 1.6), the blocks in use divided by those there are. Of a worker of
	// several ranks it is their mean.
	CacheUsage Opt[float64]
	HitRate    Opt[float64] // fraction of prefix cache look-ups that hit, 0..1

	SpecDrafts      Opt[uint64] // speculative decoding: drafts made
	SpecDraftTokens Opt[uint64] // tokens in those drafts
	SpecAccepted    Opt[uint64] // tokens of them that were accepted
}

// Queues are the parts of a queue that a disaggregated SGLang worker keeps apart. Waiting has
// all of them in it but Inflight, as SGLang itself counts.
type Queues struct {
	Bootstrap Opt[uint64] // prefill: requests that wait for their decode worker
	Inflight  Opt[uint64] // prefill: requests that are computed, and whose blocks are on their way
	Prealloc  Opt[uint64] // decode: requests that wait for room
	Transfer  Opt[uint64] // decode: requests that wait for their blocks
}

// queuesOf are the queues of a worker of these ranks.
func queuesOf(ranks []rank) (all Queues) {
	for i := range ranks {
		if s := ranks[i].scraped; s != nil {
			all.Bootstrap, all.Inflight = addOpt(all.Bootstrap, s.queues.Bootstrap), addOpt(all.Inflight, s.queues.Inflight)
			all.Prealloc, all.Transfer = addOpt(all.Prealloc, s.queues.Prealloc), addOpt(all.Transfer, s.queues.Transfer)
		}
	}
	return all
}

// filled is the load with what another says of that which is absent.
func (l Load) fillFrom(o *Load) Load {
	l.ActiveSlots = l.ActiveSlots.or(o.ActiveSlots)
	l.TotalSlots = l.TotalSlots.or(o.TotalSlots)
	l.Waiting = l.Waiting.or(o.Waiting)
	l.KVActive = l.KVActive.or(o.KVActive)
	l.KVTotal = l.KVTotal.or(o.KVTotal)
	l.CacheUsage = l.CacheUsage.or(o.CacheUsage)
	l.HitRate = l.HitRate.or(o.HitRate)
	l.SpecDrafts = l.SpecDrafts.or(o.SpecDrafts)
	l.SpecDraftTokens = l.SpecDraftTokens.or(o.SpecDraftTokens)
	l.SpecAccepted = l.SpecAccepted.or(o.SpecAccepted)
	return l
}

// or is o if it is there, else another.
func (o Opt[T]) or(another Opt[T]) Opt[T] {
	if o.OK {
		return o
	}
	return another
}

// overfull is how much above 1 a fraction may be that stands for all: engines round, and
// count blocks that they have just given away.
const fractionTolerance = 0.1

// Fraction is a fraction that a worker reports: 0 to 1, where just above 1 is 1. Anything
// else is absent, and wrong, but for NaN and -1: engines say them for what they do not know.
func Fraction(v float64) (fraction Opt[float64], wrong bool) {
	switch {
	case v >= 0 && v <= 1+fractionTolerance:
		return Some(min(v, 1)), false
	case math.IsNaN(v) || v == -1:
		return Opt[float64]{}, false
	}
	return Opt[float64]{}, true
}

// ranged is the load without what cannot be, and how many of its values that were. Counts
// have no bound: workers up to 0.7 send all 64 bits of them.
func (l Load) withoutOutOfRange() (Load, int) {
	out := 0
	for _, f := range [...]*Opt[float64]{&l.CacheUsage, &l.HitRate} {
		if !f.OK {
			continue
		}
		v, wrong := Fraction(f.V)
		if *f = v; wrong {
			out++
		}
	}
	return l, out
}

// blocks are so large a part of the KV cache in blocks, if it is known how many there are.
func (l *Load) blocksOf(part Opt[float64]) Opt[uint64] {
	if !l.KVTotal.OK || !part.OK {
		return Opt[uint64]{}
	}
	return Some(uint64(math.Round(part.V * float64(l.KVTotal.V))))
}

// divide works KV use out of the blocks. What has more in use than there is is full.
func (l *Load) setUsageFromBlocks() {
	if l.KVActive.OK && l.KVTotal.V > 0 {
		l.CacheUsage = Some(min(1, float64(l.KVActive.V)/float64(l.KVTotal.V)))
	}
}
