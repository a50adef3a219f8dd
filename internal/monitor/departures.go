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
func (g *Monitor) recordDeparture(p *endpointStats, t *rowHistory) {
	before, known := p.departures[t.id]
	switch {
	case g.endpointsPerWorker[t.id] > 0, g.options.Fleet.IsRegistered(fleet.Instance{Endpoint: p.Endpoint, ID: t.id.Lease}):
	case !known && g.departureCount >= maxDepartures:
		g.unrecordedAt = g.now
	default:
		if p.departures == nil {
			p.departures = make(departures)
		}
		how := g.classifyDeparture(p, t)
		if !known {
			g.departureCount++
		} else if before.at == g.now { // another rank
			how = max(how, before.kind)
		}
		p.departures[t.id] = departure{g.now, how}
	}
}

// endOf is how a worker has left since the cut before this one.
func (g *Monitor) classifyDeparture(p *endpointStats, t *rowHistory) departureKind {
	heard, every := max(t.lastLoad, t.lastPass), time.Duration(0) // how often something must come; 0: it need not
	// In Kubernetes a worker is gone as soon as its pod is not ready, for whatever reason.
	heardUntilThen := ifElse(g.stats().Kubernetes.Used(), unknownDeparture, deregistered)
	switch {
	case t.id.IsStatic():
		return notDeregistered // else it would be there
	case g.registryDown:
		return unknownDeparture
	case t.state == fleet.StateUnregistered:
		return heardUntilThen
	case heard == 0:
		return unknownDeparture
	case t.lastPass != 0:
		every = ifElse(g.ready(), time.Second, 0)
	case t.source.V == fleet.FromStats:
		every = ifElse(g.natsDown, 0, g.options.Poll)
	case t.source.V == fleet.FromScrape && g.failedScrapes[fleet.Instance{Endpoint: p.Endpoint, ID: t.id.Lease}].Times > 0:
		return notDeregistered
	case t.source.V == fleet.FromScrape:
		every = g.options.Scrape + g.options.ScrapeTimeout
	}
	if g.now-heard <= ticks(minCrashSilence) {
		return heardUntilThen
	}
	if every > 0 && g.previous-heard > ticks(max(minCrashSilence, 2*every)) {
		return notDeregistered
	}
	return unknownDeparture
}

// comeBack notes that a worker is counted at the endpoint.
func (g *Monitor) removeDeparture(p *endpointStats, id fleet.WorkerID) {
	if _, known := p.departures[id]; known {
		delete(p.departures, id)
		g.departureCount--
	}
}

// forgetGone forgets those that left long ago.
func (g *Monitor) expireDepartures(p *endpointStats) {
	for id, d := range p.departures {
		if g.now-d.at >= ticks(lostWindow) {
			g.removeDeparture(p, id)
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
func (p *endpointStats) presentWorkers() int { return p.aggregate.shown + p.lingering }

// mostPresent is the most that were there at a time in the last ten minutes.
func (p *endpointStats) peakWorkers(g *Monitor) int {
	most := float64(max(p.peak, p.presentWorkers()))
	for ago := range min(g.historyClock.kept(), int(lostWindow/historyStep)) {
		if v := float64(p.peakHistory[g.historyClock.slot(ago)]); v > most { // a NaN is not
			most = v
		}
	}
	return int(most)
}

// lost are those of them that have left and were not replaced.
func (p *endpointStats) lostWorkers(g *Monitor) int {
	lost := p.peakWorkers(g) - p.presentWorkers()
	if g.unrecordedAt != 0 && g.now-g.unrecordedAt < ticks(lostWindow) { // some are not known
		return lost
	}
	return min(lost, len(p.departures))
}

func measureLost(g *Monitor, p *endpointStats) number { return fleet.Some(float64(p.lostWorkers(g))) }

// lostShare and goneShare are the parts of an endpoint's workers from which on their loss is bad: of those that
// did not deregister, and of those of which that cannot be told as well.
const lostShare, unknownShare = 0.1, 0.5

func lostMessage(g *Monitor, p *problem) message {
	lost, left := p.endpoint.lostWorkers(g), p.endpoint.presentWorkers()
	names := p.endpoint.departures.latest(lost)
	ended := len(names[notDeregistered])
	gone := lost - len(names[deregistered]) // of some that there was no room for nothing is known
	all := float64(lost + left)
	w := message{
		title:    ifElse(left == 0, "No worker of "+p.endpoint.String()+" is left", lostMessageTitle(p.endpoint, lost, gone, ended)),
		detail:   fmt.Sprintf("%s: of %s in the last 10 min %s left.", p.endpoint, plural(lost+left, "worker"), ifElse(left == 0, "none is", formatCount(left)+ifElse(left == 1, " is", " are"))),
		check:    "was it scaled down, or is it being replaced? Then nothing.",
		severity: severityInfo,
	}
	switch {
	case left == 0, ended > 0 && float64(ended) >= lostShare*all, gone > 0 && float64(gone) >= unknownShare*all:
		w.severity = severityBad
	case gone > 0:
		w.severity = severityWarn
	}
	if gone > 0 {
		w.check = ifElse(ended == gone, "", "was it scaled down, or is it being replaced? Else ") + "see why they ended: a crash, no memory, an eviction, or a pause that was longer than the lease."
	}
	for how, says := range [departureKindCount]string{
		notDeregistered:  ifElse(g.options.Fleet.HasRegistry(), "Not heard of any more while still registered, so ended without deregistering", "No answer any more"),
		unknownDeparture: "Whether these deregistered cannot be told",
		deregistered:     "Deregistered, and heard until then",
	} {
		if len(names[how]) > 0 {
			w.detail += fmt.Sprintf(" %s: %s.", says, summarizeStrings(names[how]))
		}
	}
	return w
}

// lostTitle is of so many lost workers. Some of them may have gone in no order, and of some of
// those it is known that they did.
func lostMessageTitle(of *endpointStats, lost, gone, ended int) string {
	n, says := lost, "has deregistered"
	switch {
	case gone > 0 && ended == gone:
		n, says = gone, "was lost"
	case gone > 0:
		n, says = gone, "is gone"
	}
	if n != 1 {
		says = strings.NewReplacer("has ", "have ", "was ", "were ", "is ", "are ").Replace(says)
	}
	return plural(n, "worker") + " of " + of.String() + " " + says
}
