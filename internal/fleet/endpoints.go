package fleet

import (
	"container/list"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/stats"
)

// endpoint is one endpoint that workers are or were at.
type endpoint struct {
	Endpoint
	watched  bool
	named    bool   // by the flags: shown even if it never had a worker
	own      bool   // that, or the one of unknown ids: no limit counts it
	useful   bool   // had a load or a hit
	served   bool   // a worker was registered here, or answered polls where there is no registry
	here     int    // attachments here that are registered
	listed   int    // attachments here that the registry has: the registered, and those with model cards
	static   int    // attachments here of static workers
	events   uint64 // hit-rate events booked here
	requests *Histograms

	members  map[*worker]int8 // those with an attachment or their home here, and how many of both
	rows     []*worker        // the same by label, unless that must be arranged anew
	disorder bool

	standing standing
	since    time.Time     // when the last one left
	queue    *list.List    // where it waits to be forgotten; nil: nowhere
	at       *list.Element // its place there

	// What a Snapshot works out.
	state    EndpointState
	carries  bool // a worker has its load here
	loadless bool // one says in its answers to polls that the endpoint carries none
	beside   bool // one has its load at another endpoint
	expects  bool // there is one here of which a load is expected
	excuses  bool // there is one of which none is
}

// standing is why an endpoint is known.
type standing int

const (
	unneeded     standing = iota
	ours                  // the flags name it, or it is that of unknown ids
	registered            // the registry has a worker here
	unregistered          // there are workers here, but none that the registry has
	left                  // its last worker has gone
	standings
)

func (e *endpoint) stands() standing {
	switch {
	case e.named || e.own && (len(e.members) > 0 || e.useful):
		return ours
	case e.listed > 0:
		return registered
	case len(e.members) > 0:
		return unregistered
	case e.useful && e.served:
		return left
	}
	return unneeded
}

// counted is how many endpoints the limit counts.
func (f *Fleet) counted() int {
	return f.standing[registered] + f.standing[unregistered] + f.standing[left]
}

// restand follows a change of who is at the endpoint. One that is not needed is forgotten.
func (f *Fleet) restand(e *endpoint) {
	f.standing[e.standing]--
	e.standing = e.stands()
	f.standing[e.standing]++
	queue := (*list.List)(nil)
	switch {
	case e.standing == left:
		queue = &f.left
	case e.standing == unregistered && e.static == 0: // those that answer are never pushed out
		queue = &f.unregistered
	}
	if queue != e.queue {
		if e.queue != nil {
			e.queue.Remove(e.at)
		}
		if e.queue, e.at = queue, nil; queue != nil {
			e.at = queue.PushBack(e)
		}
	}
	if e.standing == unneeded {
		f.standing[unneeded]--
		delete(f.endpoints, e.Endpoint)
		f.disorder = true
	}
}

// join notes that the worker has an attachment or its home at the endpoint.
func (f *Fleet) join(e *endpoint, w *worker) {
	if e.members == nil {
		e.members = make(map[*worker]int8)
	}
	e.members[w]++
	e.disorder = true
	f.restand(e)
}

// part notes that it has one of them no more.
func (f *Fleet) part(e *endpoint, w *worker) {
	if e.members[w]--; e.members[w] == 0 {
		delete(e.members, w)
	}
	e.disorder = true
	e.since = f.now
	f.restand(e)
}

// open is the record of e, made if there is room; nil if there is none. Another endpoint may
// go for it: its workers are settled then, but for the one that the caller settles.
func (f *Fleet) open(e Endpoint, by proof, but *worker) *endpoint {
	if p := f.endpoints[e]; p != nil {
		return p
	}
	if e == f.unknown { // a worker can have that name
		return f.add(e, ours)
	}
	displaced, ok := f.roomForEndpoint(by)
	if !ok {
		return nil
	}
	p := f.add(e, unregistered)
	for _, w := range displaced {
		if w != but {
			f.settle(w)
		}
	}
	return p
}

// add makes the record of e, which stands so as soon as a worker joins.
func (f *Fleet) add(e Endpoint, as standing) *endpoint {
	p := &endpoint{Endpoint: e, watched: f.target.Covers(e), own: as == ours, standing: as}
	f.endpoints[e] = p
	f.standing[as]++
	f.disorder = true
	return p
}

// roomForEndpoint reports whether there may be one more. What registers pushes out an
// endpoint without workers, or one that the registry does not have; the workers that were
// there must be settled.
func (f *Fleet) roomForEndpoint(by proof) (displaced []*worker, ok bool) {
	full := f.counted() >= f.bounds.endpoints
	if !full && (by == listed || f.standing[unregistered] < f.bounds.heard) {
		return nil, true
	}
	f.Tally.TurnAway(stats.EndpointLimit)
	switch first := f.unregistered.Front(); {
	case full && f.left.Len() > 0 && (by == listed || !f.registry):
		f.forget(f.left.Front().Value.(*endpoint))
		return nil, true
	case by == listed && first != nil:
		return f.vacate(first.Value.(*endpoint)), true
	}
	f.refused[stats.EndpointLimit] = f.refused[stats.EndpointLimit] || by == listed
	return nil, false
}

// forget forgets an endpoint without workers.
func (f *Fleet) forget(e *endpoint) {
	e.useful = false
	f.restand(e)
}

// vacate forgets an endpoint, and what is known of workers there. It returns them.
func (f *Fleet) vacate(e *endpoint) (all []*worker) {
	for w := range e.members {
		all = append(all, w)
	}
	e.useful = false
	for _, w := range all {
		if s := w.seatAt(e); s != nil {
			f.leave(w, s)
			f.weigh(w)
		}
		if w.home == e {
			f.setHome(w, f.homeOfUnknown()) // until it is settled
			w.home.useful = w.home.useful || w.hits.Events > 0
		}
	}
	return all
}

// forgetEndpoints forgets those that have had no worker for long, and those that have become
// too many.
func (f *Fleet) forgetEndpoints() {
	if e := f.endpoints[f.unknown]; e != nil && len(e.members) == 0 && f.now.Sub(e.since) >= retention {
		f.forget(e)
	}
	for f.left.Len() > 0 {
		e := f.left.Front().Value.(*endpoint)
		if f.now.Sub(e.since) < retention {
			if f.left.Len() <= f.bounds.left {
				break
			}
			f.Tally.TurnAway(stats.EndpointLimit)
		}
		f.forget(e)
	}
	for f.standing[unregistered] > f.bounds.heard && f.unregistered.Len() > 0 {
		f.Tally.TurnAway(stats.EndpointLimit)
		for _, w := range f.vacate(f.unregistered.Front().Value.(*endpoint)) {
			f.settle(w)
		}
	}
}

// arrange puts the endpoints, and at each the workers that have an attachment or their
// home there, in the order of a Snapshot.
func (f *Fleet) arrange() {
	if f.disorder {
		f.disorder = false
		f.order = f.order[:0]
		for _, e := range f.endpoints {
			f.order = append(f.order, e)
		}
		slices.SortFunc(f.order, func(a, b *endpoint) int { return compareEndpoints(a.Endpoint, b.Endpoint) })
	}
	for _, e := range f.order {
		if e.disorder {
			e.disorder = false
			e.rows = e.rows[:0]
			for w := range e.members {
				e.rows = append(e.rows, w)
			}
			slices.SortFunc(e.rows, func(a, b *worker) int { return strings.Compare(a.label, b.label) })
		}
	}
}
