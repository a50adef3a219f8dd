package monitor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
)

// lostWindow is how long a worker that has left counts as lost.
const lostWindow = 10 * time.Minute

// departures are the workers that were counted at an endpoint and have left it. A worker that
// returns is removed.
type departures map[fleet.WorkerID]departure

type departure struct {
	at   tick
	kind departureKind
}

// departureKind is how a worker left, as far as that can be inferred. A registry shows only that
// a registration is gone, not whether the worker revoked it or the lease expired.
type departureKind uint8

const (
	notDeregistered departureKind = iota // it stopped reporting while it was still registered
	unknownDeparture
	deregistered // it reported until its registration was gone, or later
	departureKindCount
)

// minCrashSilence is a lower bound of the time between the last report of a worker that crashes
// and the end of its registration. The shortest time measured after kill -9 was 5.8 s.
const minCrashSilence = 4 * time.Second

// recordDeparture records that the last row of a worker at the endpoint is gone. The worker has
// not left if it is still registered there, which happens when the endpoint turns out to carry no
// load, or if it has a row at another endpoint: then it has moved, or will leave from there.
func (m *Monitor) recordDeparture(ep *endpointStats, h *rowHistory) {
	before, known := ep.departures[h.id]
	switch {
	case m.endpointsPerWorker[h.id] > 0, m.options.Fleet.IsRegistered(fleet.Instance{Endpoint: ep.Endpoint, ID: h.id.Lease}):
	case !known && m.departureCount >= maxDepartures:
		m.unrecordedAt = m.now
	default:
		if ep.departures == nil {
			ep.departures = make(departures)
		}
		how := m.classifyDeparture(ep, h)
		if !known {
			m.departureCount++
		} else if before.at == m.now { // another rank of the worker
			how = max(how, before.kind)
		}
		ep.departures[h.id] = departure{m.now, how}
	}
}

// classifyDeparture infers how a worker left since the previous sample.
func (m *Monitor) classifyDeparture(ep *endpointStats, h *rowHistory) departureKind {
	lastReport, interval := max(h.lastLoad, h.lastPass), time.Duration(0) // the longest time between two reports; 0: no limit
	// In Kubernetes a worker is removed as soon as its pod is not ready, for whatever reason.
	reportedUntilThen := ifElse(m.stats().Kubernetes.Used(), unknownDeparture, deregistered)
	switch {
	case h.id.IsStatic():
		return notDeregistered // a static worker cannot deregister
	case m.registryDown:
		return unknownDeparture
	case h.state == fleet.StateUnregistered:
		return reportedUntilThen
	case lastReport == 0:
		return unknownDeparture
	case h.lastPass != 0:
		interval = ifElse(m.ready(), time.Second, 0)
	case h.source.V == fleet.FromStats:
		interval = ifElse(m.natsDown, 0, m.options.Poll)
	case h.source.V == fleet.FromScrape && m.failedScrapes[fleet.Instance{Endpoint: ep.Endpoint, ID: h.id.Lease}].Times > 0:
		return notDeregistered
	case h.source.V == fleet.FromScrape:
		interval = m.options.Scrape + m.options.ScrapeTimeout
	}
	if m.now-lastReport <= ticks(minCrashSilence) {
		return reportedUntilThen
	}
	if interval > 0 && m.previous-lastReport > ticks(max(minCrashSilence, 2*interval)) {
		return notDeregistered
	}
	return unknownDeparture
}

// removeDeparture removes a worker that is counted at the endpoint again.
func (m *Monitor) removeDeparture(ep *endpointStats, id fleet.WorkerID) {
	if _, known := ep.departures[id]; known {
		delete(ep.departures, id)
		m.departureCount--
	}
}

// expireDepartures removes workers that left longer than lostWindow ago.
func (m *Monitor) expireDepartures(ep *endpointStats) {
	for id, d := range ep.departures {
		if m.now-d.at >= ticks(lostWindow) {
			m.removeDeparture(ep, id)
		}
	}
}

