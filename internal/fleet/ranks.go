package fleet

import (
	"slices"
	"time"

	"dynamo-metrics/internal/stats"
)

// maxRanks is the largest number of data parallel ranks of one worker.
const maxRanks = 256

// Source is where a worker's number of KV cache blocks in use came from.
type Source int

// The sources.
const (
	FromStats      Source = iota // a reply to a stats poll (up to 0.5.1)
	FromLoadEvent                // the same load as an event (0.4.1 to 0.7)
	FromActiveLoad               // an event with the KV cache blocks alone (0.8 to 1.6)
	FromPass                     // no load, but numbers of requests in forward pass events (1.1 to 1.6)
	FromScrape                   // the worker's own metrics endpoint, if no other source has it
)

// String returns the value of the label source.
func (s Source) String() string {
	return [...]string{"stats", "load_event", "active_load", "fpm", "scrape"}[s]
}

// kind returns the kind of message that has a load of this source.
func (s Source) kind() stats.Kind {
	if s == FromStats {
		return stats.StatsReply
	}
	return stats.LoadEvent
}

// rank is what one data parallel rank of a worker last reported. Up to 0.2.1, and usually in
// later releases, a worker has a single rank with the number 0.
type rank struct {
	number     uint32
	load       Opt[Load]
	source     Source
	receivedAt time.Time // when load was received
	order      uint64    // number of load among all loads of the Fleet: the highest is the newest
	sent       uint64    // Origin.Sent of load
	passes     *passes   // nil before the rank's first forward pass

	scraped *scraped // nil unless the worker's own metrics have values of the rank
}

// isEmpty reports whether nothing is known of the rank.
func (r *rank) isEmpty() bool { return !r.load.OK && r.passes == nil && r.scraped == nil }

// ensureRank returns the rank with this number in ranks, which is one of the worker's lists,
// and adds it if necessary. It returns nil if there is no room.
func (f *Fleet) ensureRank(w *worker, ranks *[]rank, number uint32) *rank {
	i, found := slices.BinarySearchFunc(*ranks, number, func(r rank, n uint32) int { return int(int64(r.number) - int64(n)) })
	if found {
		return &(*ranks)[i]
	}
	if len(*ranks) >= maxRanks || !f.roomForRank(w, f.isUnregistered(w, ranks)) {
		f.Stats.CountRefused(stats.RankLimit)
		return nil
	}
	*ranks = slices.Insert(*ranks, i, rank{number: number})
	f.updateFootprint(w)
	return &(*ranks)[i]
}

// setLoad replaces the load of a rank. It returns the rank, or nil if there is no room.
func (f *Fleet) setLoad(w *worker, ranks *[]rank, number uint32, l Load, from Source) *rank {
	r := f.ensureRank(w, ranks, number)
	if r == nil {
		return nil
	}
	l, out := l.withoutOutOfRange()
	f.Stats.AddRejected(from.kind(), stats.OutOfRange, out)
	f.loadCount++
	r.load, r.source, r.receivedAt, r.order = Some(l), from, f.now, f.loadCount
	return r
}

// forgetPolled deletes the loads from poll replies.
func forgetPolled(ranks []rank) []rank {
	for i := range ranks {
		if ranks[i].source == FromStats {
			ranks[i].load = Opt[Load]{}
		}
	}
	return slices.DeleteFunc(ranks, func(r rank) bool { return r.isEmpty() })
}

// forgetBefore deletes the ranks that were last received before at.
func forgetBefore(ranks []rank, at time.Time) []rank {
	return slices.DeleteFunc(ranks, func(r rank) bool {
		return r.lastReceived().Before(at)
	})
}

// lastReceived returns when a message with the rank was last received.
func (r *rank) lastReceived() time.Time {
	at := r.receivedAt
	if r.passes != nil && r.passes.receivedAt.After(at) {
		at = r.passes.receivedAt
	}
	if r.scraped != nil && r.scraped.scrapedAt.After(at) {
		at = r.scraped.scrapedAt
	}
	return at
}

// polledLoadLifetime is how long the polled load of a rank takes precedence over a published
// one. Workers of 0.4.1 to 0.5.1 send both, and the source must not change with each message.
const polledLoadLifetime = 30 * time.Second

