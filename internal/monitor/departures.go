package monitor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
)

// rememberIt is how long workers count as lost.
const lostWindow = 10 * time.Minute

// departures are the workers that were counted at an endpoint and are not there any more.
// One that comes back is not among them.
type departures map[fleet.WorkerID]departure

type departure struct {
	at   tick
	kind departureKind
}

// ending is how a worker left, as far as can be told: registries say only that a registration
// is gone, and not whether it was taken back or has expired.
type departureKind uint8

const (
	notDeregistered departureKind = iota // of it was heard no more while it was still registered: it did not deregister
	unknownDeparture
	deregistered // it was heard until its registration was gone, or later
	departureKindCount
)

// lastSign is less than what passes between the last sign of a worker that ends all of a
// sudden and the end of its registration: after kill -9 that was 5.8 s at least.
const minCrashSilence = 4 * time.Second

// leave notes that the worker's last row at the endpoint is gone, one of whose tracks this was.
// It has left unless it is registered there still, as where the endpoint turns out to carry no
// load, or is at another endpoint: then it has moved, or leaves from there.
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
		} else if before.at == m.now { // another rank
			how = max(how, before.kind)
		}
		ep.departures[h.id] = departure{m.now, how}
	}
}

// endOf is how a worker has left since the cut before this one.
func (m *Monitor) classifyDeparture(ep *endpointStats, h *rowHistory) departureKind {
	lastReport, interval := max(h.lastLoad, h.lastPass), time.Duration(0) // how often something must come; 0: it need not
	// In Kubernetes a worker is gone as soon as its pod is not ready, for whatever reason.
	reportedUntilThen := ifElse(m.stats().Kubernetes.Used(), unknownDeparture, deregistered)
	switch {
	case h.id.IsStatic():
		return notDeregistered // else it would be there
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

// comeBack notes that a worker is counted at the endpoint.
func (m *Monitor) removeDeparture(ep *endpointStats, id fleet.WorkerID) {
	if _, known := ep.departures[id]; known {
		delete(ep.departures, id)
		m.departureCount--
	}
}

// forgetGone forgets those that left long ago.
func (m *Monitor) expireDepartures(ep *endpointStats) {
	for id, d := range ep.departures {
		if m.now-d.at >= ticks(lostWindow) {
			m.removeDeparture(ep, id)
		}
	}
}

// last are so many of those that have left, by how they did: first those that did not deregister,
// and of each kind the last. The others were replaced.
func (d departures) latest(n int) (names [departureKindCount][]string) {
	type gone struct {
		id fleet.WorkerID
		departure
	}
	var all []gone
	for id, one := range d {
		all = append(all, gone{id, one})
	}
	slices.SortFunc(all, func(a, b gone) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(b.at, a.at), rowID{id: b.id}.compare(rowID{id: a.id}))
	})
	for _, one := range all[:min(n, len(all))] {
		names[one.kind] = append(names[one.kind], displayID(one.id))
	}
	return names
}

// present are the workers that are there: those that metrics show, and those whose
// registration is gone but that are heard still.
func (ep *endpointStats) presentWorkers() int { return ep.aggregate.shown + ep.lingering }

// mostPresent is the most that were there at a time in the last ten minutes.
func (ep *endpointStats) peakWorkers(m *Monitor) int {
	most := float64(max(ep.peak, ep.presentWorkers()))
	for ago := range min(m.historyClock.kept(), int(lostWindow/historyStep)) {
		if v := float64(ep.peakHistory[m.historyClock.slot(ago)]); v > most { // a NaN is not
			most = v
		}
	}
	return int(most)
}

// lost are those of them that have left and were not replaced.
func (ep *endpointStats) lostWorkers(m *Monitor) int {
	lost := ep.peakWorkers(m) - ep.presentWorkers()
	if m.unrecordedAt != 0 && m.now-m.unrecordedAt < ticks(lostWindow) { // some are not known
		return lost
	}
	return min(lost, len(ep.departures))
}

func measureLost(m *Monitor, ep *endpointStats) number { return fleet.Some(float64(ep.lostWorkers(m))) }

// lostShare and goneShare are the parts of an endpoint's workers from which on their loss is bad: of those that
// did not deregister, and of those of which that cannot be told as well.
const lostShare, unknownShare = 0.1, 0.5

func lostMessage(m *Monitor, p *problem) message {
	lost, left := p.endpoint.lostWorkers(m), p.endpoint.presentWorkers()
	names := p.endpoint.departures.latest(lost)
	ended := len(names[notDeregistered])
	gone := lost - len(names[deregistered]) // of some that there was no room for nothing is known
	all := float64(lost + left)
	msg := message{
		title:    ifElse(left == 0, "No worker of "+p.endpoint.String()+" is left", lostMessageTitle(p.endpoint, lost, gone, ended)),
		detail:   fmt.Sprintf("%s: of %s in the last 10 min %s left.", p.endpoint, plural(lost+left, "worker"), ifElse(left == 0, "none is", formatCount(left)+ifElse(left == 1, " is", " are"))),
		check:    "was it scaled down, or is it being replaced? Then nothing.",
		severity: severityInfo,
	}
	switch {
	case left == 0, ended > 0 && float64(ended) >= lostShare*all, gone > 0 && float64(gone) >= unknownShare*all:
		msg.severity = severityBad
	case gone > 0:
		msg.severity = severityWarn
	}
	if gone > 0 {
		msg.check = ifElse(ended == gone, "", "was it scaled down, or is it being replaced? Else ") + "see why they ended: a crash, no memory, an eviction, or a pause that was longer than the lease."
	}
	for how, text := range [departureKindCount]string{
		notDeregistered:  ifElse(m.options.Fleet.HasRegistry(), "Not heard of any more while still registered, so ended without deregistering", "No answer any more"),
		unknownDeparture: "Whether these deregistered cannot be told",
		deregistered:     "Deregistered, and heard until then",
	} {
		if len(names[how]) > 0 {
			msg.detail += fmt.Sprintf(" %s: %s.", text, summarizeStrings(names[how]))
		}
	}
	return msg
}

// lostTitle is of so many lost workers. Some of them may have gone in no order, and of some of
// those it is known that they did.
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
