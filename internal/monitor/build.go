package monitor

import (
	"time"

	"dynamo-metrics/internal/fleet"
)

type number = fleet.Opt[float64]

// moment is a time in tenths of a second since shortly before the first cut: never 0.
// As exact as the Fleet's clock is, and small: there are many.
type tick int32

const tickLength = 100 * time.Millisecond

// span is a duration in moments.
func ticks(d time.Duration) tick { return tick(d / tickLength) }

func (m tick) duration() time.Duration { return time.Duration(m) * tickLength }

// row is one worker at one endpoint, or one data parallel rank of it: a cell, and a
// line of the table. It is valid for one cut.
type row struct {
	*rowHistory
	endpoint     *endpointStats
	label        string // its id as in the label worker_id
	model        string // may be empty
	load         load
	passAge      fleet.Opt[time.Duration] // since its engine has reported a forward pass
	hits         *workerHits              // of the whole worker; nil: none
	publishes    bool                     // its loads come as events
	unregistered bool                     // no metric shows it, and the sums leave it out
}

// burden is what is shown of a load; the zero one if there is none.
type load struct {
	known                                                       bool
	age                                                         time.Duration
	kvActive, kvTotal, slotsActive, slotsTotal, waitingRequests fleet.Opt[uint64]
	cacheUsage                                                  number
}

func newLoad(l *fleet.Load, age time.Duration) load {
	return load{true, age, l.KVActive, l.KVTotal, l.ActiveSlots, l.TotalSlots, l.Waiting, l.CacheUsage}
}

// use is KV use.
func (b *load) kvUsage() number { return b.cacheUsage }

// slots is the share of its request slots that is in use.
func (b *load) slotUsage() number {
	return number{V: float64(b.slotsActive.V) / float64(max(1, b.slotsTotal.V)), OK: b.slotsActive.OK && b.slotsTotal.V > 0}
}

// waiting are the requests that wait.
func (b *load) waiting() number {
	return number{V: float64(b.waitingRequests.V), OK: b.waitingRequests.OK}
}

// hitRate is that of the last five minutes, hitRateTotal since the counters began.
func (r *row) hitRate() number {
	if r.hits == nil || r.hits.window == nil {
		return number{}
	}
	return r.hits.window.sum(buckets).rate()
}

func (r *row) hitRateTotal() number {
	if r.hits == nil {
		return number{}
	}
	return hitBlocks{float64(r.hits.isl), float64(r.hits.overlap)}.rate()
}

// sums are over the workers of an endpoint, or of the fleet: those that metrics show.
// A worker counts once, however many ranks it has.
type aggregate struct {
	answering, silent, unregistered, malformed int
	shown                                      int // workers that metrics show

	kvUsage, kvBlocks fleet.Spread
	slotUsage         fleet.Spread // the share in use
	waiting           partialSum   // requests
	waitingWorkers    int          // where some wait
	running           partialSum   // requests
	queuedTokens      partialSum   // prefill tokens of requests that wait

	hitsTotal  hitBlocks // of the hits, since the counters began
	hitsRecent hitBlocks // of the last five minutes
}

// workers are all that are known to exist.
func (s *aggregate) workers() int { return s.answering + s.silent + s.unregistered + s.malformed }

// add counts one worker that metrics show.
func (s *aggregate) addWorker(w *fleet.WorkerState) {
	if w.State != 0 {
		s.shown++
	}
	if !w.Load.OK {
		return
	}
	l := &w.Load.V
	s.waiting.add(l.Waiting)
	if l.Waiting.V > 0 {
		s.waitingWorkers++
	}
	s.running.add(l.ActiveSlots)
	if b := newLoad(l, 0); b.slotUsage().OK {
		share := b.slotUsage().V
		s.slotUsage.Merge(fleet.Spread{N: 1, Mean: share, Min: share, Max: share})
	}
	s.queuedTokens.add(fleet.Opt[uint64]{V: w.Passes.V.QueuedTokens, OK: w.Passes.OK})
}

// merge adds all workers of another.
func (s *aggregate) merge(o *aggregate) {
	s.answering += o.answering
	s.silent += o.silent
	s.unregistered += o.unregistered
	s.malformed += o.malformed
	s.shown += o.shown
	s.kvUsage.Merge(o.kvUsage)
	s.kvBlocks.Merge(o.kvBlocks)
	s.slotUsage.Merge(o.slotUsage)
	s.waiting.merge(o.waiting)
	s.waitingWorkers += o.waitingWorkers
	s.running.merge(o.running)
	s.queuedTokens.merge(o.queuedTokens)
	s.hitsTotal.add(o.hitsTotal)
	s.hitsRecent.add(o.hitsRecent)
}

// count is a sum over those workers that say something of it, which not all may.
type partialSum struct {
	number
	workers int
}

