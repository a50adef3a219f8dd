package fleet

// Hits has the sums over the hit-rate events of one worker.
type Hits struct {
	ISLBlocks     uint64 // KV blocks of the requests' input
	OverlapBlocks uint64 // those of them that the worker's KV cache held; up to 0.2.1 they may exceed ISLBlocks
	Events        uint64
}

// RecordHit counts one hit-rate event. Isl and overlap are in KV blocks. The event names only
// the worker, so it counts for the watched endpoint with that worker's load. If the worker
// belongs to a component that is not watched, the event is counted as foreign. If the id is
// unknown, the event counts for the endpoint that the flags name, as in the original program,
// or else for the endpoint "unknown".
func (f *Fleet) RecordHit(lease, isl, overlap uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := WorkerID{Lease: lease}
	w := f.workers.get(id)
	if w == nil {
		if w = f.ensureWorker(id, byMessage); w == nil {
			return
		}
		f.updateHitsEndpoint(w)
	}
	if w.hitsEndpoint == nil {
		f.Stats.ForeignEvents.Add(1)
		return
	}
	f.unregisteredWorkers.touch(w.unregisteredElem)
	f.addHit(w, isl, overlap)
}

// addHit adds a hit to a worker with a hits endpoint.
func (f *Fleet) addHit(w *worker, isl, overlap uint64) {
	w.hits.ISLBlocks += isl
	w.hits.OverlapBlocks += overlap
	w.hits.Events++
	w.lastHit = f.now
	w.hitsEndpoint.hitEvents++
	w.hitsEndpoint.hadData = true
}

// updateHitsEndpoint decides which endpoint shows the worker's hits. A worker that has left
// every endpoint keeps its last one, so that its counters do not move.
func (f *Fleet) updateHitsEndpoint(w *worker) {
	if len(w.attachments) > 0 {
		f.setHitsEndpoint(w, f.hitsEndpointOf(w))
	} else if w.hitsEndpoint == nil || w.hits.Events == 0 {
		f.setHitsEndpoint(w, f.unknownHitsEndpoint())
	}
}

// hitsEndpointOf returns the watched endpoint that shows the worker's hits. It returns nil if
// the worker belongs to another component. It prefers the endpoint that the flags name, then
// the one with the worker's load, even while the worker is silent, then the one that has its
// counters already, then the first by name.
func (f *Fleet) hitsEndpointOf(w *worker) *endpoint {
	best := w.loadAttachment(f.target.Component)
	if best == nil {
		return nil
	}
	if f.target.Name != "" {
		return f.targetEndpointFor(best)
	}
	if best.loadCertainty() == 0 && w.hits.Events > 0 && w.hitsEndpoint != nil && w.hitsEndpoint.Endpoint != f.unknown {
		return w.hitsEndpoint
	}
	return best.endpoint
}

// targetEndpointFor returns the endpoint that the flags name, in the namespace of the
// attachment. It returns nil if there is no room for it, or if only an event names that
// namespace.
func (f *Fleet) targetEndpointFor(a *attachment) *endpoint {
	named := Endpoint(f.target)
	named.Namespace = a.endpoint.Namespace
	if e := f.endpoints[named]; e != nil || !a.isListed() && f.registry {
		return e
	}
	return f.ensureEndpoint(named, byMessageOnly, nil)
}

// unknownHitsEndpoint returns the endpoint that shows the hits of unknown ids.
func (f *Fleet) unknownHitsEndpoint() *endpoint {
	e := f.unknown
	if f.target.Name != "" && !f.target.MultipleNamespaces() {
		e = Endpoint(f.target)
	}
	if p := f.endpoints[e]; p != nil {
		return p
	}
	return f.addEndpoint(e, statusReserved)
}

func (f *Fleet) setHitsEndpoint(w *worker, e *endpoint) {
	if w.hitsEndpoint == e {
		return
	}
	if e != nil {
		f.addMember(e, w)
	}
	if w.hitsEndpoint != nil {
		f.removeMember(w.hitsEndpoint, w)
	}
	w.hitsEndpoint = e
}
