package fleet

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/stats"
)

// WorkerPage is the place of a worker's own metrics page, as far as the registry says it.
type ScrapeTarget struct {
	Instance         // at the endpoint that bears the worker's load, as far as that is known
	Transport string // Registration's, of that endpoint
	Metrics   string // host:port of the page; empty where neither registration nor model card says it
}

// Scraped is what such a page says of one rank. Its Endpoint has no name, or is empty,
// where the page does not say it.
type ScrapedValues struct {
	Endpoint
	Rank uint32
	Load Load

	// Inflight are the requests that the endpoint's handler has taken: those that wait in
	// the engine, too. Endpoints without a load have handlers as well.
	Inflight Opt[uint64]

	// Lookups in the prefix cache and those that hit, in tokens, since the engine began.
	Lookups, Hits Opt[uint64]

	Queues Queues
}

// scraped is what is known of a rank from its worker's page.
type scraped struct {
	load      Load
	queues    Queues
	scrapedAt time.Time

	lookups, hits uint64       // as of the last scrape; 0 before the first
	hitRate       Opt[float64] // of the last look-ups
}

// WorkerPages lists the registered workers that are watched, sorted as in a Snapshot; if so
// asked, those alone whose load is not whole without what their pages say.
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

// labelledPage is a page with its worker's label, to be sorted by.
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

// hasPage reports whether the page of the process is of use here. A router's is none of a
// worker, unless the process has a model card, too.
func (w *worker) isScraped() bool {
	return !w.isRouter() || slices.ContainsFunc(w.attachments, func(a attachment) bool { return a.card.OK })
}

// ownBearer is bearer of the seats that are registered and watched.
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

// isOwn reports whether the seat can show what the worker's page says.
func (a *attachment) showsScraped() bool { return a.registered && a.endpoint.watched }

// metricsAt is where the worker's page is: a process has one for all of its endpoints.
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

// isWhole reports whether events, passes and the model card say everything of the load.
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

// Scrape books what a worker's page says, all at once: what it does not say any more is
// forgotten. Nothing is booked of a worker that is not registered there any more, or by
// another process than the one whose page it was.
func (f *Fleet) RecordScrape(p ScrapeTarget, values []ScrapedValues) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.workers.get(WorkerID{Lease: p.ID})
	if a := w.attachmentAt(p.Endpoint); a == nil || !a.registered || a.Transport != p.Transport || !w.isScraped() {
		return
	}
	w.clearScraped()
	for _, named := range []bool{true, false} { // what is said of an endpoint also says which one bears the load
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

// counts reports whether there is a hit rate in it that must be worked out.
func (v *ScrapedValues) hasLookups() bool { return v.Lookups.OK && v.Hits.OK }

// seatOf is the worker's seat that the values are of; nil if it is not shown.
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

// outdate forgets what the worker's page said before, all but its counters.
func (w *worker) clearScraped() {
	for i := range w.attachments {
		for _, r := range w.attachments[i].ranks {
			if r.scraped != nil {
				r.scraped.load, r.scraped.queues = Load{}, Queues{}
			}
		}
	}
}

// forgetScraped forgets what is scraped and to be forgotten.
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

// ForgetScraped forgets what was scraped longer ago than this.
func (f *Fleet) ExpireScraped(before time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	since := f.now.Add(-before)
	for _, w := range f.workers.leased {
		f.forgetScraped(w, func(s *scraped) bool { return s.scrapedAt.Before(since) })
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
	a.stale = false // it has been heard
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

// rankOf is the number of the rank that the values are of. One that is alone on the page,
// and alone to report, is one and the same, whatever number the engine gives it.
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

// scrapedOf is what is scraped of the rank, made if there is room; nil if there is none.
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

// bookInflight takes the requests in the handler of the endpoint that bears the load for
// those being served, where nothing else says how many those are. Of a worker of several
// ranks nobody can say whose they are.
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

// count works the hit rate out: that of the look-ups since the last scrape, or since the
// engine began. Without any it stays what it was. Counters that go back are of an engine
// that has begun anew.
func (s *scraped) updateHitRate(lookups, hits uint64) {
	if lookups < s.lookups || hits < s.hits {
		s.lookups, s.hits, s.hitRate = 0, 0, Opt[float64]{}
	}
	if n := lookups - s.lookups; n > 0 {
		s.hitRate = Some(min(1, float64(hits-s.hits)/float64(n)))
	}
	s.lookups, s.hits = lookups, hits
}

// scrapedBlocks is when the number of KV cache blocks in use was scraped, if it was.
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
