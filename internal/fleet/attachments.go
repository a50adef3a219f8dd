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

// isListed reports whether the registry has the worker there.
func (s *seat) isListed() bool { return s.registered || s.card.OK }

// isListed reports whether the registry has anything of the worker.
func (w *worker) isListed() bool {
	for i := range w.seats {
		if w.seats[i].isListed() {
			return true
		}
	}
	return false
}

// worker is the record of id, made if there is room; nil if there is none.
func (f *Fleet) worker(id WorkerID, by proof) *worker {
	if w := f.workers.of(id); w != nil {
		return w
	}
	if !f.roomForWorker(id, by) {
		return nil
	}
	w := &worker{id: id, label: id.String()}
	f.workers.add(w)
	f.strangers.keep(w, &w.stranger, !id.IsStatic())
	return w
}

// seat is the worker's seat at e, made if there is room; nil if there is none. One that
// is new has what its worker has said of it before.
func (f *Fleet) seat(id WorkerID, e Endpoint, by proof) *seat {
	if s := f.workers.of(id).at(e); s != nil {
		return s
	}
	w := f.worker(id, by)
	if w == nil {
		return nil
	}
	p := (*endpoint)(nil)
	if f.roomForAttachment(w, by) {
		p = f.open(e, by, w)
	}
	if p == nil {
		f.dropIfEmpty(w)
		return nil
	}
	w.seats = append(w.seats, seat{endpoint: p})
	s := &w.seats[len(w.seats)-1]
	if w.id.IsStatic() {
		p.static++
	}
	f.join(p, w)
	if w.waiting != nil && w.waiting.at == e {
		s.ranks = w.waiting.ranks
		f.stopWaiting(w)
	}
	f.weigh(w)
	return s
}

// relisted follows a change of what the registry has of the seat, which it had before or not.
func (f *Fleet) relisted(w *worker, s *seat, before bool) {
	switch now := s.isListed(); {
	case now && !before:
		s.endpoint.listed++
		f.restand(s.endpoint)
	case before && !now:
		s.endpoint.listed--
		f.restand(s.endpoint)
	}
	f.strangers.keep(w, &w.stranger, !w.id.IsStatic() && !w.isListed())
	f.weigh(w)
	f.trim(w, s)
}

// leave takes the worker from its seat; what else is known of it stays.
func (f *Fleet) leave(w *worker, s *seat) {
	f.arrived(s)
	f.unhear(s)
	f.enrol(s, -1)
	e := s.endpoint
	if s.isListed() {
		e.listed--
	}
	if w.id.IsStatic() {
		e.static--
	}
	i := slices.IndexFunc(w.seats, func(o seat) bool { return o.endpoint == e })
	w.seats = slices.Delete(w.seats, i, i+1)
	f.part(e, w)
}

// settle follows a change of the worker's seats: its hits may move, and a worker
// of which nothing is left is forgotten.
func (f *Fleet) settle(w *worker) {
	if !f.dropIfEmpty(w) {
		f.rehome(w)
	}
}

// dropIfEmpty forgets a worker with neither seats nor hits nor anything that waits for a seat.
func (f *Fleet) dropIfEmpty(w *worker) bool {
	empty := len(w.seats) == 0 && len(w.loose) == 0 && w.waiting == nil && (w.hits.Events == 0 || w.home == nil)
	if empty {
		f.drop(w)
	}
	return empty
}

// drop forgets everything about the worker.
func (f *Fleet) drop(w *worker) {
	for len(w.seats) > 0 {
		f.leave(w, &w.seats[len(w.seats)-1])
	}
	w.loose = nil
	f.stopWaiting(w)
	f.setHome(w, nil)
	f.hold(w, holding{})
	f.strays.keep(w, &w.stray, false)
	f.strangers.keep(w, &w.stranger, false)
	f.workers.remove(w)
}
