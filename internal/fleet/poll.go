package fleet

import (
	"slices"

	"dynamo-metrics/internal/stats"
)

// Outcome is the result of decoding the load in a poll reply.
type Outcome int

const (
	// Reported means that the load was decoded.
	Reported Outcome = iota
	// NoLoad means that the endpoint carries no load ("data": null).
	NoLoad
	// Malformed means that there is a load that could not be decoded.
	Malformed
)

// PollReply is what one worker said about one endpoint in its reply to a stats poll.
type PollReply struct {
	Endpoint
	Worker  WorkerID
	Service string // the NATS service name of the reply
	Outcome Outcome
	Load    Load   // if Outcome is Reported
	Rank    uint32 // the data parallel rank of Load
}

// BeginPoll starts a stats poll. From now on the Fleet waits for replies of the registered
// workers: of each worker, one reply for each watched component in which it is registered.
func (f *Fleet) BeginPoll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.poll++
	if f.pollTargetsStale {
		f.choosePollTargets()
	}
	f.pollExpected, f.pollAwaiting, f.answeredCount = f.pollTargets, f.pollTargets, 0
}

// choosePollTargets chooses the attachments that polls wait for. This visits all workers,
// which costs as much as their replies, so it is done only after registrations have changed.
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

// isPollTarget reports whether polls wait for the worker's ith attachment. They wait for one
// attachment of each component, because one reply covers all endpoints of a component.
func (f *Fleet) isPollTarget(w *worker, i int) bool {
	a := &w.attachments[i]
	if !a.registered || a.Publishes || !f.target.CoversComponent(a.endpoint.Component) {
		return false // workers that publish need not answer, and most do not
	}
	return !slices.ContainsFunc(w.attachments[:i], func(other attachment) bool {
		return other.pollTarget && other.endpoint.Component == a.endpoint.Component
	})
}

// stopAwaitingComponent records that the current poll has the worker's reply for a component.
func (f *Fleet) stopAwaitingComponent(w *worker, component string) {
	for i := range w.attachments {
		if w.attachments[i].endpoint.Component == component {
			f.stopAwaiting(&w.attachments[i])
		}
	}
}

// stopAwaiting records that the current poll need no longer wait for the attachment.
func (f *Fleet) stopAwaiting(a *attachment) {
	if a.pollTarget && a.donePoll != f.poll && f.pollAwaiting > 0 {
		f.pollAwaiting--
	}
	a.donePoll = f.poll
}

// markAnswered records that the attachment's worker has answered the current poll.
func (f *Fleet) markAnswered(a *attachment) {
	f.clearAnswered(a)
	a.answered, a.missedPolls, a.lastPoll = true, 0, f.poll
	f.answeringCount++
	f.answeredCount++
}

// clearAnswered reverts markAnswered.
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

// PollAnswered reports whether every registered worker has answered the current poll. It is
// always false if no worker is registered, or if there are static workers, because their
// number is unknown.
func (f *Fleet) PollAnswered() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pollAnswered()
}

func (f *Fleet) pollAnswered() bool {
	return f.pollExpected > 0 && f.pollAwaiting == 0 && len(f.workers.static) == 0
}

// EndPoll ends the current poll. If counts is true, the workers that did not answer have
// missed it. Counts must be false if the connection to NATS or etcd was lost during the poll.
func (f *Fleet) EndPoll(counts bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pollExpected, f.pollAwaiting = 0, 0
	if !counts || f.answeredCount == f.answeringCount {
		return // no worker has missed it
	}
	for w := range f.workers.all() {
		f.missPoll(w)
	}
}

// missPoll counts the poll as missed for each attachment of the worker that did not answer it.
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
			a.ranks, w.unattributed = nil, nil // what it also published is not newer than its last reply
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

// RecordPollReply records the reply of one worker to a poll, even if it arrives late. There is
// an argument for each endpoint of the worker, and all of them take effect at once. For an
// endpoint that is not watched it records only that the worker answered. It returns the same
// as PollAnswered.
func (f *Fleet) RecordPollReply(replies ...PollReply) (pollAnswered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range replies {
		f.recordPollReply(&replies[i])
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
