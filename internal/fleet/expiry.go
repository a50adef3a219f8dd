package fleet

import (
	"slices"
	"time"
)

// lingering is how long an id that nobody has registered counts as one that still
// speaks, after an event of its.
const lingering = 10 * time.Second

// unconfirmed is how long the worker of an event is shown where nobody registers, so
// that nothing but its silence says that it is gone.
const unconfirmed = time.Minute

// expire forgets what is not registered and has not been heard of for long.
// While the registry is away nobody can register.
func (f *Fleet) expire() {
	if f.registry && !f.Tally.RegistryUp() {
		return
	}
	since := f.now.Add(-retention)
	if !f.registry {
		since = f.now.Add(-unconfirmed)
	}
	f.strangers.each(func(w *worker) {
		if len(w.loose) > 0 {
			w.loose = forgetBefore(w.loose, since)
			f.weigh(w)
		}
		f.expireStrays(w, since)
		if len(w.seats) == 0 && len(w.loose) == 0 && w.waiting == nil && f.now.Sub(w.lastHit) >= retention {
			f.drop(w)
		}
	})
	f.strays.each(func(w *worker) {
		if w.stranger == nil {
			f.expireStrays(w, since)
		}
	})
	f.waiters.each(func(w *worker) { f.expireStrays(w, since) })
}

// expireStrays forgets what was heard before of endpoints where the worker is not registered.
func (f *Fleet) expireStrays(w *worker, since time.Time) {
	if len(w.seats) == 0 && w.waiting == nil {
		return
	}
	if w.waiting != nil {
		w.waiting.ranks = forgetBefore(w.waiting.ranks, since)
		if len(w.waiting.ranks) == 0 {
			f.stopWaiting(w)
		}
	}
	for i := len(w.seats) - 1; i >= 0; i-- {
		s := &w.seats[i]
		if s.answered || s.isListed() {
			continue
		}
		if s.ranks = forgetBefore(s.ranks, since); len(s.ranks) == 0 {
			f.leave(w, s)
		}
	}
	f.weigh(w)
	f.rehome(w)
}

// places are the endpoints that the worker has a seat at.
func (w *worker) places() []Endpoint {
	es := make([]Endpoint, len(w.seats))
	for i := range w.seats {
		es[i] = w.seats[i].endpoint.Endpoint
	}
	return es
}

// speaks reports whether something of the seat was heard lately.
func (s *seat) speaks(now time.Time) bool {
	return s.answered || slices.ContainsFunc(s.ranks, func(r rank) bool { return now.Sub(r.heard()) < lingering })
}
