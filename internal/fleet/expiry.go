package fleet

import (
	"slices"
	"time"
)

// activeAfterEvent is how long after its last event a worker that is not registered counts
// as active.
const activeAfterEvent = 10 * time.Second

// unconfirmedRetention is how long after its last event a worker is shown if there is no
// registry. In that case only the lack of events indicates that the worker has left.
const unconfirmedRetention = time.Minute

// expire deletes what is not registered and has sent nothing for the retention time. It does
// nothing during an outage of the registry, because workers cannot register then.
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

// expireUnregistered deletes what the worker sent before since for endpoints where it is not
// registered.
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

// endpoints returns the endpoints of the worker's attachments.
func (w *worker) endpoints() []Endpoint {
	es := make([]Endpoint, len(w.attachments))
	for i := range w.attachments {
		es[i] = w.attachments[i].endpoint.Endpoint
	}
	return es
}

// isActive reports whether the worker has sent something for this endpoint lately.
func (a *attachment) isActive(now time.Time) bool {
	return a.answered || slices.ContainsFunc(a.ranks, func(r rank) bool { return now.Sub(r.lastReceived()) < activeAfterEvent })
}
