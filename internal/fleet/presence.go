package fleet

// Presence is a worker that is present at a watched endpoint. If the worker is at several, this
// is the one with its load, as far as that is known.
type Presence struct {
	Endpoint
	ID WorkerID
	// Expected means that its load is expected there. Otherwise it may not be a worker, or its
	// load may be at an endpoint that is not watched.
	Expected bool
	// Answered is true if it answered the last poll, and false if it missed two. It is absent
	// if it has never answered, and between these two.
	Answered Opt[bool]
}

// AppendPresent appends the workers that are present to all: the registered workers, and also
// those that answer or publish if they are static, or if there is no registry.
func (f *Fleet) AppendPresent(all []Presence) []Presence {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.locateLoads()
	for w := range f.workers.all() {
		var best *attachment
		expected := false
		for i := range w.attachments { // not by value: an attachment is large
			a := &w.attachments[i]
			if !a.endpoint.watched || !f.isPresent(w, a) {
				continue
			}
			expectsLoad := !w.expectsNoLoad(a)
			if best == nil || expectsLoad && !expected || expectsLoad == expected && a.before(best) {
				best, expected = a, expectsLoad
			}
		}
		if best != nil {
			all = append(all, Presence{best.endpoint.Endpoint, w.id, expected, f.pollAnswer(best)})
		}
	}
	return all
}

// isPresent reports whether the metrics of the attachment's endpoint, if it is shown, include
// the worker. A worker that answers or publishes without a registration is present if it never
// registers, but not if its registration was deleted.
func (f *Fleet) isPresent(w *worker, a *attachment) bool {
	return a.registered || (w.id.IsStatic() || !f.registry) && (a.answered || len(a.ranks) > 0)
}

// pollAnswer returns Presence.Answered. It ignores the current poll, and polls during an
// outage, which no worker can have missed.
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

// TargetWorkers returns the number of present workers at the endpoints that the flags name.
// It is absent if the flags name no component, and before the first Sync.
func (f *Fleet) TargetWorkers() Opt[int] {
	if f.target.Component == "" || !f.IsSynced() {
		return Opt[int]{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for w := range f.workers.all() {
		for i := range w.attachments { // not by value: an attachment is large
			if a := &w.attachments[i]; a.endpoint.watched && f.isPresent(w, a) {
				n++
				break
			}
		}
	}
	return Some(n)
}
