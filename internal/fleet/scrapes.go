package fleet

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/stats"
)

// ScrapeTarget is the metrics endpoint of a worker, as far as the registry has it.
type ScrapeTarget struct {
	Instance         // at the endpoint with the worker's load, as far as that is known
	Transport string // of the Registration at that endpoint
	Metrics   string // host:port; empty if neither registration nor model card has it
}

// ScrapedValues is what a worker's metrics say about one rank. Endpoint lacks the name, or is
// empty, if the metrics do not have it.
type ScrapedValues struct {
	Endpoint
	Rank uint32
	Load Load

	// Inflight is the number of requests in the endpoint's handler, including those that wait
	// in the engine. Endpoints without a load have handlers, too.
	Inflight Opt[uint64]

	// Lookups and Hits count tokens in the prefix cache since the engine started.
	Lookups, Hits Opt[uint64]

	Queues Queues
}

// scraped is what the worker's own metrics last said about a rank.
type scraped struct {
	load      Load
	queues    Queues
	scrapedAt time.Time

	lookups, hits uint64       // at the last scrape; 0 before the first
	hitRate       Opt[float64] // of the last lookups
}

// ScrapeTargets returns the registered workers at watched endpoints, sorted as in a Snapshot.
// If incomplete is true, it returns only those whose load is incomplete without a scrape.
func (f *Fleet) ScrapeTargets(incomplete bool) []ScrapeTarget {
	all := f.scrapeTargets(incomplete)
	slices.SortFunc(all, func(a, b labelledTarget) int {
		return cmp.Or(compareEndpoints(a.Endpoint, b.Endpoint), strings.Compare(a.label, b.label))
	})
	targets := make([]ScrapeTarget, len(all))
	for i := range all {
		targets[i] = all[i].ScrapeTarget
	}
	return targets
}

// labelledTarget is a target with its worker's label, for sorting.
type labelledTarget struct {
	ScrapeTarget
	label string
}

func (f *Fleet) scrapeTargets(incomplete bool) []labelledTarget {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]labelledTarget, 0, len(f.workers.leased))
	for _, w := range f.workers.leased {
		a := w.scrapedAttachment("")
		if a == nil || !w.isScraped() || incomplete && w.isComplete(a) {
			continue
		}
		all = append(all, labelledTarget{ScrapeTarget{Instance{a.endpoint.Endpoint, w.id.Lease}, a.Transport, w.metricsAddress(a)}, w.label})
	}
	return all
}

// isScraped reports whether the process has metrics of a worker. A router has none, unless
// the process has a model card, too.
func (w *worker) isScraped() bool {
	return !w.isRouter() || slices.ContainsFunc(w.attachments, func(a attachment) bool { return a.card.OK })
}

// scrapedAttachment is like loadAttachment, but considers only registered attachments to watched
// endpoints.
func (w *worker) scrapedAttachment(component string) *attachment {
	var best *attachment
	for i := range w.attachments {
		a := &w.attachments[i]
		if a.showsScraped() && (component == "" || a.endpoint.Component == component) && (best == nil || a.before(best)) {
			best = a
		}
	}
	return best
}

// showsScraped reports whether scraped values can be shown at the attachment.
func (a *attachment) showsScraped() bool { return a.registered && a.endpoint.watched }

// metricsAddress returns the address of the worker's metrics endpoint. A process has one for
// all its endpoints.
func (w *worker) metricsAddress(a *attachment) string {
	if a.Metrics != "" {
		return a.Metrics
	}
	for i := range w.attachments {
		if other := &w.attachments[i]; other.registered && other.Metrics != "" {
			return other.Metrics
		}
	}
	if a.card.V.Metrics != "" {
		return a.card.V.Metrics
	}
	for i := range w.attachments {
		if other := &w.attachments[i]; other.card.V.Metrics != "" {
			return other.card.V.Metrics
		}
	}
	return ""
}

// isComplete reports whether events, forward passes and the model card have every value of
// the load.
func (w *worker) isComplete(a *attachment) bool {
	ranks := w.ranksAt(a)
	known := blockTotalOf(ranks, a.card.V)
	for i := range ranks {
		l := ranks[i].loadWithoutScrape(a.card.V, known)
		if !l.KVActive.OK || !l.KVTotal.OK || !l.ActiveSlots.OK || !l.TotalSlots.OK || !l.Waiting.OK || !l.HitRate.OK {
			return false
		}
	}
	return len(ranks) > 0
}

// RecordScrape replaces all values from the last scrape of a worker. It does nothing if the
// worker is no longer registered there, or is another process now.
func (f *Fleet) RecordScrape(target ScrapeTarget, values []ScrapedValues) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.workers.get(WorkerID{Lease: target.ID})
	if a := w.attachmentAt(target.Endpoint); a == nil || !a.registered || a.Transport != target.Transport || !w.isScraped() {
		return
	}
	w.clearScraped()
	for _, named := range []bool{true, false} { // values with an endpoint also tell which endpoint has the load
		for i := range values {
			if v := &values[i]; (v.Name != "") == named {
				f.applyScraped(w, v, values)
			}
		}
	}
	f.forgetScraped(w, func(s *scraped) bool { return s.load == Load{} })
	for i := range values {
		f.applyInflight(w, &values[i])
	}
	f.updateHitsEndpoint(w)
}

// hasLookups reports whether a hit rate can be computed from the values.
func (v *ScrapedValues) hasLookups() bool { return v.Lookups.OK && v.Hits.OK }

