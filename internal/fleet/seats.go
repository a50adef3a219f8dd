package fleet

import "slices"

// at is the worker's seat at e, nil if it has none.
func (w *worker) at(e Endpoint) *seat {
	if w == nil {
		return nil
	}
	for i := range w.seats {
		if w.seats[i].endpoint.Endpoint == e {
			return &w.seats[i]
		}
	}
	return nil
}

// seatAt is the worker's seat at e, nil if it has none.
func (w *worker) seatAt(e *endpoint) *seat {
	for i := range w.seats {
		if w.seats[i].endpoint == e {
			return &w.seats[i]
		}
	}
	return nil
}

// endpoint is the record of e, made if there is none.
func (f *Fleet) endpoint(e Endpoint) *endpoint {
	p := f.endpoints[e]
	if p == nil {
		p = &endpoint{Endpoint: e, watched: f.target.Covers(e)}
		f.endpoints[e] = p
		f.reseated = true
	}
	return p
}

// release drops one reference to e. An endpoint that never had anything to show goes with it.
func (f *Fleet) release(e *endpoint) {
	e.refs--
	f.reseated = true
	e.lastSeen = f.now
	if e.refs == 0 && !e.named && !e.useful {
		delete(f.endpoints, e.Endpoint)
	}
}

// worker is the record of id, made if there is room; nil if there is none.
func (f *Fleet) worker(id WorkerID, registering bool) *worker {
	if w := f.workers.of(id); w != nil {
		return w
	}
	if !f.room(registering) {
		return nil
	}
	w := &worker{id: id, label: id.String(), stranger: true}
	f.workers.add(w)
	f.strangers[id] = w
	return w
}

// room reports whether one more can be tracked. A worker that registers pushes out
// an id that nobody has registered. Whoever is turned away or pushed out is counted.
func (f *Fleet) room(registering bool) bool {
	if f.workers.len() < f.limit {
		return true
	}
	f.Tally.TurnAway(WorkerLimit)
	if !registering {
		return false
	}
	for _, w := range f.strangers {
		if !w.id.IsStatic() {
			f.drop(w)
			return true
		}
	}
	f.refused = true
	return false
}

// seat is the worker's seat at e, made if there is room; nil if there is none.
func (f *Fleet) seat(id WorkerID, e Endpoint, registering bool) *seat {
	w := f.worker(id, registering)
	if w == nil {
		return nil
	}
	if s := w.at(e); s != nil {
		return s
	}
	if len(w.seats) >= maxSeats {
		f.Tally.TurnAway(AttachmentLimit)
		return nil
	}
	p := f.endpoint(e)
	p.refs++
	f.reseated = true
	w.seats = append(w.seats, seat{endpoint: p})
	return &w.seats[len(w.seats)-1]
}

// leave takes the worker from its seat; what else is known of it stays.
func (f *Fleet) leave(w *worker, s *seat) {
	f.arrived(s)
	f.unhear(s)
	f.release(s.endpoint)
	i := slices.IndexFunc(w.seats, func(o seat) bool { return o.endpoint == s.endpoint })
	w.seats = slices.Delete(w.seats, i, i+1)
}

// settle follows a change of the worker's seats: its hits may move, and a worker
// with neither seats nor hits is forgotten.
func (f *Fleet) settle(w *worker) {
	if len(w.seats) == 0 && len(w.loose) == 0 && (w.hits.Events == 0 || w.home == nil) {
		f.drop(w)
		return
	}
	f.rehome(w)
}

// drop forgets everything about the worker.
func (f *Fleet) drop(w *worker) {
	for i := range w.seats {
		f.arrived(&w.seats[i])
		f.unhear(&w.seats[i])
		f.enrol(&w.seats[i], -1)
		f.release(w.seats[i].endpoint)
	}
	w.seats, w.loose = nil, nil
	f.setHome(w, nil)
	f.workers.remove(w)
	delete(f.strangers, w.id)
}

func (f *Fleet) setStranger(w *worker, stranger bool) {
	if w.stranger == stranger {
		return
	}
	w.stranger = stranger
	if stranger {
		f.strangers[w.id] = w
	} else {
		delete(f.strangers, w.id)
	}
}