func (c *partialSum) add(o fleet.Opt[uint64]) {
	if o.OK {
		c.merge(partialSum{fleet.Some(float64(o.V)), 1})
	}
}

func (c *partialSum) merge(o partialSum) {
	c.V, c.OK = c.V+o.V, c.OK || o.OK
	c.workers += o.workers
}

// take makes the cut: the rows, in the order of the Snapshot, and what they add up to.
func (g *Monitor) build() {
	s := g.options.Fleet.AcquireSnapshot(true)
	defer g.options.Fleet.ReleaseSnapshot(s)
	g.sampleCount++
	g.rows, g.endpoints, g.overall, g.hitsUpdated, g.unregisteredRows = g.rows[:0], g.endpoints[:0], aggregate{}, 0, 0
	g.leftOut, g.previousLeftOut, g.unwrittenRows = leftOut{}, g.omitted(), 0
	g.overflow.advance(g)
	workers, outside := s.Workers, s.Unregistered
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		p := g.statsFor(e)
		for j := range workers[:e.Rows] {
			p.aggregate.addWorker(&workers[j])
			g.addWorker(p, &workers[j], false)
		}
		workers = workers[e.Rows:]
		for len(outside) > 0 && outside[0].Endpoint == e.Endpoint {
			g.addWorker(p, &outside[0], true)
			outside = outside[1:]
		}
		if p != g.overflow {
			p.aggregate.hitsRecent = p.hitWindow.sum(buckets)
		}
		g.overall.merge(&p.aggregate)
	}
	g.overall.hitsRecent.add(g.overflow.hitWindow.sum(buckets))
	g.sweep()
}

// worker adds the rows of one worker at an endpoint.
func (g *Monitor) addWorker(p *endpointStats, w *fleet.WorkerState, outside bool) {
	h := g.countHits(p, w)
	if w.State == 0 {
		return // of whom only hits are left
	}
	r := row{endpoint: p, label: w.Label, model: w.Model, hits: h, publishes: w.Publishes, unregistered: outside}
	if len(w.Ranks) == 0 {
		if w.Load.OK {
			r.load = newLoad(&w.Load.V, w.LoadAge)
		}
		r.passAge = fleet.Opt[time.Duration]{V: w.Passes.V.Age, OK: w.Passes.OK}
		g.updatePresence(p, w, g.addRow(r, w, noRank, w.Source), outside)
		return
	}
	counted := false
	for i := range w.Ranks {
		k := &w.Ranks[i]
		r.load, r.passAge = newLoad(&k.Load, k.LoadAge), k.PassAge
		counted = g.addRow(r, w, int64(k.Number), k.Source) || counted
	}
	g.updatePresence(p, w, counted, outside)
}

// count notes that a worker is there, which metrics have shown.
func (g *Monitor) updatePresence(p *endpointStats, w *fleet.WorkerState, counted, outside bool) {
	switch {
	case counted && outside:
		p.lingering++
	case counted && len(p.departures) > 0:
		g.removeDeparture(p, w.ID)
	}
}

// row adds one, if there is room. It reports whether metrics show it, or have.
func (g *Monitor) addRow(r row, w *fleet.WorkerState, rank int64, source fleet.Source) (counted bool) {
	if r.endpoint == g.overflow || r.unregistered && g.unregisteredRows == maxUnregisteredRows {
		g.leftOut.rows++
		return false
	}
	if r.rowHistory = g.historyFor(r.endpoint, w.ID, rank); r.rowHistory == nil {
		g.leftOut.rows++
		return false
	}
	if r.unregistered {
		g.unregisteredRows++
	}
	r.counted = r.counted || !r.unregistered
	r.update(w.State, g.now, source)
	g.rows = append(g.rows, r)
	r.endpoint.end = len(g.rows)
	return r.counted
}

// book adds the worker's new hits to the endpoint's, and to its own if it is shown.
func (g *Monitor) countHits(p *endpointStats, w *fleet.WorkerState) *workerHits {
	if !w.Hits.OK {
		return nil
	}
	h := g.hits[w.ID]
	if h == nil {
		h = new(workerHits)
		g.hits[w.ID] = h
		if g.sampleCount == 1 {
			h.update(w.Hits.V) // of before we looked: nobody knows when
		}
	}
	if w.State != 0 && h.window == nil {
		h.window = new(hitWindow)
	}
	isl, overlap := h.update(w.Hits.V)
	p.aggregate.hitsTotal.add(hitBlocks{float64(h.isl), float64(h.overlap)})
	p.hitWindow.add(isl, overlap)
	if h.window != nil {
		h.window.advance(p.hitWindow.last)
		h.window.add(isl, overlap)
	}
	h.lastSeen = g.sampleCount
	g.hitsUpdated++
	return h
}
