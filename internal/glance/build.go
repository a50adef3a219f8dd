package glance

import (
	"time"

	"dynamo-metrics/internal/fleet"
)

type number = fleet.Opt[float64]

// moment is a time in tenths of a second since shortly before the first cut: never 0.
// As exact as the Fleet's clock is, and small: there are many.
type moment int32

const tenth = 100 * time.Millisecond

// span is a duration in moments.
func span(d time.Duration) moment { return moment(d / tenth) }

func (m moment) duration() time.Duration { return time.Duration(m) * tenth }

// row is one worker at one endpoint, or one data parallel rank of it: a cell, and a
// line of the table. It is valid for one cut.
type row struct {
	*track
	of        *place
	label     string // its id as in the label worker_id
	model     string // may be empty
	load      burden
	passAge   fleet.Opt[time.Duration] // since its engine has reported a forward pass
	hits      *hits                    // of the whole worker; nil: none
	publishes bool                     // its loads come as events
	outside   bool                     // no metric shows it, and the sums leave it out
}

// burden is what is shown of a load; the zero one if there is none.
type burden struct {
	known                                             bool
	age                                               time.Duration
	kvActive, kvTotal, slotsActive, slotsTotal, waits fleet.Opt[uint64]
	cacheUsage                                        number
}

func burdenOf(l *fleet.Load, age time.Duration) burden {
	return burden{true, age, l.KVActive, l.KVTotal, l.ActiveSlots, l.TotalSlots, l.Waiting, l.CacheUsage}
}

// use is KV use.
func (b *burden) use() number { return b.cacheUsage }

// slots is the share of its request slots that is in use.
func (b *burden) slots() number {
	return number{V: float64(b.slotsActive.V) / float64(max(1, b.slotsTotal.V)), OK: b.slotsActive.OK && b.slotsTotal.V > 0}
}

// waiting are the requests that wait.
func (b *burden) waiting() number { return number{V: float64(b.waits.V), OK: b.waits.OK} }

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
	return pair{float64(r.hits.isl), float64(r.hits.overlap)}.rate()
}

// sums are over the workers of an endpoint, or of the fleet: those that metrics show.
// A worker counts once, however many ranks it has.
type sums struct {
	answering, silent, unregistered, malformed int
	shown                                      int // workers that metrics show

	use, blocks    fleet.Spread
	slots          fleet.Spread // the share in use
	waiting        count        // requests
	waitingWorkers int          // where some wait
	running        count        // requests
	queued         count        // prefill tokens of requests that wait

	total pair // of the hits, since the counters began
	last  pair // of the last five minutes
}

// workers are all that are known to exist.
func (s *sums) workers() int { return s.answering + s.silent + s.unregistered + s.malformed }

// add counts one worker that metrics show.
func (s *sums) add(w *fleet.WorkerState) {
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
	if b := burdenOf(l, 0); b.slots().OK {
		share := b.slots().V
		s.slots.Merge(fleet.Spread{N: 1, Mean: share, Min: share, Max: share})
	}
	s.queued.add(fleet.Opt[uint64]{V: w.Passes.V.QueuedTokens, OK: w.Passes.OK})
}

// merge adds all workers of another.
func (s *sums) merge(o *sums) {
	s.answering += o.answering
	s.silent += o.silent
	s.unregistered += o.unregistered
	s.malformed += o.malformed
	s.shown += o.shown
	s.use.Merge(o.use)
	s.blocks.Merge(o.blocks)
	s.slots.Merge(o.slots)
	s.waiting.merge(o.waiting)
	s.waitingWorkers += o.waitingWorkers
	s.running.merge(o.running)
	s.queued.merge(o.queued)
	s.total.add(o.total)
	s.last.add(o.last)
}

// count is a sum over those workers that say something of it, which not all may.
type count struct {
	number
	workers int
}

func (c *count) add(o fleet.Opt[uint64]) {
	if o.OK {
		c.merge(count{fleet.Some(float64(o.V)), 1})
	}
}

