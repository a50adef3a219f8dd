package fleet

import (
	"maps"
	"slices"

	"dynamo-metrics/internal/stats"
)

// Origin is which rank of which worker an event speaks of. Its Endpoint has no name
// where only the component is known, and is empty where not even that is (to 1.3).
type Origin struct {
	Endpoint
	Worker uint64
	Rank   uint32

	Sent       uint64 // when, by the publisher's clock, in Unix milliseconds; 0: it does not say
	OutOfOrder bool   // one that the publisher sent later has come, of this rank or of another
}

// Publish notes a load that a worker has published. It comes when something has
// changed and is never repeated, so it lives as long as the worker is registered;
// one that comes before the registration waits for it.
func (f *Fleet) RecordLoad(from Origin, source Source, l Load) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, ranks := f.origin(from)
	if w == nil {
		return
	}
	if from.OutOfOrder && slices.ContainsFunc(*ranks, func(r rank) bool { return r.number == from.Rank && r.sent >= from.Sent }) {
		f.Stats.CountRejected(stats.LoadEvent, stats.Repeated) // it is not the load any more
		return
	}
	if r := f.setLoad(w, ranks, from.Rank, l, source); r != nil {
		r.sent = from.Sent
	}
}

// origin is the worker that an event is of, and its ranks that the event belongs to: those
// of the endpoint that it names; or of none, where it names none, which is then decided anew
// in each Snapshot, since what decides may come after the event. It is nil where there is
// no room, or where the endpoint is not watched.
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

// touch notes that a worker was heard that may be pushed out.
func (f *Fleet) touch(w *worker) {
	f.unregisteredWorkers.touch(w.unregisteredElem)
	f.unregisteredAttachments.touch(w.attachmentsElem)
}

// looseOrigin is origin of an event that does not name the endpoint.
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

// originAt is origin of an event that names the endpoint.
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

// bearer is the seat that events without an endpoint belong to: the one with stats
// data, else the one of the model card or of that name, else one that events have named,
// else the only one; of equals the first by name. Only those of the component count, if it is
// known. It is nil for a worker without a seat there.
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

// before reports whether the worker's load is rather at this seat than at another.
func (a *attachment) before(other *attachment) bool {
	if a, b := a.loadCertainty(), other.loadCertainty(); a != b {
		return a > b
	}
	return compareEndpoints(a.endpoint.Endpoint, other.endpoint.Endpoint) < 0
}

// bears says how sure it is that the worker's load is at this seat; 0: nothing says so.
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

// Publishing reports whether a worker that publishes its load is registered at a
// watched endpoint. If the flags name an endpoint and the load of none of them is
// there, elsewhere are the endpoints of the component that have it.
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
