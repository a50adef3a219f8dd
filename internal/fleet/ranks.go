package fleet

import (
	"slices"
	"time"

	"dynamo-metrics/internal/stats"
)

// maxRanks bounds the data parallel ranks of one worker.
const maxRanks = 256

// Source is where the number of a worker's KV cache blocks in use came from.
type Source int

// The sources.
const (
	FromStats      Source = iota // an answer to a stats poll (to 0.5.1)
	FromLoadEvent                // the same load, published (0.4.1 to 0.7)
	FromActiveLoad               // the KV cache blocks alone, published (0.8 to 1.6)
	FromPass                     // none came, but requests of forward passes did (1.1 to 1.6)
	FromScrape                   // the worker's own metrics page, where nothing above says it
)

// String is the value of the label source.
func (s Source) String() string {
	return [...]string{"stats", "load_event", "active_load", "fpm", "scrape"}[s]
}

// kind is what a load of this source comes in.
func (s Source) kind() stats.Kind {
	if s == FromStats {
		return stats.StatsReply
	}
	return stats.LoadEvent
}

// rank is what one data parallel rank of a worker last reported. To 0.2.1, and
// mostly later too, a worker has only one, of number 0.
type rank struct {
	number     uint32
	load       Opt[Load]
	source     Source
	receivedAt time.Time // when load was received
	order      uint64    // of load among all the Fleet's: the highest is the newest
	sent       uint64    // when it was, if it says so: see Origin
	passes     *passes   // nil before its first forward pass

	scraped *scraped // nil unless its worker's page says something of it
}

// isEmpty reports whether there is nothing to remember the rank for.
func (r *rank) isEmpty() bool { return !r.load.OK && r.passes == nil && r.scraped == nil }

// rankOf is the rank of this number among some of the worker's, made if there is room; nil
// if there is none.
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

// setLoad notes a load of a rank; the newest wins. It returns the rank, nil if there is no room.
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

// forgetPolled forgets the loads that came in answers to polls.
func forgetPolled(ranks []rank) []rank {
	for i := range ranks {
		if ranks[i].source == FromStats {
			ranks[i].load = Opt[Load]{}
		}
	}
	return slices.DeleteFunc(ranks, func(r rank) bool { return r.isEmpty() })
}

// forgetBefore forgets what was received before at.
func forgetBefore(ranks []rank, at time.Time) []rank {
	return slices.DeleteFunc(ranks, func(r rank) bool {
		return r.lastReceived().Before(at)
	})
}

// heard is when the rank was last heard of.
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

// quiet is how long the polled load of a rank counts after it came, though it is published, too
// (0.4.1 to 0.5.1): what counts must not change with each message.
const polledLoadLifetime = 30 * time.Second

// supersedes reports whether the load of the rank counts, and not that of another.
func (r *rank) supersedes(o *rank) bool {
	switch {
	case o.source == FromStats && r.source == FromLoadEvent:
		return r.receivedAt.Sub(o.receivedAt) > polledLoadLifetime
	case o.source == FromLoadEvent && r.source == FromStats:
		return o.receivedAt.Sub(r.receivedAt) <= polledLoadLifetime
	}
	return r.order > o.order
}

// merged is what is known of each rank, of two lists of them.
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

// reported is the load of the rank with what its forward passes and the model card add.
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

// whole is the load of the rank, with what its worker's page says of that which is not
// known otherwise: an event stands until the next one, so that it is never the older. Its
// CacheUsage is KV use, wherever that is shown.
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

// sumLoads is the load of a worker of several ranks: the sum, and of fractions the
// mean. Of the pairs whose halves are shown together, a rank adds both or none.
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

// plus adds what is known. A sum beyond 2^64 stays at its largest: no worker has so many.
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

// mean is the mean of what is known.
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

// loadOf is the load of a worker of these ranks.
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

// newest is where the load came from and how old it is: of the newest, if there are
// several.
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

// rankStates are the ranks where there are several, in the memory of to.
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

// sumPasses sums the forward passes of the ranks, and those of before if there are any, in
// brief without the histogram.
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

// count adds the passes of a rank, or those of the processes that had the worker's id before.
func (all *Passes) add(p *passes, brief bool) {
	all.Count += p.count
	all.Missed += p.missed
	all.PrefillTokens += p.prefill
	all.DecodeTokens += p.decode
	if !brief {
		all.Seconds.Add(&p.seconds)
	}
}
