package fleet

import (
	"maps"
	"slices"
	"time"
)

// lingering is how long an id that nobody has registered counts as one that still
// speaks, after an event of its.
const lingering = 10 * time.Second

// unconfirmed is how long the worker of an event is shown where nobody registers, so
// that nothing but its silence says that it is gone.
const unconfirmed = time.Minute

// Origin is which rank of which worker an event speaks of. Its Endpoint has no name
// where only the component is known, and is empty where not even that is (to 1.3).
type Origin struct {
	Endpoint
	Worker uint64
	Rank   uint32
}

// Publish notes a load that a worker has published. It comes when something has
// changed and is never repeated, so it lives as long as the worker is registered;
// one that comes before the registration waits for it.
func (f *Fleet) Publish(from Origin, source Source, l Load) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, s := f.origin(from)
	if w == nil {
		return
	}
	f.setLoad(w.ranksOf(s), from.Rank, l, source)
}

// origin is the worker and the seat that an event belongs to. The seat is nil where
// the event does not name the endpoint: it is then decided anew in each Snapshot,
// since what decides may come after the event. Both are nil where there is no room,
// or where the endpoint is not watched.
func (f *Fleet) origin(from Origin) (w *worker, s *seat) {
	id := WorkerID{Lease: from.Worker}
	if from.Name == "" {
		if from.Component != "" && !f.target.CoversComponent(from.Component) {
			return nil, nil
		}
		known := f.workers[id] != nil
		if w = f.worker(id, false); w == nil {
			return nil, nil
		}
		if !known {
			f.rehome(w)
		}
		w.looseOf = from.Component
		if s := w.bearer(w.looseOf); s != nil {
			s.mute = false
		}
		return w, nil
	}
	if !f.target.Covers(from.Endpoint) {
		return nil, nil
	}
	if s = f.workers[id].at(from.Endpoint); s == nil {
		if s = f.seat(id, from.Endpoint, false); s == nil {
			return nil, nil
		}
		f.rehome(f.workers[id])
	}
	s.mute = false
	return f.workers[id], s
}

// ranksOf are the ranks at a seat, or of events without an endpoint.
func (w *worker) ranksOf(s *seat) *[]rank {
	if s == nil {
		return &w.loose
	}
	return &s.ranks
}

// Pass is what one rank of a worker's engine says of one forward pass of its model,
// or while it has none to do (1.1 to 1.6).
type Pass struct {
	Counter uint64  // one more with every event of the rank, idle or not; 0: not counted
	Seconds float64 // 0 while idle, and then it was no pass
	Late    bool    // a newer one came before it: it says nothing of the present

	Running, Waiting  uint64 // requests
	PrefillTokens     uint64 // computed
	DecodeTokens      uint64 // made
	QueuedTokens      uint64 // prefill tokens of the requests that wait
	ScheduledKVTokens uint64 // in the KV cache, of the requests that run
}

// passes is what the passes of one rank add up to.
type passes struct {
	at      time.Time
	last    Pass
	count   uint64
	prefill uint64
	decode  uint64
	missed  uint64
	seconds Histogram
}

// maxGap is a gap in a counter beyond which it is not believed: it began anew.
const maxGap = 1 << 32

// Pass books one forward pass.
func (f *Fleet) Pass(from Origin, p Pass) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, s := f.origin(from)
	if w == nil {
		return
	}
	if r := f.rankOf(w.ranksOf(s), from.Rank); r != nil {
		if r.passes == nil {
			r.passes = &passes{seconds: NewHistogram(PassBounds)}
		}
		r.passes.book(p, f.now)
	}
}

func (r *passes) book(p Pass, now time.Time) {
	if !p.Late {
		if gap := p.Counter - r.last.Counter - 1; r.last.Counter > 0 && p.Counter > r.last.Counter && gap < maxGap {
			r.missed += gap
		}
		r.at, r.last = now, p
	}
	if p.Seconds == 0 {
		return
	}
	r.count++
	r.prefill += p.PrefillTokens
	r.decode += p.DecodeTokens
	r.seconds.Observe(p.Seconds)
}

// bearer is the seat that events without an endpoint belong to: the one with stats
// data, else the one of the model card, else one that events have named, else the
// only one; of equals the first by name. Only those of the component count, if it is
// known. It is nil for a worker without a seat there.
func (w *worker) bearer(component string) *seat {
	var best *seat
	for i := range w.seats {
		s := &w.seats[i]
		if component != "" && s.endpoint.Component != component {
			continue
		}
		if best == nil || s.bears() > best.bears() ||
			s.bears() == best.bears() && compareEndpoints(s.endpoint.Endpoint, best.endpoint.Endpoint) < 0 {
			best = s
		}
	}
	return best
}

// bears says how sure it is that the worker's load is at this seat; 0: nothing says so.
func (s *seat) bears() int {
	switch {
	case s.carried:
		return 3
	case s.card.OK:
		return 2
	case len(s.ranks) > 0:
		return 1
	}
	return 0
}

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

// Publishing reports whether a worker that publishes its load is registered at a
// watched endpoint. If the flags name an endpoint and the load of none of them is
// there, elsewhere are the endpoints of the component that have it.
func (f *Fleet) Publishing() (found bool, elsewhere []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	others := make(map[string]bool)
	here := false
	for _, w := range f.workers {
		s := w.at(Endpoint(f.target))
		if f.target.Name == "" {
			found = found || slices.ContainsFunc(w.seats, func(s seat) bool { return s.registered && s.Publishes && s.endpoint.watched })
			continue
		}
		if s == nil || !s.registered || !s.Publishes {
			continue
		}
		found = true
		if b := w.bearer(f.target.Component); b != s && b.bears() > 0 {
			others[b.endpoint.Name] = true
		} else {
			here = true
		}
	}
	if here {
		return found, nil
	}
	return found, slices.Sorted(maps.Keys(others))
}
