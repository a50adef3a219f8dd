package fleet

import (
	"container/list"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/stats"
)

// endpoint is an endpoint with its present and former workers.
type endpoint struct {
	Endpoint
	watched         bool
	named           bool   // the flags name it: it is shown even if it never had a worker
	exempt          bool   // named, or the endpoint of unknown ids: it does not count against the limit
	hadData         bool   // it has had a load or a hit
	hadWorker       bool   // a worker was registered here, or answered a poll while there is no registry
	registeredCount int    // registered attachments
	listedCount     int    // attachments with a key in the registry: an instance key or a model card
	staticCount     int    // attachments of static workers
	hitEvents       uint64 // hit-rate events counted here
	requests        *Histograms

	members  map[*worker]int8 // workers with an attachment here, their hits here (1), or both (2)
	rows     []*worker        // members sorted by label; valid unless unsorted is set
	unsorted bool

	status        endpointStatus
	emptySince    time.Time     // when a member was last removed
	evictionQueue *list.List    // the Fleet's list that has it as a candidate for eviction; nil if none has
	evictionElem  *list.Element // its element there

	// The following fields are valid while a Snapshot is being built.
	state           EndpointState
	hasLoad         bool // a worker has its load here
	reportsNoLoad   bool // a worker's poll replies say that the endpoint carries no load
	loadElsewhere   bool // a worker here has its load at another endpoint
	loadExpected    bool // a worker here is expected to have a load
	loadNotExpected bool // a worker here is expected to have none
}

// endpointStatus is why an endpoint is kept.
type endpointStatus int

const (
	statusUnneeded     endpointStatus = iota
	statusReserved                    // the flags name it, or it is the endpoint of unknown ids
	statusRegistered                  // the registry has a worker here
	statusUnregistered                // it has workers, but the registry has none of them here
	statusEmpty                       // its last worker is gone
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

// countedEndpoints returns the number of endpoints that count against the limit.
func (f *Fleet) countedEndpoints() int {
	return f.statusCounts[statusRegistered] + f.statusCounts[statusUnregistered] + f.statusCounts[statusEmpty]
}

// updateStatus must be called after each change of the endpoint's members. It deletes an
// endpoint that is no longer needed.
func (f *Fleet) updateStatus(e *endpoint) {
	f.statusCounts[e.status]--
	e.status = e.computeStatus()
	f.statusCounts[e.status]++
	queue := (*list.List)(nil)
	switch {
	case e.status == statusEmpty:
		queue = &f.emptyEndpoints
	case e.status == statusUnregistered && e.staticCount == 0: // static workers answer polls, and are never evicted
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

// addMember adds an attachment or the hits of the worker to the endpoint's members.
func (f *Fleet) addMember(e *endpoint, w *worker) {
	if e.members == nil {
		e.members = make(map[*worker]int8)
	}
	e.members[w]++
	e.unsorted = true
	f.updateStatus(e)
}

// removeMember removes an attachment or the hits of the worker from the endpoint's members.
func (f *Fleet) removeMember(e *endpoint, w *worker) {
	if e.members[w]--; e.members[w] == 0 {
		delete(e.members, w)
	}
	e.unsorted = true
	e.emptySince = f.now
	f.updateStatus(e)
}

// ensureEndpoint returns the endpoint e and adds it if necessary. It returns nil if there is
// no room. To make room it may evict another endpoint, and then it prunes that endpoint's
// workers. The caller prunes the worker except.
func (f *Fleet) ensureEndpoint(e Endpoint, by evidence, except *worker) *endpoint {
	if p := f.endpoints[e]; p != nil {
		return p
	}
	if e == f.unknown { // a worker may register an endpoint of that name
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

// addEndpoint adds the endpoint e with the status that it will have with its first worker.
func (f *Fleet) addEndpoint(e Endpoint, as endpointStatus) *endpoint {
	p := &endpoint{Endpoint: e, watched: f.target.Covers(e), exempt: as == statusReserved, status: as}
	f.endpoints[e] = p
	f.statusCounts[as]++
	f.unsorted = true
	return p
}

// roomForEndpoint reports whether there is room for one more endpoint. A registered endpoint
// evicts one without workers. If there is none, it evicts one that the registry does not have,
// and the caller must prune that endpoint's workers.
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

// forgetEndpoint deletes an endpoint without workers.
func (f *Fleet) forgetEndpoint(e *endpoint) {
	e.hadData = false
	f.updateStatus(e)
}

// evictEndpoint deletes an endpoint with the attachments to it. It returns their workers.
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
			f.setHitsEndpoint(w, f.unknownHitsEndpoint()) // until prune decides
			w.hitsEndpoint.hadData = w.hitsEndpoint.hadData || w.hits.Events > 0
		}
	}
	return all
}

// expireEndpoints deletes the endpoints that have had no worker for the retention time, and
// those above the limits.
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

// sortEndpoints sorts the endpoints and the members of each into the order of a Snapshot.
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