// supersedes reports whether the load of the rank takes precedence over that of o.
func (r *rank) supersedes(o *rank) bool {
	switch {
	case o.source == FromStats && r.source == FromLoadEvent:
		return r.receivedAt.Sub(o.receivedAt) > polledLoadLifetime
	case o.source == FromLoadEvent && r.source == FromStats:
		return o.receivedAt.Sub(r.receivedAt) <= polledLoadLifetime
	}
	return r.order > o.order
}

// mergeRanks returns the union of two lists of ranks.
func mergeRanks(a, b []rank) []rank {
	if len(b) == 0 {
		return a
	}
	if len(a) == 0 {
		return b
	}
	all := slices.Clone(a)
	for _, r := range b {
		i := slices.IndexFunc(all, func(o rank) bool { return o.number == r.number })
		if i < 0 {
			all = append(all, r)
			continue
		}
		if r.load.OK && (!all[i].load.OK || r.supersedes(&all[i])) {
			all[i].load, all[i].source, all[i].receivedAt, all[i].order = r.load, r.source, r.receivedAt, r.order
		}
		if all[i].passes == nil {
			all[i].passes = r.passes
		}
		if all[i].scraped == nil {
			all[i].scraped = r.scraped
		}
	}
	slices.SortFunc(all, func(a, b rank) int { return int(int64(a.number) - int64(b.number)) })
	return all
}

// loadWithoutScrape returns the load of the rank, completed from its forward passes and the
// model card.
func (r *rank) loadWithoutScrape(card Card, known blockTotal) Load {
	l := r.load.V
	if r.passes != nil {
		l.ActiveSlots = l.ActiveSlots.or(Some(r.passes.lastPass.Running))
		l.Waiting = l.Waiting.or(Some(r.passes.lastPass.Waiting))
	}
	l.KVTotal = l.KVTotal.or(card.KVTotal)
	l.TotalSlots = l.TotalSlots.or(card.MaxSeqs)
	return l.withBlockTotal(known, l.CacheUsage)
}

// fullLoad returns the load of the rank, completed from every source. Scraped values only
// fill gaps, because an event is valid until the next one and so is never outdated.
// CacheUsage is as defined at Load.
func (r *rank) fullLoad(card Card, known blockTotal) Load {
	l := r.loadWithoutScrape(card, known)
	var values Load
	if r.scraped != nil {
		values = r.scraped.load.withBlockTotal(known, r.scraped.load.CacheUsage)
	}
	l.KVTotal, values.KVTotal = l.KVTotal.or(values.KVTotal), Opt[uint64]{}
	l = l.withBlockTotal(known, l.CacheUsage.or(values.CacheUsage))
	if r.source == FromActiveLoad {
		l.setUsageFromBlocks()
	}
	l = l.fillFrom(&values)
	l.KVActive = l.KVActive.or(l.blocksOf(values.CacheUsage))
	if !l.CacheUsage.OK {
		l.setUsageFromBlocks()
	}
	return l
}

// sumLoads returns the load of a worker of several ranks: the sums of counts and the means of
// fractions. Used and total counts are shown together, so a rank adds both of them or neither.
func sumLoads(loads []Load) Load {
	var all Load
	var usage, hits mean
	for i := range loads {
		l := &loads[i]
		if l.KVActive.OK && l.KVTotal.OK {
			all.KVActive, all.KVTotal = addOpt(all.KVActive, l.KVActive), addOpt(all.KVTotal, l.KVTotal)
		}
		if l.ActiveSlots.OK && l.TotalSlots.OK {
			all.ActiveSlots, all.TotalSlots = addOpt(all.ActiveSlots, l.ActiveSlots), addOpt(all.TotalSlots, l.TotalSlots)
		}
		all.Waiting = addOpt(all.Waiting, l.Waiting)
		all.SpecDrafts = addOpt(all.SpecDrafts, l.SpecDrafts)
		all.SpecDraftTokens = addOpt(all.SpecDraftTokens, l.SpecDraftTokens)
		all.SpecAccepted = addOpt(all.SpecAccepted, l.SpecAccepted)
		usage.add(l.CacheUsage)
		hits.add(l.HitRate)
	}
	all.CacheUsage, all.HitRate = usage.value(), hits.value()
	return all
}

