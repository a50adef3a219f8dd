package fleet

// Presence is a worker that is there, at the watched endpoint where its load is, as far as is
// known.
type Presence struct {
	Endpoint
	ID       WorkerID
	Expected bool // its load is expected there: else it may be no worker, or one that is not watched
	// Answers is whether it answered the last poll, or missed two; absent where it has never
	// answered any, and where neither is so.
	Answers Opt[bool]
}

// Present appends the workers that are there: those that are registered, and those that have
// something to say where there is no registry, or that are static.
func (f *Fleet) Present(all []Presence) []Presence {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.findLoadless()
	for w := range f.workers.all() {
		var best *seat
		expected := false
		for i := range w.seats { // not by value: a seat is large
			s := &w.seats[i]
			if !s.endpoint.watched || !f.isThere(w, s) {
				continue
			}
			bears := !w.isExcused(s)
			if best == nil || bears && !expected || bears == expected && s.before(best) {
				best, expected = s, bears
			}
		}
		if best != nil {
			all = append(all, Presence{best.endpoint.Endpoint, w.id, expected, f.answers(best)})
		}
	}
	return all
}

// isThere reports whether metrics show a worker there, if they show the endpoint: one that
// is heard without being registered is there if that is how it was started, and not, if its
// registration is gone.
func (f *Fleet) isThere(w *worker, s *seat) bool {
	return s.registered || (w.id.IsStatic() || !f.registry) && (s.answered || len(s.ranks) > 0)
}

// answers is Presence.Answers. A poll that is under way does not count, nor do those during an
// outage: no worker can have missed those.
func (f *Fleet) answers(s *seat) Opt[bool] {
	switch {
	case !s.registered || !s.carried:
		return Opt[bool]{}
	case !s.answered:
		return Some(false)
	case s.poll+1 >= f.poll:
		return Some(true)
	}
	return Opt[bool]{}
}

// Targeted is how many workers are there at what the flags name; absent where they name no
// component, and before it is known who is registered.
func (f *Fleet) Targeted() Opt[int] {
	if f.target.Component == "" || !f.IsSynced() {
		return Opt[int]{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for w := range f.workers.all() {
		for i := range w.seats { // not by value: a seat is large
			if s := &w.seats[i]; s.endpoint.watched && f.isThere(w, s) {
				n++
				break
			}
		}
	}
	return Some(n)
}
