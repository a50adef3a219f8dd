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

// expire forgets what nobody has registered and who has not been heard of for long.
// While the registry is away nobody can register.
func (f *Fleet) expire(w *worker) {
	if f.registry && !f.Tally.RegistryUp() {
		return
	}
	since := f.now.Add(-retention)
	if !f.registry {
		since = f.now.Add(-unconfirmed)
	}
	w.loose = forgetBefore(w.loose, since)
	for _, e := range w.places() {
		s := w.at(e)
		if s.answered || s.card.OK {
			continue
		}
		if s.ranks = forgetBefore(s.ranks, since); len(s.ranks) == 0 {
			f.leave(w, s)
		}
	}
	if len(w.seats) == 0 && len(w.loose) == 0 && f.now.Sub(w.lastHit) >= retention {
		f.drop(w)
	}
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
