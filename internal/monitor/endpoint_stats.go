package monitor

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
)

// endpointStats holds what the monitor keeps of one endpoint from sample to sample, and its part
// of the last sample.
type endpointStats struct {
	fleet.Endpoint
	counted       bool
	lastSeen      uint64
	histories     map[rowID]*rowHistory
	rowsPerWorker map[fleet.WorkerID]int // number of rows of each worker
	start, end    int                    // its rows in the last sample
	aggregate     aggregate

	hitWindow  hitWindow
	baseline   hitBaseline
	ruleStates [endpointRuleCount]ruleState

	usageMean, usageStd floatHistory // of KV use
	queueHistory        floatHistory
	peakHistory         floatHistory // the largest number of workers at a time
	peak                int          // largest number of workers since the last step
	lingering           int          // counted workers whose registration is gone but that still report
	departures          departures
}

// rowID identifies a row of an endpoint.
type rowID struct {
	id   fleet.WorkerID
	rank int64
}

const noRank = -1

// compare orders rows by id and rank. It compares numbers by value, not as text.
func (r rowID) compare(o rowID) int {
	return cmp.Or(cmp.Compare(r.id.Lease, o.id.Lease), strings.Compare(r.id.Static, o.id.Static), cmp.Compare(r.rank, o.rank))
}

// rowHistory holds what the monitor keeps of a row from sample to sample.
type rowHistory struct {
	rowID
	lastSeen   uint64
	state      fleet.State
	source     fleet.Opt[fleet.Source] // source of its last load
	since      tick                    // when it was first seen
	stateSince tick                    // when it changed to its state
	lastLoad   tick                    // when its last load was received; 0: never
	lastPass   tick                    // when its last forward pass was; 0: never
	ruleStates [workerRuleCount]ruleState

	multiEndpoint bool // the worker had a row at another endpoint first
	counted       bool // metrics show it or have shown it
	hasSamples    bool // its history is kept

	kvUsages, slotUsages, hitRates *compactHistory[uint8]
	waitingCounts                  *compactHistory[uint16]
}

// update stores what the sample shows of the row.
func (r *row) update(state fleet.State, now tick, source fleet.Source) {
	h := r.rowHistory
	if h.state != state {
		h.state, h.stateSince = state, now
	}
	if r.load.known {
		h.lastLoad = max(1, now-ticks(r.load.age))
		h.source = fleet.Some(source)
	}
	if r.passAge.OK {
		h.lastPass = max(1, now-ticks(r.passAge.V))
	}
}

// lastLoadAge returns how long ago the row's last load was received, and nothing if it never was.
func (h *rowHistory) lastLoadAge(now tick) fleet.Opt[time.Duration] {
	if h.lastLoad == 0 {
		return fleet.Opt[time.Duration]{}
	}
	return fleet.Some((now - h.lastLoad).duration())
}

// appendKey appends the unique name of a row: the worker's id, its endpoint if the worker had a
// row at another endpoint first, and its rank if it has several.
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

// name returns the worker's id as in Dynamo's own keys and logs, and its rank.
func (h *rowHistory) name() string {
	if h.rank == noRank {
		return displayID(h.id)
	}
	return displayID(h.id) + " rank " + strconv.FormatInt(h.rank, 10)
}

// displayID returns a worker's id in hexadecimal, or the name of a static worker.
func displayID(id fleet.WorkerID) string {
	if id.IsStatic() {
		return id.Static
	}
	return id.Hex()
}

