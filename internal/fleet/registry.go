package fleet

import "slices"

// Register notes that a worker has registered an endpoint.
func (f *Fleet) Register(in Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.register(in)
}

func (f *Fleet) register(in Instance) {
	id := WorkerID{Lease: in.ID}
	if s := f.workers[id].at(in.Endpoint); s != nil && s.registered {
		return
	}
	s := f.seat(id, in.Endpoint, true)
	if s == nil {
		return
	}
	s.registered = true
	w := f.workers[id]
	f.setStranger(w, false)
	f.rehome(w)
}

// Deregister notes that a worker's registration of an endpoint is gone. Its load
// goes at once, and later answers bring nothing back until it registers again.
func (f *Fleet) Deregister(in Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.workers[WorkerID{Lease: in.ID}]; w != nil {
		f.deregister(w, in.Endpoint)
	}
}

func (f *Fleet) deregister(w *worker, e Endpoint) {
	s := w.at(e)
	if s == nil || !s.registered {
		return
	}
	f.leave(w, s)
	if !w.registered() {
		f.setStranger(w, true)
	}
	f.settle(w)
}

// Sync takes the whole registry at one moment: who is not in it is gone.
func (f *Fleet) Sync(all []Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	present := make(map[Instance]bool, len(all))
	for _, in := range all {
		present[in] = true
	}
	for _, w := range f.workers {
		for _, e := range w.registrations() {
			if !present[Instance{Endpoint: e, ID: w.id.Lease}] {
				f.deregister(w, e)
			}
		}
	}
	f.refused = false
	for _, in := range all {
		f.register(in)
	}
	if !f.knows() {
		close(f.synced)
	}
}

// knows reports whether it is known who is registered, or that nobody registers.
func (f *Fleet) knows() bool {
	select {
	case <-f.synced:
		return true
	default:
		return false
	}
}

// WantsSync reports whether the registry should be listed anew: somebody found no
// room, and now there is some, or a stranger to push out.
func (f *Fleet) WantsSync() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused && (len(f.workers) < f.limit || len(f.strangers) > f.statics)
}

// Registered lists the endpoints that workers have registered, sorted, watched or not.
func (f *Fleet) Registered() []Endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	set := make(map[Endpoint]bool)
	for _, w := range f.workers {
		for _, e := range w.registrations() {
			set[e] = true
		}
	}
	all := make([]Endpoint, 0, len(set))
	for e := range set {
		all = append(all, e)
	}
	slices.SortFunc(all, compareEndpoints)
	return all
}

// Registrations lists the endpoints that one worker has registered.
func (f *Fleet) Registrations(id uint64) []Endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.workers[WorkerID{Lease: id}]; w != nil {
		return w.registrations()
	}
	return nil
}

// IsRegistered reports whether this worker has registered this endpoint.
func (f *Fleet) IsRegistered(in Instance) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.workers[WorkerID{Lease: in.ID}].at(in.Endpoint)
	return s != nil && s.registered
}

// registrations are the endpoints that the worker has registered.
func (w *worker) registrations() []Endpoint {
	var es []Endpoint
	for i := range w.seats {
		if w.seats[i].registered {
			es = append(es, w.seats[i].endpoint.Endpoint)
		}
	}
	return es
}

func (w *worker) registered() bool {
	return slices.ContainsFunc(w.seats, func(s seat) bool { return s.registered })
}
