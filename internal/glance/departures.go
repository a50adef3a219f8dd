package glance

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"dynamo-metrics/internal/fleet"
)

// rememberIt is how long workers count as lost.
const rememberIt = 10 * time.Minute

// departures are the workers that were counted at an endpoint and are not there any more, by
// when they left. One that comes back is not among them.
type departures map[fleet.WorkerID]moment

// leave notes that the worker's last row at the endpoint is gone. It has left unless it is
// registered there still, as where the endpoint turns out to carry no load, or is at another
// endpoint: then it has moved, or leaves from there.
func (g *Glance) leave(p *place, id fleet.WorkerID) {
	switch {
	case g.presence[id] > 0, g.o.Fleet.IsRegistered(fleet.Instance{Endpoint: p.Endpoint, ID: id.Lease}):
	case g.departed >= mostDeparted:
		g.unnoted = g.now
	default:
		if p.gone == nil {
			p.gone = make(departures)
		}
		if _, known := p.gone[id]; !known {
			g.departed++
		}
		p.gone[id] = g.now
	}
}

// comeBack notes that a worker is counted at the endpoint.
func (g *Glance) comeBack(p *place, id fleet.WorkerID) {
	if _, known := p.gone[id]; known {
		delete(p.gone, id)
		g.departed--
	}
}

// forgetGone forgets those that left long ago.
func (g *Glance) forgetGone(p *place) {
	for id, at := range p.gone {
		if g.now-at >= span(rememberIt) {
			g.comeBack(p, id)
		}
	}
}

// names are those that have left, the last first.
func (d departures) names() []string {
	type gone struct {
		id fleet.WorkerID
		at moment
	}
	var all []gone
	for id, at := range d {
		all = append(all, gone{id, at})
	}
	slices.SortFunc(all, func(a, b gone) int {
		return cmp.Or(cmp.Compare(b.at, a.at), rowID{id: b.id}.compare(rowID{id: a.id}))
	})
	var names []string
	for _, l := range all {
		names = append(names, hexOf(l.id))
	}
	return names
}

// present are the workers that are there: those that metrics show, and those whose
// registration is gone but that are heard still.
func (p *place) present() int { return p.sums.shown + p.lingering }

// mostPresent is the most that were there at a time in the last ten minutes.
func (p *place) mostPresent(g *Glance) int {
	most := float64(p.present())
	for ago := range min(g.clock.kept(), int(rememberIt/step)) {
		if v := float64(p.there[g.clock.slot(ago)]); v > most { // a NaN is not
			most = v
		}
	}
	return int(most)
}

// lost are those of them that have left and were not replaced.
func (p *place) lost(g *Glance) int {
	lost := p.mostPresent(g) - p.present()
	if g.unnoted != 0 && g.now-g.unnoted < span(rememberIt) { // some are not known
		return lost
	}
	return min(lost, len(p.gone))
}

// lostShare is which part of them that is.
func lostShare(g *Glance, p *place) number {
	lost := p.lost(g)
	if lost == 0 || !g.o.Fleet.HasRegistry() {
		return number{}
	}
	return fleet.Some(float64(lost) / float64(p.mostPresent(g)))
}

func sayLost(g *Glance, p *problem) words {
	lost, left := p.of.lost(g), p.of.present()
	w := words{
		title:    either(lost == 1, "1 worker is gone", many(lost, "worker")+" are gone"),
		detail:   fmt.Sprintf("%s: of %s in the last 10 min %s left.", p.of, many(lost+left, "worker"), either(left == 0, "none is", thousands(left)+either(left == 1, " is", " are"))),
		check:    "was it scaled down, or is it being replaced? Else see why they ended: a crash, no memory, an eviction, or a pause that was longer than the lease.",
		severity: warn,
	}
	if who := p.of.gone.names(); len(who) > 0 && lost > 0 {
		who = who[:min(lost, len(who))] // the others were replaced
		w.detail += " The last: " + some(who, func(name string) string { return name }) + "."
	}
	if left == 0 {
		w.title, w.severity = "No worker is left", bad
	}
	return w
}
