package glance

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
)

// rememberIt is how long workers count as lost.
const rememberIt = 10 * time.Minute

// departures are the workers that were counted at an endpoint and are not there any more.
// One that comes back is not among them.
type departures map[fleet.WorkerID]departure

type departure struct {
	at  moment
	how ending
}

// ending is how a worker left, as far as can be told: registries say only that a registration
// is gone, and not whether it was taken back or has expired.
type ending uint8

const (
	unheard ending = iota // of it was heard no more while it was still registered: it did not deregister
	unclear
	inOrder // it was heard until its registration was gone, or later
	endings
)

// lastSign is less than what passes between the last sign of a worker that ends all of a
// sudden and the end of its registration: after kill -9 that was 5.8 s at least.
const lastSign = 4 * time.Second

// leave notes that the worker's last row at the endpoint is gone, one of whose tracks this was.
// It has left unless it is registered there still, as where the endpoint turns out to carry no
// load, or is at another endpoint: then it has moved, or leaves from there.
func (g *Glance) leave(p *place, t *track) {
	before, known := p.gone[t.id]
	switch {
	case g.presence[t.id] > 0, g.o.Fleet.IsRegistered(fleet.Instance{Endpoint: p.Endpoint, ID: t.id.Lease}):
	case !known && g.departed >= mostDeparted:
		g.unnoted = g.now
	default:
		if p.gone == nil {
			p.gone = make(departures)
		}
		how := g.endOf(p, t)
		if !known {
			g.departed++
		} else if before.at == g.now { // another rank
			how = max(how, before.how)
		}
		p.gone[t.id] = departure{g.now, how}
	}
}

// endOf is how a worker has left since the cut before this one.
func (g *Glance) endOf(p *place, t *track) ending {
	heard, every := max(t.loaded, t.passed), time.Duration(0) // how often something must come; 0: it need not
	// In Kubernetes a worker is gone as soon as its pod is not ready, for whatever reason.
	heardUntilThen := either(g.tally().Kubernetes.Used(), unclear, inOrder)
	switch {
	case t.id.IsStatic():
		return unheard // else it would be there
	case g.noList:
		return unclear
	case t.state == fleet.StateUnregistered:
		return heardUntilThen
	case heard == 0:
		return unclear
	case t.passed != 0:
		every = either(g.ready(), time.Second, 0)
	case t.source.V == fleet.FromStats:
		every = either(g.noPolls, 0, g.o.Poll)
	case t.source.V == fleet.FromScrape && g.unread[fleet.Instance{Endpoint: p.Endpoint, ID: t.id.Lease}].Times > 0:
		return unheard
	case t.source.V == fleet.FromScrape:
		every = g.o.Scrape + g.o.PageIn
	}
	if g.now-heard <= span(lastSign) {
		return heardUntilThen
	}
	if every > 0 && g.before-heard > span(max(lastSign, 2*every)) {
		return unheard
	}
	return unclear
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
	for id, d := range p.gone {
		if g.now-d.at >= span(rememberIt) {
			g.comeBack(p, id)
		}
	}
}

// last are so many of those that have left, by how they did: first those that did not deregister,
// and of each kind the last. The others were replaced.
func (d departures) last(n int) (names [endings][]string) {
	type gone struct {
		id fleet.WorkerID
		departure
	}
	var all []gone
	for id, one := range d {
		all = append(all, gone{id, one})
	}
	slices.SortFunc(all, func(a, b gone) int {
		return cmp.Or(cmp.Compare(a.how, b.how), cmp.Compare(b.at, a.at), rowID{id: b.id}.compare(rowID{id: a.id}))
	})
	for _, one := range all[:min(n, len(all))] {
		names[one.how] = append(names[one.how], hexOf(one.id))
	}
	return names
}

// present are the workers that are there: those that metrics show, and those whose
// registration is gone but that are heard still.
func (p *place) present() int { return p.sums.shown + p.lingering }

// mostPresent is the most that were there at a time in the last ten minutes.
func (p *place) mostPresent(g *Glance) int {
	most := float64(max(p.most, p.present()))
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

func lostWorkers(g *Glance, p *place) number { return fleet.Some(float64(p.lost(g))) }

// lostShare and goneShare are the parts of an endpoint's workers from which on their loss is bad: of those that
// did not deregister, and of those of which that cannot be told as well.
const lostShare, goneShare = 0.1, 0.5

func sayLost(g *Glance, p *problem) words {
	lost, left := p.of.lost(g), p.of.present()
	names := p.of.gone.last(lost)
	ended := len(names[unheard])
	gone := lost - len(names[inOrder]) // of some that there was no room for nothing is known
	all := float64(lost + left)
	w := words{
		title:    either(left == 0, "No worker of "+p.of.String()+" is left", lostTitle(p.of, lost, gone, ended)),
		detail:   fmt.Sprintf("%s: of %s in the last 10 min %s left.", p.of, many(lost+left, "worker"), either(left == 0, "none is", thousands(left)+either(left == 1, " is", " are"))),
		check:    "was it scaled down, or is it being replaced? Then nothing.",
		severity: info,
	}
	switch {
	case left == 0, ended > 0 && float64(ended) >= lostShare*all, gone > 0 && float64(gone) >= goneShare*all:
		w.severity = bad
	case gone > 0:
		w.severity = warn
	}
	if gone > 0 {
		w.check = either(ended == gone, "", "was it scaled down, or is it being replaced? Else ") + "see why they ended: a crash, no memory, an eviction, or a pause that was longer than the lease."
	}
	for how, says := range [endings]string{
		unheard: either(g.o.Fleet.HasRegistry(), "Not heard of any more while still registered, so ended without deregistering", "No answer any more"),
		unclear: "Whether these deregistered cannot be told",
		inOrder: "Deregistered, and heard until then",
	} {
		if len(names[how]) > 0 {
			w.detail += fmt.Sprintf(" %s: %s.", says, list(names[how]))
		}
	}
	return w
}

// lostTitle is of so many lost workers. Some of them may have gone in no order, and of some of
// those it is known that they did.
func lostTitle(of *place, lost, gone, ended int) string {
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
	return many(n, "worker") + " of " + of.String() + " " + says
}