// addOpt returns the sum of two values, where an absent value counts as nothing. It does not
// overflow, but stays at the largest number.
func addOpt(a, b Opt[uint64]) Opt[uint64] {
	if !b.OK {
		return a
	}
	sum := a.V + b.V
	if sum < a.V {
		sum = 1<<64 - 1
	}
	return Some(sum)
}

// mean computes the mean of the values that are present.
type mean struct{ sum, n float64 }

func (m *mean) add(o Opt[float64]) {
	if o.OK {
		m.sum += o.V
		m.n++
	}
}

func (m *mean) value() Opt[float64] {
	if m.n == 0 {
		return Opt[float64]{}
	}
	return Some(m.sum / m.n)
}

// loadOf returns the load of a worker with these ranks.
func loadOf(ranks []rank, card Card) Load {
	known := blockTotalOf(ranks, card)
	if len(ranks) == 1 {
		return ranks[0].fullLoad(card, known)
	}
	loads := make([]Load, len(ranks))
	for i := range ranks {
		loads[i] = ranks[i].fullLoad(card, known)
	}
	return sumLoads(loads)
}

// loadSource returns the source and the age of the newest load of the ranks.
func (f *Fleet) loadSource(ranks []rank, card Card) (Source, time.Duration) {
	if at := blocksScrapedAt(ranks, card); at.OK {
		return FromScrape, max(0, f.now.Sub(at.V))
	}
	var best *rank
	for i := range ranks {
		if r := &ranks[i]; r.load.OK && (best == nil || r.order > best.order) {
			best = r
		}
	}
	if best != nil {
		return best.source, max(0, f.now.Sub(best.receivedAt))
	}
	source, received := FromScrape, time.Time{}
	for i := range ranks {
		switch r := &ranks[i]; {
		case r.passes != nil && source == FromScrape:
			source, received = FromPass, r.passes.receivedAt
		case r.passes != nil && r.passes.receivedAt.After(received):
			received = r.passes.receivedAt
		case source == FromScrape && r.scraped != nil && r.scraped.scrapedAt.After(received):
			received = r.scraped.scrapedAt
		}
	}
	return source, max(0, f.now.Sub(received))
}

// appendRankStates appends the states of the ranks to the slice to, if there are several.
func (f *Fleet) appendRankStates(to []RankState, ranks []rank, card Card) []RankState {
	if len(ranks) < 2 {
		return to
	}
	known := blockTotalOf(ranks, card)
	for i := range ranks {
		r := RankState{Number: ranks[i].number, Load: ranks[i].fullLoad(card, known)}
		r.Source, r.LoadAge = f.loadSource(ranks[i:i+1], card)
		if p := ranks[i].passes; p != nil {
			r.PassAge = Some(max(0, f.now.Sub(p.receivedAt)))
		}
		to = append(to, r)
	}
	return to
}

// sumPasses adds up the forward passes of the ranks and of earlier processes. If brief is true,
// it leaves out the histogram.
func (f *Fleet) sumPasses(all *Opt[Passes], ranks []rank, earlier *passes, brief bool) {
	for i := range ranks {
		p := ranks[i].passes
		if p == nil {
			continue
		}
		if !all.OK {
			all.OK, all.V.Age = true, f.now.Sub(p.receivedAt)
			if !brief {
				all.V.Seconds.Reset(stats.PassBounds)
			}
		}
		all.V.add(p, brief)
		all.V.QueuedTokens += p.lastPass.QueuedTokens
		all.V.ScheduledKVTokens += p.lastPass.ScheduledKVTokens
		all.V.Age = max(0, min(all.V.Age, f.now.Sub(p.receivedAt)))
	}
	if all.OK && earlier != nil {
		all.V.add(earlier, brief)
	}
}

// add adds the passes of a rank, or of earlier processes.
func (all *Passes) add(p *passes, brief bool) {
	all.Count += p.count
	all.Missed += p.missed
	all.PrefillTokens += p.prefill
	all.DecodeTokens += p.decode
	if !brief {
		all.Seconds.Add(&p.seconds)
	}
}
