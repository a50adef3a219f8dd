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
	watched         bool
	named           bool   // by the flags: shown even if it never had a worker
	exempt          bool   // that, or the one of unknown ids: no limit counts it
	hadData         bool   // had a load or a hit
	hadWorker       bool   // a worker was registered here, or answered polls where there is no registry
	registeredCount int    // attachments here that are registered
	listedCount     int    // attachments here that the registry has: the registered, and those with model cards
	staticCount     int    // attachments here of static workers
	hitEvents       uint64 // hit-rate events booked here
	requests        *Histograms

	members  map[*worker]int8 // those with an attachment or their home here, and how many of both
	rows     []*worker        // the same by label, unless that must be arranged anew
	unsorted bool

	status        endpointStatus
	emptySince    time.Time     // when the last one left
	evictionQueue *list.List    // where it waits to be forgotten; nil: nowhere
	evictionElem  *list.Element // its place there

	// What a Snapshot works out.
	state           EndpointState
	hasLoad         bool // a worker has its load here
	reportsNoLoad   bool // one says in its answers to polls that the endpoint carries none
	loadElsewhere   bool // one has its load at another endpoint
	loadExpected    bool // there is one here of which a load is expected
	loadNotExpected bool // there is one of which none is
}

// standing is why an endpoint is known.
type endpointStatus int

const (
	statusUnneeded     endpointStatus = iota
	statusReserved                    // the flags name it, or it is that of unknown ids
	statusRegistered                  // the registry has a worker here
	statusUnregistered                // there are workers here, but none that the registry has
	statusEmpty                       // its last worker has gone
	numStatuses
)

func (e *endpoint) computeStatus() endpointStatus {
	switch {
	case e.named || e.exempt && (len(e.members) > 0 || e.hadData):
		return statusReserved
	case e.listedCount > 0:
		return statusRegistered
	case len(e.members) > 0:
		return statusUnregistered
	case e.hadData && e.hadWorker:
		return statusEmpty
	}
	return statusUnneeded
}

// counted is how many endpoints the limit counts.
func (f *Fleet) countedEndpoints() int {
	return f.statusCounts[statusRegistered] + f.statusCounts[statusUnregistered] + f.statusCounts[statusEmpty]
}

// restand follows a change of who is at the endpoint. One that is not needed is forgotten.
func (f *Fleet) updateStatus(e *endpoint) {
	f.statusCounts[e.status]--
	e.status = e.computeStatus()
	f.statusCounts[e.status]++
	queue := (*list.List)(nil)
	switch {
	case e.status == statusEmpty:
		queue = &f.emptyEndpoints
	case e.status == statusUnregistered && e.staticCount == 0: // those that answer are never pushed out
		queue = &f.unregisteredEndpoints
	}
	if queue != e.evictionQueue {
		if e.evictionQueue != nil {
			e.evictionQueue.Remove(e.evictionElem)
		}
		if e.evictionQueue, e.evictionElem = queue, nil; queue != nil {
			e.evictionElem = queue.PushBack(e)
		}
	}
	if e.status == statusUnneeded {
		f.statusCounts[statusUnneeded]--
		delete(f.endpoints, e.Endpoint)
		f.unsorted = true
	}
}

// join notes that the worker has an attachment or its home at the endpoint.
func (f *Fleet) addMember(e *endpoint, w *worker) {
	if e.members == nil {
		e.members = make(map[*worker]int8)
	}
	e.members[w]++
	e.unsorted = true
	f.updateStatus(e)
}

// part notes that it has one of them no more.
func (f *Fleet) removeMember(e *endpoint, w *worker) {
	if e.members[w]--; e.members[w] == 0 {
		delete(e.members, w)
	}
	e.unsorted = true
	e.emptySince = f.now
	f.updateStatus(e)
}

// open is the record of e, made if there is room; nil if there is none. Another endpoint may
// go for it: its workers are settled then, but for the one that the caller settles.
func (f *Fleet) ensureEndpoint(e Endpoint, by evidence, except *worker) *endpoint {
	if p := f.endpoints[e]; p != nil {
		return p
	}
	if e == f.unknown { // a worker can have that name
		return f.addEndpoint(e, statusReserved)
	}
	evicted, ok := f.roomForEndpoint(by)
	if !ok {
		return nil
	}
	p := f.addEndpoint(e, statusUnregistered)
	for _, w := range evicted {
		if w != except {
			f.prune(w)
		}
	}
	return p
}

