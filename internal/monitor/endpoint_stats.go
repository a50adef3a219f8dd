package monitor

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
)

// place is what is remembered of one endpoint from cut to cut, and its part of the last one.
type endpointStats struct {
	fleet.Endpoint
	counted       bool
	lastSeen      uint64
	histories     map[rowID]*rowHistory
	rowsPerWorker map[fleet.WorkerID]int // how many of them a worker has
	start, end    int                    // its rows in the cut
	aggregate     aggregate

	hitWindow  hitWindow
	baseline   hitBaseline
	ruleStates [endpointRuleCount]ruleState

	usageMean, usageStd floatHistory // of KV use
	queueHistory        floatHistory
	peakHistory         floatHistory // the most workers at a time
	peak                int          // of them since the last sample
	lingering           int          // in the cut: workers that were counted, whose registration is gone, but that are heard still
	departures          departures
}

// rowID tells the rows of an endpoint apart.
type rowID struct {
	id   fleet.WorkerID
	rank int64
}

const noRank = -1

// compare orders rows as sorted names would, but for the width of numbers.
func (r rowID) compare(o rowID) int {
	return cmp.Or(cmp.Compare(r.id.Lease, o.id.Lease), strings.Compare(r.id.Static, o.id.Static), cmp.Compare(r.rank, o.rank))
}

// track is what is remembered of a row from cut to cut.
type rowHistory struct {
	rowID
	lastSeen   uint64
	state      fleet.State
	source     fleet.Opt[fleet.Source] // of its last load
	since      tick                    // first seen
	stateSince tick                    // into its state
	lastLoad   tick                    // when its last load was received; 0: never
	lastPass   tick                    // when its last forward pass was; 0: never
	ruleStates [workerRuleCount]ruleState

	multiEndpoint bool // the worker had a row at another endpoint before
	counted       bool // metrics have shown it
	hasHistory    bool // its history is

	kvUsages, slotUsages, hitRates *compactHistory[uint8]
	waitingCounts                  *compactHistory[uint16]
}

// note takes what the cut says of the row.
func (r *row) update(state fleet.State, now tick, source fleet.Source) {
	t := r.rowHistory
	if t.state != state {
		t.state, t.stateSince = state, now
	}
	if r.load.known {
		t.lastLoad = max(1, now-ticks(r.load.age))
		t.source = fleet.Some(source)
	}
	if r.passAge.OK {
		t.lastPass = max(1, now-ticks(r.passAge.V))
	}
}

// age is how long ago its last load was received; absent if none ever was.
func (t *rowHistory) lastLoadAge(now tick) fleet.Opt[time.Duration] {
	if t.lastLoad == 0 {
		return fleet.Opt[time.Duration]{}
	}
	return fleet.Some((now - t.lastLoad).duration())
}

// appendKey writes what names the row: the worker's id, and its rank where it has
// several. Where it has another row elsewhere they name the endpoint, too.
func (r *row) appendKey(b []byte) []byte {
	b = append(b, r.label...)
	if r.multiEndpoint {
		b = append(append(b, '@'), r.endpoint.String()...)
	}
	if r.rank != noRank {
		b = strconv.AppendInt(append(b, '/'), r.rank, 10)
	}
	return b
}

// name is the worker as Dynamo's own keys and logs have it, and its rank.
func (t *rowHistory) name() string {
	if t.rank == noRank {
		return displayID(t.id)
	}
	return displayID(t.id) + " rank " + strconv.FormatInt(t.rank, 10)
}

// hexOf is a worker's id in hexadecimal, or what a static worker has for it.
func displayID(id fleet.WorkerID) string {
	if id.IsStatic() {
		return id.Static
	}
	return id.Hex()
}

