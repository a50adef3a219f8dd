package monitor

import (
	"math"
	"unsafe"

	"dynamo-metrics/internal/fleet"
)

// series is the history of the whole fleet.
type fleetHistory struct {
	loadMean, loadStd, loadMin, loadMax        floatHistory
	imbalance, hitRate, waiting, events        floatHistory
	answering, silent, unregistered, malformed floatHistory
}

// each calls f with each of them and its name.
func (s *fleetHistory) each(f func(name string, values *floatHistory)) {
	f("loadMean", &s.loadMean)
	f("loadStd", &s.loadStd)
	f("loadMin", &s.loadMin)
	f("loadMax", &s.loadMax)
	f("imbalance", &s.imbalance)
	f("hitRate", &s.hitRate)
	f("waiting", &s.waiting)
	f("events", &s.events)
	f("answering", &s.answering)
	f("silent", &s.silent)
	f("unregistered", &s.unregistered)
	f("malformed", &s.malformed)
}

// mostKept bounds the rows whose history is kept, however many workers may be tracked.
const maxHistoryRows = 65_536

// sample closes the steps that are over. Of those that nobody saw, as when the process
// was stopped, there are no values.
func (g *Monitor) recordHistory() {
	due := ticks(historyStep)
	if g.historyClock.total == 0 {
		g.historyClock.lastDue = g.now - due
	}
	for _, p := range g.endpoints {
		p.peak = max(p.peak, p.presentWorkers())
	}
	passed := int((g.now - g.historyClock.lastDue) / due)
	if passed == 0 {
		return
	}
	g.historyClock.lastDue += tick(passed) * due
	for n := min(passed, historyLength); n > 0; n-- {
		g.historyClock.total++
		g.recordStep(g.historyClock.slot(0), n == 1)
	}
	g.stats().HistoryBytes.Store(g.historyBytes())
}

// write takes a sample of everything, or of nothing if nobody saw that step.
func (g *Monitor) recordStep(slot int, seen bool) {
	of := func(v number) number { v.OK = v.OK && seen; return v }
	s, all := &g.history, &g.overall
	s.loadMean.put(slot, of(all.kvUsage.Opt(all.kvUsage.Mean)))
	s.loadStd.put(slot, of(all.kvUsage.Opt(all.kvUsage.Std)))
	s.loadMin.put(slot, of(all.kvUsage.Opt(all.kvUsage.Min)))
	s.loadMax.put(slot, of(all.kvUsage.Opt(all.kvUsage.Max)))
	s.imbalance.put(slot, of(g.worstImbalance()))
	s.hitRate.put(slot, of(all.hitsRecent.rate()))
	s.waiting.put(slot, of(all.waiting.number))
	s.events.put(slot, number{V: g.eventRate.perSecond(), OK: seen})
	for _, c := range []struct {
		to *floatHistory
		n  int
	}{{&s.answering, all.answering}, {&s.silent, all.silent}, {&s.unregistered, all.unregistered}, {&s.malformed, all.malformed}} {
		c.to.put(slot, number{V: float64(c.n), OK: seen})
	}
	for _, p := range g.endpoints {
		p.usageMean.put(slot, of(p.aggregate.kvUsage.Opt(p.aggregate.kvUsage.Mean)))
		p.usageStd.put(slot, of(p.aggregate.kvUsage.Opt(p.aggregate.kvUsage.Std)))
		p.queueHistory.put(slot, of(p.aggregate.waiting.number))
		p.peakHistory.put(slot, number{V: float64(p.peak), OK: seen})
		p.peak = p.presentWorkers()
	}
	for i := range g.rows {
		r := &g.rows[i]
		if !r.hasHistory && g.rowsWithHistory >= g.historyCapacity() {
			continue
		}
		if !r.hasHistory {
			r.hasHistory = true
			g.rowsWithHistory++
		}
		g.rowHistoryBytes += putSample(&r.kvUsages, slot, of(r.load.kvUsage()), fractionSteps) + putSample(&r.slotUsages, slot, of(r.load.slotUsage()), fractionSteps) +
			putSample(&r.waitingCounts, slot, of(r.load.waiting()), 1) + putSample(&r.hitRates, slot, of(r.hitRate()), fractionSteps)
	}
	for i := range g.counters {
		g.counters[i].closeStep(slot)
	}
	for i := range g.outages {
		g.outages[i].closeStep(slot)
	}
}

// room is for how many rows a history is kept.
func (g *Monitor) historyCapacity() int { return min(g.options.Limit, maxHistoryRows) }

// historyBytes is the memory of all that is remembered from cut to cut.
func (g *Monitor) historyBytes() int64 {
	const pointer = unsafe.Sizeof(uintptr(0))
	size := func(n int, of uintptr) int64 { return int64(n) * int64(of) }
	return g.rowHistoryBytes + size(1, unsafe.Sizeof(*g)) + size(len(g.byEndpoint), unsafe.Sizeof(endpointStats{})) + size(cap(g.rows), unsafe.Sizeof(row{})) +
		size(g.rowCount, unsafe.Sizeof(rowHistory{})+unsafe.Sizeof(rowID{})+unsafe.Sizeof(fleet.WorkerID{})+3*pointer) +
		size(g.departureCount, unsafe.Sizeof(fleet.WorkerID{})+2*pointer) +
		size(len(g.hits), unsafe.Sizeof(workerHits{})+unsafe.Sizeof(hitWindow{})+unsafe.Sizeof(fleet.WorkerID{})+pointer)
}

// imbalance is the worst endpoint's: prefill and decode differ by nature.
func (g *Monitor) worstImbalance() (worst number) {
	for _, p := range g.endpoints {
		if v := p.aggregate.kvBlocks.Imbalance(); v.OK && v.V >= worst.V {
			worst = v
		}
	}
	return worst
}

// eventsKept is about how many events came in the time that is remembered.
func (g *Monitor) eventsInHistory() (n float64) {
	for ago := range g.historyClock.kept() {
		if v := float64(g.history.events[g.historyClock.slot(ago)]); !math.IsNaN(v) {
			n += v * historyStep.Seconds()
		}
	}
	return n
}

// wall is a moment as the clock on the wall has it, in milliseconds.
func (g *Monitor) unixMilli(m tick) int64 {
	return g.sampledAt.Add((m - g.now).duration()).UnixMilli()
}
