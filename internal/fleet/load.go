package fleet

import "math"

// Load is what a worker of any release last reported about itself.
type Load struct {
	ActiveSlots Opt[uint64] // running requests
	TotalSlots  Opt[uint64] // largest number of running requests
	Waiting     Opt[uint64] // waiting requests

	KVActive Opt[uint64] // KV cache blocks in use
	KVTotal  Opt[uint64] // KV cache blocks in total

	// CacheUsage is the fraction of the KV cache in use, 0 to 1. In a Snapshot it has one
	// definition for all releases: the usage that the worker reports, or else KVActive divided
	// by KVTotal. Workers that publish only their blocks in use (0.8 to 1.6) always have the
	// quotient. The usage of a worker of several ranks is the mean over its ranks.
	CacheUsage Opt[float64]
	HitRate    Opt[float64] // fraction of prefix cache lookups that hit, 0 to 1

	SpecDrafts      Opt[uint64] // speculative decoding: number of drafts
	SpecDraftTokens Opt[uint64] // tokens in those drafts
	SpecAccepted    Opt[uint64] // tokens of those drafts that were accepted
}

// Queues has the numbers of requests in the queues of a disaggregated SGLang worker.
// Load.Waiting includes all of them except Inflight, as in SGLang itself.
type Queues struct {
	Bootstrap Opt[uint64] // prefill: requests that wait for their decode worker
	Inflight  Opt[uint64] // prefill: computed requests whose KV blocks are being transferred
	Prealloc  Opt[uint64] // decode: requests that wait for KV blocks to be allocated
	Transfer  Opt[uint64] // decode: requests whose KV blocks are being received
}

// queuesOf returns the sums over the queues of the ranks.
func queuesOf(ranks []rank) (all Queues) {
	for i := range ranks {
		if s := ranks[i].scraped; s != nil {
			all.Bootstrap, all.Inflight = addOpt(all.Bootstrap, s.queues.Bootstrap), addOpt(all.Inflight, s.queues.Inflight)
			all.Prealloc, all.Transfer = addOpt(all.Prealloc, s.queues.Prealloc), addOpt(all.Transfer, s.queues.Transfer)
		}
	}
	return all
}

// fillFrom returns the load with absent values taken from another.
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

// or returns o, or another if o is absent.
func (o Opt[T]) or(another Opt[T]) Opt[T] {
	if o.OK {
		return o
	}
	return another
}

// fractionTolerance is how far above 1 a fraction may be that counts as 1. Engines round, and
// count blocks that they have just freed.
const fractionTolerance = 0.1

// Fraction checks a fraction that a worker reports. A value slightly above 1 becomes 1, and
// any other value outside 0 to 1 is absent. Wrong reports whether the value was invalid. NaN
// and -1 are not invalid, because engines report them for unknown values.
func Fraction(v float64) (fraction Opt[float64], wrong bool) {
	switch {
	case v >= 0 && v <= 1+fractionTolerance:
		return Some(min(v, 1)), false
	case math.IsNaN(v) || v == -1:
		return Opt[float64]{}, false
	}
	return Opt[float64]{}, true
}

// withoutOutOfRange returns the load without invalid fractions, and their number. Any count
// is valid, because workers up to 0.7 send all 64 bits of counts.
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

// blocksOf returns a fraction of the KV cache in blocks. It is absent if KVTotal is.
func (l *Load) blocksOf(part Opt[float64]) Opt[uint64] {
	if !l.KVTotal.OK || !part.OK {
		return Opt[uint64]{}
	}
	return Some(uint64(math.Round(part.V * float64(l.KVTotal.V))))
}

// setUsageFromBlocks sets CacheUsage to KVActive divided by KVTotal, and to at most 1.
func (l *Load) setUsageFromBlocks() {
	if l.KVActive.OK && l.KVTotal.V > 0 {
		l.CacheUsage = Some(min(1, float64(l.KVActive.V)/float64(l.KVTotal.V)))
	}
}
