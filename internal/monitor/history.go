package monitor

import (
	"math"
	"unsafe"

	"dynamo-metrics/internal/fleet"
)

// fleetHistory is the history of the whole fleet.
type fleetHistory struct {
	loadMean, loadStd, loadMin, loadMax        floatHistory
	imbalance, hitRate, waiting, events        floatHistory
	answering, silent, unregistered, malformed floatHistory
}

// each calls f with the name and the values of each series.
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

// maxHistoryRows bounds the rows that have a history, however large --max-workers is.
const maxHistoryRows = 65_536

// recordHistory closes the steps that have ended. Steps without any sample, for example while the
// process was stopped, have no values.
func (m *Monitor) recordHistory() {
	due := ticks(historyStep)
	if m.historyClock.total == 0 {
		m.historyClock.lastDue = m.now - due
	}
	for _, ep := range m.endpoints {
		ep.peak = max(ep.peak, ep.presentWorkers())
	}
	passed := int((m.now - m.historyClock.lastDue) / due)
	if passed == 0 {
		return
	}
	m.historyClock.lastDue += tick(passed) * due
	for n := min(passed, historyLength); n > 0; n-- {
		m.historyClock.total++
		m.recordStep(m.historyClock.slot(0), n == 1)
	}
	m.stats().HistoryBytes.Store(m.historyBytes())
}

// recordStep writes one step of every series. A step without a sample has no values.
func (m *Monitor) recordStep(slot int, seen bool) {
	ifSeen := func(v number) number { v.OK = v.OK && seen; return v }
	s, all := &m.history, &m.overall
	s.loadMean.put(slot, ifSeen(all.kvUsage.Opt(all.kvUsage.Mean)))
	s.loadStd.put(slot, ifSeen(all.kvUsage.Opt(all.kvUsage.Std)))
	s.loadMin.put(slot, ifSeen(all.kvUsage.Opt(all.kvUsage.Min)))
	s.loadMax.put(slot, ifSeen(all.kvUsage.Opt(all.kvUsage.Max)))
	s.imbalance.put(slot, ifSeen(m.worstImbalance()))
	s.hitRate.put(slot, ifSeen(all.hitsRecent.rate()))
	s.waiting.put(slot, ifSeen(all.waiting.number))
	s.events.put(slot, number{V: m.eventRate.perSecond(), OK: seen})
	for _, c := range []struct {
		to *floatHistory
		n  int
	}{{&s.answering, all.answering}, {&s.silent, all.silent}, {&s.unregistered, all.unregistered}, {&s.malformed, all.malformed}} {
		c.to.put(slot, number{V: float64(c.n), OK: seen})
	}
	for _, ep := range m.endpoints {
		ep.usageMean.put(slot, ifSeen(ep.aggregate.kvUsage.Opt(ep.aggregate.kvUsage.Mean)))
		ep.usageStd.put(slot, ifSeen(ep.aggregate.kvUsage.Opt(ep.aggregate.kvUsage.Std)))
		ep.queueHistory.put(slot, ifSeen(ep.aggregate.waiting.number))
		ep.peakHistory.put(slot, number{V: float64(ep.peak), OK: seen})
		ep.peak = ep.presentWorkers()
	}
	for i := range m.rows {
		r := &m.rows[i]
		if !r.hasSamples && m.rowsWithHistory >= m.historyCapacity() {
			continue
		}
		if !r.hasSamples {
			r.hasSamples = true
			m.rowsWithHistory++
		}
		m.rowHistoryBytes += putSample(&r.kvUsages, slot, ifSeen(r.load.kvUsage()), fractionSteps) + putSample(&r.slotUsages, slot, ifSeen(r.load.slotUsage()), fractionSteps) +
			putSample(&r.waitingCounts, slot, ifSeen(r.load.waiting()), 1) + putSample(&r.hitRates, slot, ifSeen(r.hitRate()), fractionSteps)
	}
	for i := range m.counters {
		m.counters[i].closeStep(slot)
	}
	for i := range m.outages {
		m.outages[i].closeStep(slot)
	}
}

// historyCapacity returns how many rows can have a history.
func (m *Monitor) historyCapacity() int { return min(m.options.Limit, maxHistoryRows) }

// historyBytes returns the memory of everything that is kept from sample to sample.
func (m *Monitor) historyBytes() int64 {
	const pointer = unsafe.Sizeof(uintptr(0))
	size := func(n int, each uintptr) int64 { return int64(n) * int64(each) }
	return m.rowHistoryBytes + size(1, unsafe.Sizeof(*m)) + size(len(m.byEndpoint), unsafe.Sizeof(endpointStats{})) + size(cap(m.rows), unsafe.Sizeof(row{})) +
		size(m.rowCount, unsafe.Sizeof(rowHistory{})+unsafe.Sizeof(rowID{})+unsafe.Sizeof(fleet.WorkerID{})+3*pointer) +
		size(m.departureCount, unsafe.Sizeof(fleet.WorkerID{})+2*pointer) +
		size(len(m.hits), unsafe.Sizeof(workerHits{})+unsafe.Sizeof(hitWindow{})+unsafe.Sizeof(fleet.WorkerID{})+pointer)
}

// worstImbalance returns the imbalance of the worst endpoint. The whole fleet has none: prefill
// and decode workers differ by nature.
func (m *Monitor) worstImbalance() (worst number) {
	for _, ep := range m.endpoints {
		if v := ep.aggregate.kvBlocks.Imbalance(); v.OK && v.V >= worst.V {
			worst = v
		}
	}
	return worst
}

// eventsInHistory estimates the number of events in the time that the history covers.
func (m *Monitor) eventsInHistory() (n float64) {
	for ago := range m.historyClock.kept() {
		if v := float64(m.history.events[m.historyClock.slot(ago)]); !math.IsNaN(v) {
			n += v * historyStep.Seconds()
		}
	}
	return n
}

// unixMilli converts a time to Unix time in milliseconds.
func (m *Monitor) unixMilli(t tick) int64 {
	return m.sampledAt.Add((t - m.now).duration()).UnixMilli()
}
