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
func (f *Fleet) Hit(lease, isl, overlap uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := WorkerID{Lease: lease}
	w := f.workers.of(id)
	if w == nil {
		if w = f.worker(id, heard); w == nil {
			return
		}
		f.rehome(w)
	}
	if w.home == nil {
		f.Tally.ForeignEvents.Add(1)
		return
	}
	f.strangers.touch(w.stranger)
	f.hit(w, isl, overlap)
}

// hit books on a worker that has a home.
func (f *Fleet) hit(w *worker, isl, overlap uint64) {
	w.hits.ISLBlocks += isl
	w.hits.OverlapBlocks += overlap
	w.hits.Events++
	w.lastHit = f.now
	w.home.events++
	w.home.useful = true
}

// rehome decides where the worker's hits are shown. One that has left every
// endpoint keeps its last home, so that its counters stay where they were.
func (f *Fleet) rehome(w *worker) {
	if len(w.seats) > 0 {
		f.setHome(w, f.homeOf(w))
	} else if w.home == nil || w.hits.Events == 0 {
		f.setHome(w, f.homeOfUnknown())
	}
}

// homeOf is the watched endpoint that a worker's hits belong to, nil if it is of
// another component: the endpoint named by the flags; else the one that bears its
// load, even while it is silent; else, until one does, where its counters are
// already; else the first by name.
func (f *Fleet) homeOf(w *worker) *endpoint {
	best := w.bearer(f.target.Component)
	if best == nil {
		return nil
	}
	if f.target.Name != "" {
		return f.namedBeside(best)
	}
	if best.bears() == 0 && w.hits.Events > 0 && w.home != nil && w.home.Endpoint != f.unknown {
		return w.home
	}
	return best.endpoint
}

// namedBeside is the endpoint of the flags in the namespace of a seat; nil if there is no
// room for it, or if nothing but an event says that there is such a namespace.
func (f *Fleet) namedBeside(s *seat) *endpoint {
	named := Endpoint(f.target)
	named.Namespace = s.endpoint.Namespace
	if e := f.endpoints[named]; e != nil || !s.isListed() && f.registry {
		return e
	}
	return f.open(named, alone, nil)
}

func (f *Fleet) homeOfUnknown() *endpoint {
	e := f.unknown
	if f.target.Name != "" && !f.target.Several() {
		e = Endpoint(f.target)
	}
	if p := f.endpoints[e]; p != nil {
		return p
	}
	return f.add(e, ours)
}

func (f *Fleet) setHome(w *worker, home *endpoint) {
	if w.home == home {
		return
	}
	if home != nil {
		f.join(home, w)
	}
	if w.home != nil {
		f.part(w.home, w)
	}
	w.home = home
}
