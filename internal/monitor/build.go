package monitor

import (
	"time"

	"dynamo-metrics/internal/fleet"
)

type number = fleet.Opt[float64]

// tick is a point in time, or a duration, in tenths of a second. Ticks count from shortly before
// the first sample, so that no time is 0. The Fleet's clock is no more exact, and there are many
// of these values, so they are small.
type tick int32

const tickLength = 100 * time.Millisecond

// ticks converts a duration.
func ticks(d time.Duration) tick { return tick(d / tickLength) }

func (t tick) duration() time.Duration { return time.Duration(t) * tickLength }

// row is one worker at one endpoint, or one of its data parallel ranks. The web page shows it as a
// cell of the heat map and a row of the table. It is valid for one sample.
type row struct {
	*rowHistory
	endpoint     *endpointStats
	label        string // its id, as in the label worker_id
	model        string // may be empty
	load         load
	passAge      fleet.Opt[time.Duration] // since its engine last reported a forward pass
	hits         *workerHits              // of the whole worker; nil if there are none
	publishes    bool                     // it publishes its loads as events
	unregistered bool                     // its registration is gone: metrics and aggregates leave it out
}

// load is the part of a fleet.Load that a row shows. It is zero if there is none.
type load struct {
	known                                                       bool
	age                                                         time.Duration
	kvActive, kvTotal, slotsActive, slotsTotal, waitingRequests fleet.Opt[uint64]
	cacheUsage                                                  number
}

func newLoad(l *fleet.Load, age time.Duration) load {
	return load{true, age, l.KVActive, l.KVTotal, l.ActiveSlots, l.TotalSlots, l.Waiting, l.CacheUsage}
}

// kvUsage returns the fraction of the KV cache that is in use.
func (l *load) kvUsage() number { return l.cacheUsage }

// slotUsage returns the fraction of the request slots that are in use.
func (l *load) slotUsage() number {
	return number{V: float64(l.slotsActive.V) / float64(max(1, l.slotsTotal.V)), OK: l.slotsActive.OK && l.slotsTotal.V > 0}
}

// waiting returns the number of requests that wait.
func (l *load) waiting() number {
	return number{V: float64(l.waitingRequests.V), OK: l.waitingRequests.OK}
}

// hitRate covers the last five minutes, hitRateTotal the time since the counters began.
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

// aggregate sums up the workers of an endpoint, or of the fleet, that metrics show. A worker
// counts once, however many ranks it has.
type aggregate struct {
	answering, silent, unregistered, malformed int
	shown                                      int // workers that metrics show

	kvUsage, kvBlocks fleet.Spread
	slotUsage         fleet.Spread // the fraction in use
	waiting           partialSum   // requests
	waitingWorkers    int          // workers at which requests wait
	running           partialSum   // requests
	queuedTokens      partialSum   // prefill tokens of the requests that wait

	hitsTotal  hitBlocks // since the counters began
	hitsRecent hitBlocks // over the last five minutes
}

// workers returns the number of known workers in any state.
func (agg *aggregate) workers() int {
	return agg.answering + agg.silent + agg.unregistered + agg.malformed
}

// addWorker counts one worker that metrics show.
func (agg *aggregate) addWorker(w *fleet.WorkerState) {
	if w.State != 0 {
		agg.shown++
	}
	if !w.Load.OK {
		return
	}
	l := &w.Load.V
	agg.waiting.add(l.Waiting)
	if l.Waiting.V > 0 {
		agg.waitingWorkers++
	}
	agg.running.add(l.ActiveSlots)
	if l := newLoad(l, 0); l.slotUsage().OK {
		share := l.slotUsage().V
		agg.slotUsage.Merge(fleet.Spread{N: 1, Mean: share, Min: share, Max: share})
	}
	agg.queuedTokens.add(fleet.Opt[uint64]{V: w.Passes.V.QueuedTokens, OK: w.Passes.OK})
}

// merge adds all workers of another aggregate.
func (agg *aggregate) merge(o *aggregate) {
	agg.answering += o.answering
	agg.silent += o.silent
	agg.unregistered += o.unregistered
	agg.malformed += o.malformed
	agg.shown += o.shown
	agg.kvUsage.Merge(o.kvUsage)
	agg.kvBlocks.Merge(o.kvBlocks)
	agg.slotUsage.Merge(o.slotUsage)
	agg.waiting.merge(o.waiting)
	agg.waitingWorkers += o.waitingWorkers
	agg.running.merge(o.running)
	agg.queuedTokens.merge(o.queuedTokens)
	agg.hitsTotal.add(o.hitsTotal)
	agg.hitsRecent.add(o.hitsRecent)
}