// latest returns the names of n workers that have left, by kind: first those that did not
// deregister, and within each kind the latest. The others have been replaced.
func (d departures) latest(n int) (names [departureKindCount][]string) {
	type departed struct {
		id fleet.WorkerID
		departure
	}
	var all []departed
	for id, one := range d {
		all = append(all, departed{id, one})
	}
	slices.SortFunc(all, func(a, b departed) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(b.at, a.at), rowID{id: b.id}.compare(rowID{id: a.id}))
	})
	for _, one := range all[:min(n, len(all))] {
		names[one.kind] = append(names[one.kind], displayID(one.id))
	}
	return names
}

// presentWorkers counts the workers that metrics show, and those whose registration is gone but
// that still report.
func (ep *endpointStats) presentWorkers() int { return ep.aggregate.shown + ep.lingering }

// peakWorkers returns the largest number of workers at a time in the last ten minutes.
func (ep *endpointStats) peakWorkers(m *Monitor) int {
	most := float64(max(ep.peak, ep.presentWorkers()))
	for ago := range min(m.historyClock.kept(), int(lostWindow/historyStep)) {
		if v := float64(ep.peakHistory[m.historyClock.slot(ago)]); v > most { // NaN is never larger
			most = v
		}
	}
	return int(most)
}

// lostWorkers returns how many workers have left and were not replaced.
func (ep *endpointStats) lostWorkers(m *Monitor) int {
	lost := ep.peakWorkers(m) - ep.presentWorkers()
	if m.unrecordedAt != 0 && m.now-m.unrecordedAt < ticks(lostWindow) { // some departures were not recorded
		return lost
	}
	return min(lost, len(ep.departures))
}

func measureLost(m *Monitor, ep *endpointStats) number { return fleet.Some(float64(ep.lostWorkers(m))) }

// lostShare and unknownShare are the fractions of an endpoint's workers from which on their loss
// is severe: of workers that did not deregister, and of workers that may not have.
const lostShare, unknownShare = 0.1, 0.5

func lostMessage(m *Monitor, p *problem) message {
	lost, left := p.endpoint.lostWorkers(m), p.endpoint.presentWorkers()
	names := p.endpoint.departures.latest(lost)
	ended := len(names[notDeregistered])
	gone := lost - len(names[deregistered]) // includes departures that were not recorded
	all := float64(lost + left)
	msg := message{
		title:    ifElse(left == 0, "No worker of "+p.endpoint.String()+" is left", lostMessageTitle(p.endpoint, lost, gone, ended)),
		detail:   fmt.Sprintf("%s: of %s in the last 10 min %s left.", p.endpoint, plural(lost+left, "worker"), ifElse(left == 0, "none is", formatCount(left)+ifElse(left == 1, " is", " are"))),
		check:    "was the endpoint scaled down, or are workers being replaced? Then there is nothing to do.",
		severity: severityInfo,
	}
	switch {
	case left == 0, ended > 0 && float64(ended) >= lostShare*all, gone > 0 && float64(gone) >= unknownShare*all:
		msg.severity = severityBad
	case gone > 0:
		msg.severity = severityWarn
	}
	if gone > 0 {
		msg.check = ifElse(ended == gone, "", "was the endpoint scaled down, or are workers being replaced? If not, ") + "find out why they ended: a crash, out of memory, an eviction, or a pause that was longer than the lease."
	}
	for how, text := range [departureKindCount]string{
		notDeregistered:  ifElse(m.options.Fleet.HasRegistry(), "These stopped reporting while they were registered, so they ended without deregistering", "These no longer answer"),
		unknownDeparture: "It is not known whether these deregistered",
		deregistered:     "These deregistered, and reported until then",
	} {
		if len(names[how]) > 0 {
			msg.detail += fmt.Sprintf(" %s: %s.", text, summarizeStrings(names[how]))
		}
	}
	return msg
}

// lostMessageTitle returns the title for this many lost workers. gone of them may have ended
// without deregistering, and ended of those certainly did.
func lostMessageTitle(ep *endpointStats, lost, gone, ended int) string {
	n, text := lost, "has deregistered"
	switch {
	case gone > 0 && ended == gone:
		n, text = gone, "was lost"
	case gone > 0:
		n, text = gone, "is gone"
	}
	if n != 1 {
		text = strings.NewReplacer("has ", "have ", "was ", "were ", "is ", "are ").Replace(text)
	}
	return plural(n, "worker") + " of " + ep.String() + " " + text
}
