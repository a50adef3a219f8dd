package fleet

import "slices"

// Registration is what a worker's registration of an endpoint says of its release.
type Registration struct {
	// Publishes: its loads come as events (from 0.6 on), and if it answers polls
	// nevertheless, an answer without a load means nothing.
	Publishes bool
	// NATS: it takes requests over NATS.
	NATS bool
	// Transport is where it takes requests otherwise, host:port and what follows. With
	// Kubernetes discovery a restarted container keeps its id, and only this tells its
	// process from the one before.
	Transport string
	// Metrics is host:port of its own metrics page, where the registry says it
	// (Kubernetes discovery); empty if not.
	Metrics string
}

// Listing is what the registry holds at one moment.
type Listing struct {
	Instances map[Instance]Registration
	Cards     map[Instance]Card
	Channels  map[string]Channel // by their keys
}

// Register notes that a worker has registered an endpoint.
func (f *Fleet) Register(in Instance, r Registration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.register(in, r)
}

func (f *Fleet) register(in Instance, r Registration) {
	id := WorkerID{Lease: in.ID}
	if w := f.workers.of(id); w != nil {
		if s := w.at(in.Endpoint); s != nil && s.registered {
			if s.Transport != r.Transport {
				s.ranks, w.loose = nil, nil // of a process that is no more
			}
			f.enrol(s, -1)
			s.Registration = r
			f.enrol(s, 1)
			return
		}
	}
	s := f.seat(id, in.Endpoint, true)
	if s == nil {
		return
	}
	s.registered, s.Registration = true, r
	f.enrol(s, 1)
	w := f.workers.of(id)
	f.setStranger(w, false)
	f.rehome(w)
}

// Deregister notes that a worker's registration of an endpoint is gone. Its load
// goes at once, and later answers bring nothing back until it registers again.
func (f *Fleet) Deregister(in Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.workers.of(WorkerID{Lease: in.ID}); w != nil {
		f.deregister(w, in.Endpoint)
	}
}

func (f *Fleet) deregister(w *worker, e Endpoint) {
	s := w.at(e)
	if s == nil || !s.registered {
		return
	}
	if s == w.bearer(w.looseOf) {
		w.loose = nil
	}
	f.enrol(s, -1)
	s.registered = false
	if card := s.card; card.OK {
		f.arrived(s)
		f.unhear(s)
		*s = seat{endpoint: s.endpoint, card: card} // it goes with its own key
	} else {
		f.leave(w, s)
	}
	if !w.registered() {
		w.loose = nil
	}
	f.setStranger(w, !w.listed())
	f.settle(w)
}

// Sync takes the whole registry at one moment: what is not in it is gone.
func (f *Fleet) Sync(all Listing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.workers.all() {
		for _, e := range w.places() {
			in := Instance{Endpoint: e, ID: w.id.Lease}
			if _, stays := all.Instances[in]; !stays {
				f.deregister(w, e)
			}
			if _, stays := all.Cards[in]; !stays {
				f.dropCard(w, e)
			}
		}
	}
	f.refused = false
	for in, r := range all.Instances {
		f.register(in, r)
	}
	for in, c := range all.Cards {
		f.setCard(in, c)
	}
	f.syncChannels(all.Channels)
	if !f.IsSynced() {
		close(f.synced)
	}
}

// HasRegistry reports whether workers register anywhere.
func (f *Fleet) HasRegistry() bool { return f.registry }

// IsSynced reports whether it is known who is registered, or that nobody registers.
func (f *Fleet) IsSynced() bool {
	select {
	case <-f.synced:
		return true
	default:
		return false
	}
}

// WantsSync reports whether the registry should be listed anew: somebody found no
// room, or a channel did, and now there is some, or a stranger to push out.
func (f *Fleet) WantsSync() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wantsChannels() || f.refused && (f.workers.len() < f.limit || len(f.strangers) > len(f.workers.static))
}

// Registered lists the endpoints that workers have registered, sorted, watched or not.
func (f *Fleet) Registered() []Endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := []Endpoint{}
	for _, e := range f.endpoints {
		if e.here > 0 {
			all = append(all, e.Endpoint)
		}
	}
	slices.SortFunc(all, compareEndpoints)
	return all
}

// Headcount is how many workers have registered an endpoint.
type Headcount struct {
	Endpoint
	Workers int
}

// Census counts who has registered each endpoint, watched or not, sorted.
func (f *Fleet) Census() []Headcount {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []Headcount
	for _, e := range f.endpoints {
		if e.here > 0 {
			all = append(all, Headcount{e.Endpoint, e.here})
		}
	}
	slices.SortFunc(all, func(a, b Headcount) int { return compareEndpoints(a.Endpoint, b.Endpoint) })
	return all
}

// Registrations lists the endpoints that one worker has registered.
func (f *Fleet) Registrations(id uint64) []Endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.workers.of(WorkerID{Lease: id}); w != nil {
		return w.registrations()
	}
	return nil
}

// IsRegistered reports whether this worker has registered this endpoint.
func (f *Fleet) IsRegistered(in Instance) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.workers.of(WorkerID{Lease: in.ID}).at(in.Endpoint)
	return s != nil && s.registered
}

// Openings is how often a registration was the only one of its endpoint: while it
// stays the same, Registered names no endpoint that it did not name before.
func (f *Fleet) Openings() uint64 { return f.openings.Load() }

// enrol counts a registered seat at its endpoint, once or once less.
func (f *Fleet) enrol(s *seat, once int) {
	if !s.registered {
		return
	}
	f.reenrolled = true
	f.enrolled += once
	if s.NATS {
		f.enrolledOnNATS += once
	}
	s.endpoint.here += once
	if once > 0 && s.endpoint.here == 1 {
		f.openings.Add(1)
	}
	if s.Publishes {
		s.endpoint.speaking += once
	}
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

// listed reports whether the registry has anything of the worker.
func (w *worker) listed() bool {
	return slices.ContainsFunc(w.seats, func(s seat) bool { return s.registered || s.card.OK })
}