// add makes the record of e, which stands so as soon as a worker joins.
func (f *Fleet) addEndpoint(e Endpoint, as endpointStatus) *endpoint {
	p := &endpoint{Endpoint: e, watched: f.target.Covers(e), exempt: as == statusReserved, status: as}
	f.endpoints[e] = p
	f.statusCounts[as]++
	f.unsorted = true
	return p
}

// roomForEndpoint reports whether there may be one more. What registers pushes out an
// endpoint without workers, or one that the registry does not have; the workers that were
// there must be settled.
func (f *Fleet) roomForEndpoint(by evidence) (evicted []*worker, ok bool) {
	full := f.countedEndpoints() >= f.bounds.endpoints
	if !full && (by == byRegistry || f.statusCounts[statusUnregistered] < f.bounds.unregisteredEndpoints) {
		return nil, true
	}
	f.Stats.CountRefused(stats.EndpointLimit)
	switch first := f.unregisteredEndpoints.Front(); {
	case full && f.emptyEndpoints.Len() > 0 && (by == byRegistry || !f.registry):
		f.forgetEndpoint(f.emptyEndpoints.Front().Value.(*endpoint))
		return nil, true
	case by == byRegistry && first != nil:
		return f.evictEndpoint(first.Value.(*endpoint)), true
	}
	f.refused[stats.EndpointLimit] = f.refused[stats.EndpointLimit] || by == byRegistry
	return nil, false
}

// forget forgets an endpoint without workers.
func (f *Fleet) forgetEndpoint(e *endpoint) {
	e.hadData = false
	f.updateStatus(e)
}

// vacate forgets an endpoint, and what is known of workers there. It returns them.
func (f *Fleet) evictEndpoint(e *endpoint) (all []*worker) {
	for w := range e.members {
		all = append(all, w)
	}
	e.hadData = false
	for _, w := range all {
		if a := w.attachmentTo(e); a != nil {
			f.detach(w, a)
			f.updateFootprint(w)
		}
		if w.hitsEndpoint == e {
			f.setHitsEndpoint(w, f.unknownHitsEndpoint()) // until it is settled
			w.hitsEndpoint.hadData = w.hitsEndpoint.hadData || w.hits.Events > 0
		}
	}
	return all
}

// forgetEndpoints forgets those that have had no worker for long, and those that have become
// too many.
func (f *Fleet) expireEndpoints() {
	if e := f.endpoints[f.unknown]; e != nil && len(e.members) == 0 && f.now.Sub(e.emptySince) >= retention {
		f.forgetEndpoint(e)
	}
	for f.emptyEndpoints.Len() > 0 {
		e := f.emptyEndpoints.Front().Value.(*endpoint)
		if f.now.Sub(e.emptySince) < retention {
			if f.emptyEndpoints.Len() <= f.bounds.emptyEndpoints {
				break
			}
			f.Stats.CountRefused(stats.EndpointLimit)
		}
		f.forgetEndpoint(e)
	}
	for f.statusCounts[statusUnregistered] > f.bounds.unregisteredEndpoints && f.unregisteredEndpoints.Len() > 0 {
		f.Stats.CountRefused(stats.EndpointLimit)
		for _, w := range f.evictEndpoint(f.unregisteredEndpoints.Front().Value.(*endpoint)) {
			f.prune(w)
		}
	}
}

// arrange puts the endpoints, and at each the workers that have an attachment or their
// home there, in the order of a Snapshot.
func (f *Fleet) sortEndpoints() {
	if f.unsorted {
		f.unsorted = false
		f.sorted = f.sorted[:0]
		for _, e := range f.endpoints {
			f.sorted = append(f.sorted, e)
		}
		slices.SortFunc(f.sorted, func(a, b *endpoint) int { return compareEndpoints(a.Endpoint, b.Endpoint) })
	}
	for _, e := range f.sorted {
		if e.unsorted {
			e.unsorted = false
			e.rows = e.rows[:0]
			for w := range e.members {
				e.rows = append(e.rows, w)
			}
			slices.SortFunc(e.rows, func(a, b *worker) int { return strings.Compare(a.label, b.label) })
		}
	}
}