func (c *count) merge(o count) {
	c.V, c.OK = c.V+o.V, c.OK || o.OK
	c.workers += o.workers
}

// take makes the cut: the rows, in the order of the Snapshot, and what they add up to.
func (g *Glance) take() {
	s := g.o.Fleet.AcquireSnapshot(true)
	defer g.o.Fleet.ReleaseSnapshot(s)
	g.looks++
	g.rows, g.order, g.all, g.booked, g.outside = g.rows[:0], g.order[:0], sums{}, 0, 0
	g.leftOut, g.leftOutBefore, g.unwritten = leftOut{}, g.missed(), 0
	g.rest.turn(g)
	workers, outside := s.Workers, s.Unregistered
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		p := g.place(e)
		for j := range workers[:e.Rows] {
			p.sums.add(&workers[j])
			g.worker(p, &workers[j], false)
		}
		workers = workers[e.Rows:]
		for len(outside) > 0 && outside[0].Endpoint == e.Endpoint {
			g.worker(p, &outside[0], true)
			outside = outside[1:]
		}
		if p != g.rest {
			p.sums.last = p.window.sum(buckets)
		}
		g.all.merge(&p.sums)
	}
	g.all.last.add(g.rest.window.sum(buckets))
	g.sweep()
}

// worker adds the rows of one worker at an endpoint.
func (g *Glance) worker(p *place, w *fleet.WorkerState, outside bool) {
	h := g.book(p, w)
	if w.State == 0 {
		return // of whom only hits are left
	}
	r := row{of: p, label: w.Label, model: w.Model, hits: h, publishes: w.Publishes, outside: outside}
	if len(w.Ranks) == 0 {
		if w.Load.OK {
			r.load = burdenOf(&w.Load.V, w.LoadAge)
		}
		r.passAge = fleet.Opt[time.Duration]{V: w.Passes.V.Age, OK: w.Passes.OK}
		g.count(p, w, g.row(r, w, noRank, w.Source), outside)
		return
	}
	counted := false
	for i := range w.Ranks {
		k := &w.Ranks[i]
		r.load, r.passAge = burdenOf(&k.Load, k.LoadAge), k.PassAge
		counted = g.row(r, w, int64(k.Number), k.Source) || counted
	}
	g.count(p, w, counted, outside)
}

// count notes that a worker is there, which metrics have shown.
func (g *Glance) count(p *place, w *fleet.WorkerState, counted, outside bool) {
	switch {
	case counted && outside:
		p.lingering++
	case counted && len(p.gone) > 0:
		g.comeBack(p, w.ID)
	}
}

// row adds one, if there is room. It reports whether metrics show it, or have.
func (g *Glance) row(r row, w *fleet.WorkerState, rank int64, source fleet.Source) (counted bool) {
	if r.of == g.rest || r.outside && g.outside == mostOutside {
		g.leftOut.rows++
		return false
	}
	if r.track = g.track(r.of, w.ID, rank); r.track == nil {
		g.leftOut.rows++
		return false
	}
	if r.outside {
		g.outside++
	}
	r.counted = r.counted || !r.outside
	r.note(w.State, g.now, source)
	g.rows = append(g.rows, r)
	r.of.end = len(g.rows)
	return r.counted
}

// book adds the worker's new hits to the endpoint's, and to its own if it is shown.
func (g *Glance) book(p *place, w *fleet.WorkerState) *hits {
	if !w.Hits.OK {
		return nil
	}
	h := g.hits[w.ID]
	if h == nil {
		h = new(hits)
		g.hits[w.ID] = h
		if g.looks == 1 {
			h.book(w.Hits.V) // of before we looked: nobody knows when
		}
	}
	if w.State != 0 && h.window == nil {
		h.window = new(window)
	}
	isl, overlap := h.book(w.Hits.V)
	p.sums.total.add(pair{float64(h.isl), float64(h.overlap)})
	p.window.add(isl, overlap)
	if h.window != nil {
		h.window.turn(p.window.last)
		h.window.add(isl, overlap)
	}
	h.seen = g.looks
	g.booked++
	return h
}
