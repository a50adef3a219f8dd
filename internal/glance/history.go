package glance

import (
	"math"
	"unsafe"

	"dynamo-metrics/internal/fleet"
)

// series is the history of the whole fleet.
type series struct {
	loadMean, loadStd, loadMin, loadMax        floats
	imbalance, hitRate, waiting, events        floats
	answering, silent, unregistered, malformed floats
}

// each calls f with each of them and its name.
func (s *series) each(f func(name string, values *floats)) {
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
const mostKept = 65_536

// sample closes the steps that are over. Of those that nobody saw, as when the process
// was stopped, there are no values.
func (g *Glance) sample() {
	due := span(step)
	if g.clock.taken == 0 {
		g.clock.last = g.now - due
	}
	for _, p := range g.order {
		p.most = max(p.most, p.present())
	}
	passed := int((g.now - g.clock.last) / due)
	if passed == 0 {
		return
	}
	g.clock.last += moment(passed) * due
	for n := min(passed, samples); n > 0; n-- {
		g.clock.taken++
		g.write(g.clock.slot(0), n == 1)
	}
	g.tally().HistoryBytes.Store(g.historyBytes())
}

// write takes a sample of everything, or of nothing if nobody saw that step.
func (g *Glance) write(slot int, seen bool) {
	of := func(v number) number { v.OK = v.OK && seen; return v }
	s, all := &g.series, &g.all
	s.loadMean.put(slot, of(all.use.Opt(all.use.Mean)))
	s.loadStd.put(slot, of(all.use.Opt(all.use.Std)))
	s.loadMin.put(slot, of(all.use.Opt(all.use.Min)))
	s.loadMax.put(slot, of(all.use.Opt(all.use.Max)))
	s.imbalance.put(slot, of(g.imbalance()))
	s.hitRate.put(slot, of(all.last.rate()))
	s.waiting.put(slot, of(all.waiting.number))
	s.events.put(slot, number{V: g.events.perSecond(), OK: seen})
	for _, c := range []struct {
		to *floats
		n  int
	}{{&s.answering, all.answering}, {&s.silent, all.silent}, {&s.unregistered, all.unregistered}, {&s.malformed, all.malformed}} {
		c.to.put(slot, number{V: float64(c.n), OK: seen})
	}
	for _, p := range g.order {
		p.mean.put(slot, of(p.sums.use.Opt(p.sums.use.Mean)))
		p.std.put(slot, of(p.sums.use.Opt(p.sums.use.Std)))
		p.waited.put(slot, of(p.sums.waiting.number))
		p.there.put(slot, number{V: float64(p.most), OK: seen})
		p.most = p.present()
	}
	for i := range g.rows {
		r := &g.rows[i]
		if !r.kept && g.ringing >= g.room() {
			continue
		}
		if !r.kept {
			r.kept = true
			g.ringing++
		}
		g.ringBytes += put(&r.kv, slot, of(r.load.use()), shares) + put(&r.slots, slot, of(r.load.slots()), shares) +
			put(&r.waiting, slot, of(r.load.waiting()), 1) + put(&r.hit, slot, of(r.hitRate()), shares)
	}
	for i := range g.flows {
		g.flows[i].close(slot)
	}
	for i := range g.outages {
		g.outages[i].close(slot)
	}
}

// room is for how many rows a history is kept.
func (g *Glance) room() int { return min(g.o.Limit, mostKept) }

// historyBytes is the memory of all that is remembered from cut to cut.
func (g *Glance) historyBytes() int64 {
	const pointer = unsafe.Sizeof(uintptr(0))
	size := func(n int, of uintptr) int64 { return int64(n) * int64(of) }
	return g.ringBytes + size(1, unsafe.Sizeof(*g)) + size(len(g.places), unsafe.Sizeof(place{})) + size(cap(g.rows), unsafe.Sizeof(row{})) +
		size(g.tracks, unsafe.Sizeof(track{})+unsafe.Sizeof(rowID{})+unsafe.Sizeof(fleet.WorkerID{})+3*pointer) +
		size(g.departed, unsafe.Sizeof(fleet.WorkerID{})+2*pointer) +
		size(len(g.hits), unsafe.Sizeof(hits{})+unsafe.Sizeof(window{})+unsafe.Sizeof(fleet.WorkerID{})+pointer)
}

// imbalance is the worst endpoint's: prefill and decode differ by nature.
func (g *Glance) imbalance() (worst number) {
	for _, p := range g.order {
		if v := p.sums.blocks.Imbalance(); v.OK && v.V >= worst.V {
			worst = v
		}
	}
	return worst
}

// eventsKept is about how many events came in the time that is remembered.
func (g *Glance) eventsKept() (n float64) {
	for ago := range g.clock.kept() {
		if v := float64(g.series.events[g.clock.slot(ago)]); !math.IsNaN(v) {
			n += v * step.Seconds()
		}
	}
	return n
}

// wall is a moment as the clock on the wall has it, in milliseconds.
func (g *Glance) wall(m moment) int64 {
	return g.at.Add((m - g.now).duration()).UnixMilli()
}
