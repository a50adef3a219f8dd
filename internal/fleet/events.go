package fleet

import (
	"maps"
	"slices"

	"dynamo-metrics/internal/stats"
)

// Origin is the rank of a worker that an event is about. Endpoint lacks the name if only the
// component is known, and is empty if neither is known (up to 1.3).
type Origin struct {
	Endpoint
	Worker uint64
	Rank   uint32

	Sent       uint64 // publisher's time in Unix milliseconds; 0 if the event has none
	OutOfOrder bool   // an event that the publisher sent later was received before, of any rank
}

// RecordLoad records a load that a worker has published. Workers publish it when it changes,
// and do not repeat it, so it is kept as long as the worker is registered. A load that is
// received before the registration is kept for it.
func (f *Fleet) RecordLoad(from Origin, source Source, l Load) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, ranks := f.origin(from)
	if w == nil {
		return
	}
	if from.OutOfOrder && slices.ContainsFunc(*ranks, func(r rank) bool { return r.number == from.Rank && r.sent >= from.Sent }) {
		f.Stats.CountRejected(stats.LoadEvent, stats.Repeated) // a newer load is known
		return
	}
	if r := f.setLoad(w, ranks, from.Rank, l, source); r != nil {
		r.sent = from.Sent
	}
}

// origin returns the worker that an event is about, and the list of ranks that the event
// belongs to. If the event names an endpoint, this is the list of that endpoint. Otherwise it is
// the list of unattributed ranks. Each Snapshot decides again which endpoint shows those, because
// a model card or a registration may arrive after the event. The worker is nil if there is no
// room, or if the endpoint is not watched.
func (f *Fleet) origin(from Origin) (w *worker, ranks *[]rank) {
	switch {
	case from.Name != "" && f.target.Covers(from.Endpoint):
		w, ranks = f.originAt(from)
	case from.Name == "" && (from.Component == "" || f.target.CoversComponent(from.Component)):
		w, ranks = f.unattributedOrigin(from)
	}
	if w != nil {
		f.touch(w)
	}
	return w, ranks
}

// touch records that a worker that may be evicted has sent a message.
func (f *Fleet) touch(w *worker) {
	f.unregisteredWorkers.touch(w.unregisteredElem)
	f.unregisteredAttachments.touch(w.attachmentsElem)
}

// unattributedOrigin does the work of origin for an event that does not name the endpoint.
func (f *Fleet) unattributedOrigin(from Origin) (*worker, *[]rank) {
	id := WorkerID{Lease: from.Worker}
	w := f.workers.get(id)
	if (w == nil || len(w.unattributed) == 0) && !f.roomForRank(w, f.evidenceOf(id) == byMessage && (w == nil || !w.isListed())) {
		f.Stats.CountRefused(stats.RankLimit)
		return nil, nil
	}
	if w == nil {
		if w = f.ensureWorker(id, byMessage); w == nil {
			return nil, nil
		}
		f.updateHitsEndpoint(w)
	}
	if from.Component != "" {
		w.unattributedComponent = from.Component
	}
	if a := w.loadAttachment(w.unattributedComponent); a != nil {
		a.stale = false
	}
	return w, &w.unattributed
}

// originAt does the work of origin for an event that names the endpoint.
func (f *Fleet) originAt(from Origin) (*worker, *[]rank) {
	id := WorkerID{Lease: from.Worker}
	w, by := f.workers.get(id), f.evidenceOf(id)
	a := w.attachmentAt(from.Endpoint)
	if a == nil {
		if by == byMessage && f.endpoints[from.Endpoint] == nil {
			return f.pendingOrigin(id, from.Endpoint)
		}
		if !f.roomForRank(w, by == byMessage) {
			f.Stats.CountRefused(stats.RankLimit)
			return nil, nil
		}
		if a = f.ensureAttachment(id, from.Endpoint, by); a == nil {
			return nil, nil
		}
		w = f.workers.get(id)
		f.updateHitsEndpoint(w)
	}
	a.stale = false
	return w, &a.ranks
}

// loadAttachment returns the attachment that events without an endpoint belong to. It prefers
// the attachment with a load in poll replies, then one with a model card or LoadRole, then one
// that events have named, then the first by name. If component is not empty, it considers only
// attachments to endpoints of that component. It returns nil if there is none.
func (w *worker) loadAttachment(component string) *attachment {
	var best *attachment
	for i := range w.attachments {
		a := &w.attachments[i]
		if component != "" && a.endpoint.Component != component {
			continue
		}
		if best == nil || a.before(best) {
			best = a
		}
	}
	return best
}

// before reports whether the worker's load is more probably at this attachment than at other.
func (a *attachment) before(other *attachment) bool {
	if a, b := a.loadCertainty(), other.loadCertainty(); a != b {
		return a > b
	}
	return compareEndpoints(a.endpoint.Endpoint, other.endpoint.Endpoint) < 0
}

// loadCertainty returns how certain it is that the worker's load is at this attachment. It
// returns 0 if nothing indicates it.
func (a *attachment) loadCertainty() int {
	switch {
	case a.reportedLoad:
		return 3
	case a.card.OK, a.registered && a.Role == LoadRole:
		return 2
	case len(a.ranks) > 0:
		return 1
	}
	return 0
}

// FindPublishers reports whether a worker that publishes its load is registered at a watched
// endpoint. If the flags name an endpoint, and none of these workers has its load there,
// elsewhere has the names of the component's endpoints where their loads are.
func (f *Fleet) FindPublishers() (found bool, elsewhere []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	others := make(map[string]bool)
	here := false
	for w := range f.workers.all() {
		if w.isRouter() {
			continue
		}
		for i := range w.attachments {
			a := &w.attachments[i]
			if !a.endpoint.watched || !a.registered || !a.Publishes {
				continue
			}
			if found = true; f.target.Name == "" {
				return true, nil
			}
			if b := w.loadAttachment(f.target.Component); b != a && b.loadCertainty() > 0 {
				others[b.endpoint.Name] = true
			} else {
				here = true
			}
		}
	}
	if here {
		return found, nil
	}
	return found, slices.Sorted(maps.Keys(others))
}