// attachmentOf returns the worker's attachment that the values belong to, or nil if it is not
// shown.
func (w *worker) attachmentOf(v *ScrapedValues) *attachment {
	if v.Name == "" {
		return w.scrapedAttachment(v.Component)
	}
	for i := range w.attachments {
		if a := &w.attachments[i]; a.endpoint.Component == v.Component && a.endpoint.Name == v.Name && a.showsScraped() {
			return a
		}
	}
	return nil
}

// clearScraped deletes the worker's scraped values, except counters.
func (w *worker) clearScraped() {
	for i := range w.attachments {
		for _, r := range w.attachments[i].ranks {
			if r.scraped != nil {
				r.scraped.load, r.scraped.queues = Load{}, Queues{}
			}
		}
	}
}

// forgetScraped deletes the scraped values that gone selects.
func (f *Fleet) forgetScraped(w *worker, gone func(*scraped) bool) {
	for i := range w.attachments {
		a := &w.attachments[i]
		changed := false
		for j := range a.ranks {
			if r := &a.ranks[j]; r.scraped != nil && gone(r.scraped) {
				r.scraped, changed = nil, true
			}
		}
		if changed {
			a.ranks = slices.DeleteFunc(a.ranks, func(r rank) bool { return r.isEmpty() })
			f.updateFootprint(w)
		}
	}
}

// ExpireScraped deletes the scraped values that are older than maxAge.
func (f *Fleet) ExpireScraped(maxAge time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	oldest := f.now.Add(-maxAge)
	for _, w := range f.workers.leased {
		f.forgetScraped(w, func(s *scraped) bool { return s.scrapedAt.Before(oldest) })
	}
}

func (f *Fleet) applyScraped(w *worker, v *ScrapedValues, values []ScrapedValues) {
	a := w.attachmentOf(v)
	if a == nil || v.Load == (Load{}) && !v.hasLookups() {
		return
	}
	s := f.ensureScraped(w, a, w.scrapedRank(a, v, values))
	if s == nil {
		return
	}
	a.stale = false // the worker runs
	if v.hasLookups() {
		s.updateHitRate(v.Lookups.V, v.Hits.V)
	}
	l, out := v.Load.withoutOutOfRange()
	f.Stats.AddRejected(stats.WorkerMetrics, stats.OutOfRange, out)
	s.load = s.load.fillFrom(&l)
	if v.Queues != (Queues{}) {
		s.queues = v.Queues
	}
	s.load.HitRate = s.load.HitRate.or(s.hitRate)
}

// scrapedRank returns the number of the rank that the values belong to. If only one rank is
// scraped, and only one rank reports otherwise, they are the same rank, whatever number the
// engine gives it.
func (w *worker) scrapedRank(a *attachment, v *ScrapedValues, values []ScrapedValues) uint32 {
	if slices.ContainsFunc(values, func(o ScrapedValues) bool { return o.Rank != v.Rank && o.Load != Load{} }) {
		return v.Rank
	}
	number, reporting := v.Rank, 0
	for _, r := range w.ranksAt(a) {
		if r.load.OK || r.passes != nil {
			number = r.number
			reporting++
		}
	}
	if reporting != 1 {
		return v.Rank
	}
	return number
}

// ensureScraped returns the scraped values of the rank and adds them if necessary. It returns
// nil if there is no room.
func (f *Fleet) ensureScraped(w *worker, a *attachment, number uint32) *scraped {
	r := f.ensureRank(w, &a.ranks, number)
	if r == nil {
		return nil
	}
	if r.scraped == nil {
		r.scraped = new(scraped)
	}
	r.scraped.scrapedAt = f.now
	return r.scraped
}

// applyInflight uses the requests in the handler of the endpoint with the load as the running
// requests, if no other source has those. It cannot do so for a worker of several ranks,
// because the handler does not tell which rank a request is at.
func (f *Fleet) applyInflight(w *worker, v *ScrapedValues) {
	a := w.attachmentOf(v)
	if !v.Inflight.OK || a == nil || !a.carriesLoadOf(w) || a.card.V.Ranks.V > 1 {
		return
	}
	number, ranks := uint32(0), w.ranksAt(a)
	if len(ranks) > 1 {
		return
	}
	if len(ranks) == 1 {
		number = ranks[0].number
	}
	if s := f.ensureScraped(w, a, number); s != nil {
		s.load.ActiveSlots = s.load.ActiveSlots.or(v.Inflight)
	}
}

// updateHitRate computes the hit rate of the lookups since the last scrape, or since the
// engine started. Without lookups the rate does not change. If a counter has decreased, the
// engine has restarted.
func (s *scraped) updateHitRate(lookups, hits uint64) {
	if lookups < s.lookups || hits < s.hits {
		s.lookups, s.hits, s.hitRate = 0, 0, Opt[float64]{}
	}
	if n := lookups - s.lookups; n > 0 {
		s.hitRate = Some(min(1, float64(hits-s.hits)/float64(n)))
	}
	s.lookups, s.hits = lookups, hits
}

// blocksScrapedAt returns when the number of KV cache blocks in use was scraped. It is absent
// if another source has that number.
func blocksScrapedAt(ranks []rank, card Card) Opt[time.Time] {
	var at Opt[time.Time]
	known := blockTotalOf(ranks, card)
	for i := range ranks {
		r := &ranks[i]
		if r.load.V.KVActive.OK {
			return Opt[time.Time]{}
		}
		if r.scraped != nil && r.fullLoad(card, known).KVActive.OK && (!at.OK || r.scraped.scrapedAt.After(at.V)) {
			at = Some(r.scraped.scrapedAt)
		}
	}
	return at
}
