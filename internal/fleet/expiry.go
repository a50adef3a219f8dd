package fleet

import (
	"slices"
	"time"
)

// lingering is how long an id that nobody has registered counts as one that still
// speaks, after an event of its.
const activeAfterEvent = 10 * time.Second

// unconfirmed is how long the worker of an event is shown where nobody registers, so
// that nothing but its silence says that it is gone.
const unconfirmedRetention = time.Minute

// expire forgets what is not registered and has not been heard of for long.
// While the registry is away nobody can register.
func (f *Fleet) expire() {
	if f.registry && !f.Stats.RegistryUp() {
		return
	}
	since := f.now.Add(-retention)
	if !f.registry {
		since = f.now.Add(-unconfirmedRetention)
	}
	f.unregisteredWorkers.each(func(w *worker) {
		if len(w.unattributed) > 0 {
			w.unattributed = forgetBefore(w.unattributed, since)
			f.updateFootprint(w)
		}
		f.expireUnregistered(w, since)
		if len(w.attachments) == 0 && len(w.unattributed) == 0 && w.pending == nil && f.now.Sub(w.lastHit) >= retention {
			f.drop(w)
		}
	})
	f.unregisteredAttachments.each(func(w *worker) {
		if w.unregisteredElem == nil {
			f.expireUnregistered(w, since)
		}
	})
	f.pendingWorkers.each(func(w *worker) { f.expireUnregistered(w, since) })
}

// expireStrays forgets what was heard before of endpoints where the worker is not registered.
func (f *Fleet) expireUnregistered(w *worker, since time.Time) {
	if len(w.attachments) == 0 && w.pending == nil {
		return
	}
	if w.pending != nil {
		w.pending.ranks = forgetBefore(w.pending.ranks, since)
		if len(w.pending.ranks) == 0 {
			f.removePending(w)
		}
	}
	for i := len(w.attachments) - 1; i >= 0; i-- {
		a := &w.attachments[i]
		if a.answered || a.isListed() {
			continue
		}
		if a.ranks = forgetBefore(a.ranks, since); len(a.ranks) == 0 {
			f.detach(w, a)
		}
	}
	f.updateFootprint(w)
	f.updateHitsEndpoint(w)
}

// places are the endpoints that the worker has a seat at.
func (w *worker) endpoints() []Endpoint {
	es := make([]Endpoint, len(w.attachments))
	for i := range w.attachments {
		es[i] = w.attachments[i].endpoint.Endpoint
	}
	return es
}

// speaks reports whether something of the seat was heard lately.
func (a *attachment) isActive(now time.Time) bool {
	return a.answered || slices.ContainsFunc(a.ranks, func(r rank) bool { return now.Sub(r.lastReceived()) < activeAfterEvent })
}