// statsFor returns the stats of the endpoint, reset for a new sample, and creates them if needed.
// It returns the overflow entry if there is no room.
func (m *Monitor) statsFor(e *fleet.EndpointState) *endpointStats {
	ep := m.byEndpoint[e.Endpoint]
	switch {
	case ep == nil && len(m.byEndpoint) >= maxEndpoints:
		m.leftOut.endpoints++
		ep = m.overflow
	case ep == nil:
		ep = &endpointStats{Endpoint: e.Endpoint, histories: make(map[rowID]*rowHistory), rowsPerWorker: make(map[fleet.WorkerID]int),
			usageMean: newFloatHistory(), usageStd: newFloatHistory(), queueHistory: newFloatHistory(), peakHistory: newFloatHistory()}
		ep.hitWindow.last = m.hitBucket()
		m.byEndpoint[e.Endpoint] = ep
	}
	ep.lastSeen, ep.counted = m.sampleCount, e.Counted
	ep.start, ep.end, ep.lingering = len(m.rows), len(m.rows), 0
	ep.aggregate = aggregate{answering: e.Answering, silent: e.Silent, unregistered: e.Unregistered, malformed: e.Malformed, kvBlocks: e.Blocks, kvUsage: e.Usage}
	if ep != m.overflow {
		ep.advance(m)
		m.endpoints = append(m.endpoints, ep)
	}
	return ep
}

// advance moves the window on to the current bucket.
func (ep *endpointStats) advance(m *Monitor) {
	if at := m.hitBucket(); at != ep.hitWindow.last {
		ep.learn()
		ep.hitWindow.advance(at)
	}
}

// learn adds the last full bucket to the baseline, unless the hit rate seems to have collapsed.
func (ep *endpointStats) learn() {
	if ep.ruleStates[ruleHits].since == 0 {
		ep.baseline.learn(ep.hitWindow.sum(1))
	}
}

// historyFor returns the history of the row, and creates it if needed. It returns nil if there is
// no room.
func (m *Monitor) historyFor(ep *endpointStats, id fleet.WorkerID, rank int64) *rowHistory {
	key := rowID{id, rank}
	h := ep.histories[key]
	if h == nil {
		if m.rowCount >= maxRows {
			return nil
		}
		h = &rowHistory{rowID: key, since: m.now, stateSince: m.now}
		if ep.rowsPerWorker[id] == 0 {
			h.multiEndpoint = m.endpointsPerWorker[id] > 0
			m.endpointsPerWorker[id]++
		} else {
			h.multiEndpoint = m.endpointsPerWorker[id] > 1
		}
		ep.histories[key] = h
		ep.rowsPerWorker[id]++
		m.rowCount++
	}
	h.lastSeen = m.sampleCount
	return h
}

// forgetRow removes a row.
func (m *Monitor) forgetRow(ep *endpointStats, h *rowHistory) {
	delete(ep.histories, h.rowID)
	m.rowCount--
	if ep.rowsPerWorker[h.id]--; ep.rowsPerWorker[h.id] == 0 {
		delete(ep.rowsPerWorker, h.id)
		if m.endpointsPerWorker[h.id]--; m.endpointsPerWorker[h.id] == 0 {
			delete(m.endpointsPerWorker, h.id)
		}
	}
	if h.hasSamples {
		m.rowsWithHistory--
		m.rowHistoryBytes -= h.kvUsages.bytes() + h.slotUsages.bytes() + h.waitingCounts.bytes() + h.hitRates.bytes()
	}
}

// sweep removes what was not in the last sample.
func (m *Monitor) sweep() {
	for key, ep := range m.byEndpoint {
		if ep.lastSeen != m.sampleCount {
			ep.start, ep.end = 0, 0
		}
		if len(ep.histories) != ep.end-ep.start {
			m.sweepRows(ep)
		}
		m.expireDepartures(ep)
		if ep.lastSeen != m.sampleCount {
			m.departureCount -= len(ep.departures)
			delete(m.byEndpoint, key)
		}
	}
	if len(m.hits) == m.hitsUpdated {
		return
	}
	for id, h := range m.hits {
		if h.lastSeen != m.sampleCount {
			delete(m.hits, id)
		}
	}
}

func (m *Monitor) sweepRows(ep *endpointStats) {
	var left []*rowHistory
	for _, h := range ep.histories {
		if h.lastSeen == m.sampleCount {
			continue
		}
		m.forgetRow(ep, h)
		left = append(left, h)
	}
	for _, h := range left {
		if h.counted && ep.rowsPerWorker[h.id] == 0 { // otherwise only the number of its ranks changed
			m.recordDeparture(ep, h)
		}
	}
}
