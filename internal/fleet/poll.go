package fleet

import (
	"slices"

	"dynamo-metrics/internal/stats"
)

// Outcome is what became of the load in one endpoint's statistics.
type Outcome int

const (
	// Reported: the load was decoded.
	Reported Outcome = iota
	// NoLoad: the endpoint carries none ("data": null).
	NoLoad
	// Malformed: there is one, and it could not be decoded.
	Malformed
)

// Report is what one worker said of one endpoint in its answer to a stats poll.
type Report struct {
	Endpoint
	Worker  WorkerID
	Service string // the NATS service name it answered under
	Outcome Outcome
	Load    Load   // with Reported
	Rank    uint32 // whose load it is
}

// BeginPoll starts a stats poll: from now on the Fleet waits for an answer of every
// worker that has registered in a watched component, one for each such component.
func (f *Fleet) BeginPoll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.poll++
	if f.reenrolled {
		f.ask()
	}
	f.expected, f.awaiting, f.heard = f.asked, f.asked, 0
}

// ask chooses the seats that polls wait for. To look at all workers costs as much as
// their answers, so it is done only if there is another choice.
func (f *Fleet) ask() {
	f.asked = 0
	for w := range f.workers.all() {
		for i := range w.seats {
			w.seats[i].awaited = f.awaits(w, i)
			if w.seats[i].awaited {
				f.asked++
			}
		}
	}
	f.reenrolled = false
}

// awaits reports whether polls wait for the component of the worker's ith seat
// because of this seat: a worker answers for all of a component's at once.
func (f *Fleet) awaits(w *worker, i int) bool {
	s := &w.seats[i]
	if !s.registered || s.Publishes || !f.target.CoversComponent(s.endpoint.Component) {
		return false // those that publish need not answer, and most do not
	}
	return !slices.ContainsFunc(w.seats[:i], func(o seat) bool {
		return o.awaited && o.endpoint.Component == s.endpoint.Component
	})
}

// answered notes that the running poll need not wait for the worker's component any more.
func (f *Fleet) answered(w *worker, component string) {
	for i := range w.seats {
		if w.seats[i].endpoint.Component == component {
			f.arrived(&w.seats[i])
		}
	}
}

// arrived notes that the running poll need not wait because of this seat any more.
func (f *Fleet) arrived(s *seat) {
	if s.awaited && s.arrived != f.poll && f.awaiting > 0 {
		f.awaiting--
	}
	s.arrived = f.poll
}

// hear notes that the seat has answered the poll.
func (f *Fleet) hear(s *seat) {
	f.unhear(s)
	s.answered, s.missed, s.poll = true, 0, f.poll
	f.answering++
	f.heard++
}

// unhear forgets that the seat has answered.
func (f *Fleet) unhear(s *seat) {
	if !s.answered {
		return
	}
	s.answered = false
	f.answering--
	if s.poll == f.poll {
		f.heard--
	}
}

// PollAnswered reports whether the running poll has nobody to wait for: every
// registered worker has answered. It is never true where nobody is registered or
// static workers are known, since nobody can say how many of those there are.
func (f *Fleet) PollAnswered() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pollAnswered()
}

func (f *Fleet) pollAnswered() bool {
	return f.expected > 0 && f.awaiting == 0 && len(f.workers.static) == 0
}

// EndPoll ends the running poll. If it counts, those who did not answer have
// missed it; it must not count if the connection to NATS or etcd broke meanwhile.
func (f *Fleet) EndPoll(counts bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expected, f.awaiting = 0, 0
	if !counts || f.heard == f.answering {
		return // nobody has missed it
	}
	for w := range f.workers.all() {
		f.miss(w)
	}
}

// miss counts the poll against those seats of the worker that were left unanswered.
func (f *Fleet) miss(w *worker) {
	changed := false
	for i := len(w.seats) - 1; i >= 0; i-- {
		s := &w.seats[i]
		if !s.answered || s.poll == f.poll {
			continue
		}
		s.missed++
		if s.missed < missesToForget {
			continue
		}
		changed = true
		f.unhear(s)
		s.malformed, s.ranks = false, forgetPolled(s.ranks)
		if s.carried {
			s.ranks, w.loose = nil, nil // what it also published is no newer than its last answer
		}
		s.mute = s.Publishes
		if !s.isListed() && len(s.ranks) == 0 {
			f.leave(w, s)
		}
	}
	if changed {
		f.weigh(w)
		f.settle(w)
	}
}

// Report applies one answer to a poll, whenever it arrives: what a worker said of
// each of its endpoints, all at once. Of endpoints that are not watched only the
// fact that the worker answered is kept. It reports what PollAnswered then does.
func (f *Fleet) Report(answer ...Report) (pollAnswered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range answer {
		f.report(&answer[i])
	}
	return f.pollAnswered()
}

func (f *Fleet) report(r *Report) {
	w := f.workers.of(r.Worker)
	if w != nil {
		f.answered(w, r.Component)
	}
	s := w.at(r.Endpoint)
	if !f.target.Covers(r.Endpoint) || s == nil && r.Outcome == NoLoad {
		return
	}
	moved := s == nil
	if moved {
		by := f.proofOf(r.Worker)
		if by == heard && f.endpoints[r.Endpoint] == nil {
			f.Tally.Reject(stats.StatsReply, stats.NotRegistered)
			return
		}
		if s = f.seat(r.Worker, r.Endpoint, by); s == nil {
			return
		}
		w = f.workers.of(r.Worker)
	}
	s.endpoint.served = s.endpoint.served || !f.registry
	if !s.registered {
		f.touch(w)
	}
	moved = moved || !s.carried && r.Outcome == Reported
	s.carried = s.carried || r.Outcome == Reported
	f.hear(s)
	s.service, s.mute = r.Service, false
	s.noLoad, s.malformed = r.Outcome == NoLoad && !s.Publishes, r.Outcome == Malformed
	if r.Outcome == Reported {
		f.setLoad(w, &s.ranks, r.Rank, r.Load, FromStats)
		s.endpoint.useful = true
	} else if ranks := len(s.ranks); ranks > 0 {
		if s.ranks = forgetPolled(s.ranks); len(s.ranks) < ranks {
			f.weigh(w)
		}
	}
	if moved {
		f.rehome(w)
	}
}
