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
type PollReply struct {
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
	if f.pollTargetsStale {
		f.choosePollTargets()
	}
	f.pollExpected, f.pollAwaiting, f.answeredCount = f.pollTargets, f.pollTargets, 0
}

// ask chooses the seats that polls wait for. To look at all workers costs as much as
// their answers, so it is done only if there is another choice.
func (f *Fleet) choosePollTargets() {
	f.pollTargets = 0
	for w := range f.workers.all() {
		for i := range w.attachments {
			w.attachments[i].pollTarget = f.isPollTarget(w, i)
			if w.attachments[i].pollTarget {
				f.pollTargets++
			}
		}
	}
	f.pollTargetsStale = false
}

// awaits reports whether polls wait for the component of the worker's ith seat
// because of this seat: a worker answers for all of a component's at once.
func (f *Fleet) isPollTarget(w *worker, i int) bool {
	a := &w.attachments[i]
	if !a.registered || a.Publishes || !f.target.CoversComponent(a.endpoint.Component) {
		return false // those that publish need not answer, and most do not
	}
	return !slices.ContainsFunc(w.attachments[:i], func(other attachment) bool {
		return other.pollTarget && other.endpoint.Component == a.endpoint.Component
	})
}

// answered notes that the running poll need not wait for the worker's component any more.
func (f *Fleet) stopAwaitingComponent(w *worker, component string) {
	for i := range w.attachments {
		if w.attachments[i].endpoint.Component == component {
			f.stopAwaiting(&w.attachments[i])
		}
	}
}

// arrived notes that the running poll need not wait because of this seat any more.
func (f *Fleet) stopAwaiting(a *attachment) {
	if a.pollTarget && a.donePoll != f.poll && f.pollAwaiting > 0 {
		f.pollAwaiting--
	}
	a.donePoll = f.poll
}

// hear notes that the seat has answered the poll.
func (f *Fleet) markAnswered(a *attachment) {
	f.clearAnswered(a)
	a.answered, a.missedPolls, a.lastPoll = true, 0, f.poll
	f.answeringCount++
	f.answeredCount++
}

// unhear forgets that the seat has answered.
func (f *Fleet) clearAnswered(a *attachment) {
	if !a.answered {
		return
	}
	a.answered = false
	f.answeringCount--
	if a.lastPoll == f.poll {
		f.answeredCount--
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
	return f.pollExpected > 0 && f.pollAwaiting == 0 && len(f.workers.static) == 0
}

// EndPoll ends the running poll. If it counts, those who did not answer have
// missed it; it must not count if the connection to NATS or etcd broke meanwhile.
func (f *Fleet) EndPoll(counts bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pollExpected, f.pollAwaiting = 0, 0
	if !counts || f.answeredCount == f.answeringCount {
		return // nobody has missed it
	}
	for w := range f.workers.all() {
		f.missPoll(w)
	}
}

// miss counts the poll against those seats of the worker that were left unanswered.
func (f *Fleet) missPoll(w *worker) {
	changed := false
	for i := len(w.attachments) - 1; i >= 0; i-- {
		a := &w.attachments[i]
		if !a.answered || a.lastPoll == f.poll {
			continue
		}
		a.missedPolls++
		if a.missedPolls < maxMissedPolls {
			continue
		}
		changed = true
		f.clearAnswered(a)
		a.malformed, a.ranks = false, forgetPolled(a.ranks)
		if a.reportedLoad {
			a.ranks, w.unattributed = nil, nil // what it also published is no newer than its last answer
		}
		a.stale = a.Publishes
		if !a.isListed() && len(a.ranks) == 0 {
			f.detach(w, a)
		}
	}
	if changed {
		f.updateFootprint(w)
		f.prune(w)
	}
}

// Report applies one answer to a poll, whenever it arrives: what a worker said of
// each of its endpoints, all at once. Of endpoints that are not watched only the
// fact that the worker answered is kept. It reports what PollAnswered then does.
func (f *Fleet) RecordPollReply(answer ...PollReply) (pollAnswered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range answer {
		f.recordPollReply(&answer[i])
	}
	return f.pollAnswered()
}

func (f *Fleet) recordPollReply(r *PollReply) {
	w := f.workers.get(r.Worker)
	if w != nil {
		f.stopAwaitingComponent(w, r.Component)
	}
	a := w.attachmentAt(r.Endpoint)
	if !f.target.Covers(r.Endpoint) || a == nil && r.Outcome == NoLoad {
		return
	}
	moved := a == nil
	if moved {
		by := f.evidenceOf(r.Worker)
		if by == byMessage && f.endpoints[r.Endpoint] == nil {
			f.Stats.CountRejected(stats.StatsReply, stats.NotRegistered)
			return
		}
		if a = f.ensureAttachment(r.Worker, r.Endpoint, by); a == nil {
			return
		}
		w = f.workers.get(r.Worker)
	}
	a.endpoint.hadWorker = a.endpoint.hadWorker || !f.registry
	if !a.registered {
		f.touch(w)
	}
	moved = moved || !a.reportedLoad && r.Outcome == Reported
	a.reportedLoad = a.reportedLoad || r.Outcome == Reported
	f.markAnswered(a)
	a.service, a.stale = r.Service, false
	a.noLoad, a.malformed = r.Outcome == NoLoad && !a.Publishes, r.Outcome == Malformed
	if r.Outcome == Reported {
		f.setLoad(w, &a.ranks, r.Rank, r.Load, FromStats)
		a.endpoint.hadData = true
	} else if ranks := len(a.ranks); ranks > 0 {
		if a.ranks = forgetPolled(a.ranks); len(a.ranks) < ranks {
			f.updateFootprint(w)
		}
	}
	if moved {
		f.updateHitsEndpoint(w)
	}
}
