package fleet

// Hits are the sums over the hit-rate events of one worker.
type Hits struct {
	ISLBlocks     uint64 // blocks of the requests' input
	OverlapBlocks uint64 // those of them that the worker's KV cache held; may exceed ISLBlocks to 0.2.1
	Events        uint64
}

// Hit books one hit-rate event. The event names only the worker: it belongs to the
// watched endpoint that reports that worker. Of a worker that is known to be of a
// component that is not watched it is counted as foreign; of an id nobody knows it
// goes to the endpoint named by the flags, as the original did, else to one called unknown.
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

// hit books on a worker that has a home.
func (f *Fleet) addHit(w *worker, isl, overlap uint64) {
	w.hits.ISLBlocks += isl
	w.hits.OverlapBlocks += overlap
	w.hits.Events++
	w.lastHit = f.now
	w.hitsEndpoint.hitEvents++
	w.hitsEndpoint.hadData = true
}

// rehome decides where the worker's hits are shown. One that has left every
// endpoint keeps its last home, so that its counters stay where they were.
func (f *Fleet) updateHitsEndpoint(w *worker) {
	if len(w.attachments) > 0 {
		f.setHitsEndpoint(w, f.hitsEndpointOf(w))
	} else if w.hitsEndpoint == nil || w.hits.Events == 0 {
		f.setHitsEndpoint(w, f.unknownHitsEndpoint())
	}
}

// homeOf is the watched endpoint that a worker's hits belong to, nil if it is of
// another component: the endpoint named by the flags; else the one that bears its
// load, even while it is silent; else, until one does, where its counters are
// already; else the first by name.
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

// namedBeside is the endpoint of the flags in the namespace of a seat; nil if there is no
// room for it, or if nothing but an event says that there is such a namespace.
func (f *Fleet) targetEndpointFor(a *attachment) *endpoint {
	named := Endpoint(f.target)
	named.Namespace = a.endpoint.Namespace
	if e := f.endpoints[named]; e != nil || !a.isListed() && f.registry {
		return e
	}
	return f.ensureEndpoint(named, byMessageOnly, nil)
}

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

func (f *Fleet) setHitsEndpoint(w *worker, endpoint *endpoint) {
	if w.hitsEndpoint == endpoint {
		return
	}
	if endpoint != nil {
		f.addMember(endpoint, w)
	}
	if w.hitsEndpoint != nil {
		f.removeMember(w.hitsEndpoint, w)
	}
	w.hitsEndpoint = endpoint
}
