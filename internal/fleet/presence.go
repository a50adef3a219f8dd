package fleet

// Presence is a worker that is there, at the watched endpoint where its load is, as far as is
// known.
type Presence struct {
	Endpoint
	ID       WorkerID
	Expected bool // its load is expected there: else it may be no worker, or one that is not watched
	// Answers is whether it answered the last poll, or missed two; absent where it has never
	// answered any, and where neither is so.
	Answered Opt[bool]
}

// Present appends the workers that are there: those that are registered, and those that have
// something to say where there is no registry, or that are static.
func (f *Fleet) AppendPresent(all []Presence) []Presence {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.locateLoads()
	for w := range f.workers.all() {
		var best *attachment
		expected := false
		for i := range w.attachments { // not by value: a seat is large
			a := &w.attachments[i]
			if !a.endpoint.watched || !f.isPresent(w, a) {
				continue
			}
			hasLocated := !w.expectsNoLoad(a)
			if best == nil || hasLocated && !expected || hasLocated == expected && a.before(best) {
				best, expected = a, hasLocated
			}
		}
		if best != nil {
			all = append(all, Presence{best.endpoint.Endpoint, w.id, expected, f.pollAnswer(best)})
		}
	}
	return all
}

// isThere reports whether metrics show a worker there, if they show the endpoint: one that
// is heard without being registered is there if that is how it was started, and not, if its
// registration is gone.
func (f *Fleet) isPresent(w *worker, a *attachment) bool {
	return a.registered || (w.id.IsStatic() || !f.registry) && (a.answered || len(a.ranks) > 0)
}

// answers is Presence.Answers. A poll that is under way does not count, nor do those during an
// outage: no worker can have missed those.
func (f *Fleet) pollAnswer(a *attachment) Opt[bool] {
	switch {
	case !a.registered || !a.reportedLoad:
		return Opt[bool]{}
	case !a.answered:
		return Some(false)
	case a.lastPoll+1 >= f.poll:
		return Some(true)
	}
	return Opt[bool]{}
}

// Targeted is how many workers are there at what the flags name; absent where they name no
// component, and before it is known who is registered.
func (f *Fleet) TargetWorkers() Opt[int] {
	if f.target.Component == "" || !f.IsSynced() {
		return Opt[int]{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for w := range f.workers.all() {
		for i := range w.attachments { // not by value: a seat is large
			if a := &w.attachments[i]; a.endpoint.watched && f.isPresent(w, a) {
				n++
				break
			}
		}
	}
	return Some(n)
}