// place is what is known of the endpoint, made if need be, ready for a new cut. It is the
// rest where there is no room.
func (g *Monitor) statsFor(e *fleet.EndpointState) *endpointStats {
	p := g.byEndpoint[e.Endpoint]
	switch {
	case p == nil && len(g.byEndpoint) >= maxEndpoints:
		g.leftOut.endpoints++
		p = g.overflow
	case p == nil:
		p = &endpointStats{Endpoint: e.Endpoint, histories: make(map[rowID]*rowHistory), rowsPerWorker: make(map[fleet.WorkerID]int),
			usageMean: newFloatHistory(), usageStd: newFloatHistory(), queueHistory: newFloatHistory(), peakHistory: newFloatHistory()}
		p.hitWindow.last = g.hitBucket()
		g.byEndpoint[e.Endpoint] = p
	}
	p.lastSeen, p.counted = g.sampleCount, e.Counted
	p.start, p.end, p.lingering = len(g.rows), len(g.rows), 0
	p.aggregate = aggregate{answering: e.Answering, silent: e.Silent, unregistered: e.Unregistered, malformed: e.Malformed, kvBlocks: e.Blocks, kvUsage: e.Usage}
	if p != g.overflow {
		p.advance(g)
		g.endpoints = append(g.endpoints, p)
	}
	return p
}

// turn moves on to the bucket that is being filled.
func (p *endpointStats) advance(g *Monitor) {
	if at := g.hitBucket(); at != p.hitWindow.last {
		p.learn()
		p.hitWindow.advance(at)
	}
}

// learn takes the bucket that is full for normal, unless hit rates seem to have collapsed.
func (p *endpointStats) learn() {
	if p.ruleStates[ruleHits].since == 0 {
		p.baseline.learn(p.hitWindow.sum(1))
	}
}

// track is what is known of the row, made if need be; nil if there is no room.
func (g *Monitor) historyFor(p *endpointStats, id fleet.WorkerID, rank int64) *rowHistory {
	of := rowID{id, rank}
	t := p.histories[of]
	if t == nil {
		if g.rowCount >= maxRows {
			return nil
		}
		t = &rowHistory{rowID: of, since: g.now, stateSince: g.now}
		if p.rowsPerWorker[id] == 0 {
			t.multiEndpoint = g.endpointsPerWorker[id] > 0
			g.endpointsPerWorker[id]++
		} else {
			t.multiEndpoint = g.endpointsPerWorker[id] > 1
		}
		p.histories[of] = t
		p.rowsPerWorker[id]++
		g.rowCount++
	}
	t.lastSeen = g.sampleCount
	return t
}

// untrack forgets a row.
func (g *Monitor) forgetRow(p *endpointStats, t *rowHistory) {
	delete(p.histories, t.rowID)
	g.rowCount--
	if p.rowsPerWorker[t.id]--; p.rowsPerWorker[t.id] == 0 {
		delete(p.rowsPerWorker, t.id)
		if g.endpointsPerWorker[t.id]--; g.endpointsPerWorker[t.id] == 0 {
			delete(g.endpointsPerWorker, t.id)
		}
	}
	if t.hasHistory {
		g.rowsWithHistory--
		g.rowHistoryBytes -= t.kvUsages.bytes() + t.slotUsages.bytes() + t.waitingCounts.bytes() + t.hitRates.bytes()
	}
}

// sweep forgets what is not in the cut.
func (g *Monitor) sweep() {
	for key, p := range g.byEndpoint {
		if p.lastSeen != g.sampleCount {
			p.start, p.end = 0, 0
		}
		if len(p.histories) != p.end-p.start {
			g.sweepRows(p)
		}
		g.expireDepartures(p)
		if p.lastSeen != g.sampleCount {
			g.departureCount -= len(p.departures)
			delete(g.byEndpoint, key)
		}
	}
	if len(g.hits) == g.hitsUpdated {
		return
	}
	for id, h := range g.hits {
		if h.lastSeen != g.sampleCount {
			delete(g.hits, id)
		}
	}
}

func (g *Monitor) sweepRows(p *endpointStats) {
	var left []*rowHistory
	for _, t := range p.histories {
		if t.lastSeen == g.sampleCount {
			continue
		}
		g.forgetRow(p, t)
		left = append(left, t)
	}
	for _, t := range left {
		if t.counted && p.rowsPerWorker[t.id] == 0 { // else it has got ranks, or lost them
			g.recordDeparture(p, t)
		}
	}
}