// partialSum is a sum over the workers that report a value, which not all of them may do.
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

// build takes a copy of the Fleet and builds the rows, in the order of the copy, and the
// aggregates.
func (m *Monitor) build() {
	s := m.options.Fleet.AcquireSnapshot(true)
	defer m.options.Fleet.ReleaseSnapshot(s)
	m.sampleCount++
	m.rows, m.endpoints, m.overall, m.hitsUpdated, m.unregisteredRows = m.rows[:0], m.endpoints[:0], aggregate{}, 0, 0
	m.leftOut, m.previousLeftOut, m.unwrittenRows = leftOut{}, m.omitted(), 0
	m.overflow.advance(m)
	workers, unregistered := s.Workers, s.Unregistered
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		ep := m.statsFor(e)
		for j := range workers[:e.Rows] {
			ep.aggregate.addWorker(&workers[j])
			m.addWorker(ep, &workers[j], false)
		}
		workers = workers[e.Rows:]
		for len(unregistered) > 0 && unregistered[0].Endpoint == e.Endpoint {
			m.addWorker(ep, &unregistered[0], true)
			unregistered = unregistered[1:]
		}
		if ep != m.overflow {
			ep.aggregate.hitsRecent = ep.hitWindow.sum(buckets)
		}
		m.overall.merge(&ep.aggregate)
	}
	m.overall.hitsRecent.add(m.overflow.hitWindow.sum(buckets))
	m.sweep()
}

// addWorker adds the rows of one worker at an endpoint.
func (m *Monitor) addWorker(ep *endpointStats, w *fleet.WorkerState, unregistered bool) {
	h := m.countHits(ep, w)
	if w.State == 0 {
		return // the worker is gone and only its hits are left
	}
	r := row{endpoint: ep, label: w.Label, model: w.Model, hits: h, publishes: w.Publishes, unregistered: unregistered}
	if len(w.Ranks) == 0 {
		if w.Load.OK {
			r.load = newLoad(&w.Load.V, w.LoadAge)
		}
		r.passAge = fleet.Opt[time.Duration]{V: w.Passes.V.Age, OK: w.Passes.OK}
		m.updatePresence(ep, w, m.addRow(r, w, noRank, w.Source), unregistered)
		return
	}
	counted := false
	for i := range w.Ranks {
		k := &w.Ranks[i]
		r.load, r.passAge = newLoad(&k.Load, k.LoadAge), k.PassAge
		counted = m.addRow(r, w, int64(k.Number), k.Source) || counted
	}
	m.updatePresence(ep, w, counted, unregistered)
}

// updatePresence records that a worker that metrics show, or have shown, is present.
func (m *Monitor) updatePresence(ep *endpointStats, w *fleet.WorkerState, counted, unregistered bool) {
	switch {
	case counted && unregistered:
		ep.lingering++
	case counted && len(ep.departures) > 0:
		m.removeDeparture(ep, w.ID)
	}
}

// addRow adds a row if there is room, and reports whether metrics show the row or have shown it.
func (m *Monitor) addRow(r row, w *fleet.WorkerState, rank int64, source fleet.Source) (counted bool) {
	if r.endpoint == m.overflow || r.unregistered && m.unregisteredRows == maxUnregisteredRows {
		m.leftOut.rows++
		return false
	}
	if r.rowHistory = m.historyFor(r.endpoint, w.ID, rank); r.rowHistory == nil {
		m.leftOut.rows++
		return false
	}
	if r.unregistered {
		m.unregisteredRows++
	}
	r.counted = r.counted || !r.unregistered
	r.update(w.State, m.now, source)
	m.rows = append(m.rows, r)
	r.endpoint.end = len(m.rows)
	return r.counted
}

// countHits adds the worker's new hits to its endpoint's, and to its own if the worker is shown.
func (m *Monitor) countHits(ep *endpointStats, w *fleet.WorkerState) *workerHits {
	if !w.Hits.OK {
		return nil
	}
	h := m.hits[w.ID]
	if h == nil {
		h = new(workerHits)
		m.hits[w.ID] = h
		if m.sampleCount == 1 {
			h.update(w.Hits.V) // hits from before the first sample have no known time
		}
	}
	if w.State != 0 && h.window == nil {
		h.window = new(hitWindow)
	}
	isl, overlap := h.update(w.Hits.V)
	ep.aggregate.hitsTotal.add(hitBlocks{float64(h.isl), float64(h.overlap)})
	ep.hitWindow.add(isl, overlap)
	if h.window != nil {
		h.window.advance(ep.hitWindow.last)
		h.window.add(isl, overlap)
	}
	h.lastSeen = m.sampleCount
	m.hitsUpdated++
	return h
}
