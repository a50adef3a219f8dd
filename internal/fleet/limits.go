package fleet

import (
	"container/list"
	"math"

	"dynamo-metrics/internal/stats"
)

// What a fleet may hold beside its workers. Those who write to the network can name as
// many endpoints, workers and ranks as they like; these numbers keep our memory, and the
// pages, within what the limit of workers allows.
const (
	// attachmentsPerWorker bounds the attachments of all workers together. Of those that
	// the registry does not have there may be one for each worker.
	attachmentsPerWorker = 8

	// leastEndpoints may be known however few workers are tracked. As many may be
	// remembered after their last worker has gone, and as many may have nothing but
	// workers that the registry does not have there.
	minEndpointLimit = 1024

	// Where there is a registry, a quarter of the workers may be ids that it does not have,
	// or leastStrangers; and a sixteenth static workers, or leastStatic. Nothing proves that
	// they exist, and pages show them.
	unregisteredShare    = 4
	minUnregisteredLimit = 4096
	staticShare          = 16
	minStaticLimit       = 1024

	// Beside one rank for each worker there may be a quarter as many as workers, or
	// leastRanks; and a quarter as many, or leastStrayRanks, of workers that are not
	// registered where they say they are. A rank with its forward passes takes up to 3 kB.
	extraRankShare           = 4
	minExtraRankLimit        = 8192
	unregisteredRankShare    = 4
	minUnregisteredRankLimit = 1024
)

// bounds are the limits of a fleet, beside that of its workers.
type bounds struct {
	unregisteredWorkers     int // workers that the registry does not have, but for static ones
	staticWorkers           int // workers that are static
	endpoints               int // but for our own
	emptyEndpoints          int // those of them without workers
	unregisteredEndpoints   int // those of them that the registry does not have
	attachments             int32
	unregisteredAttachments int32 // those of them that the registry does not have
	extraRanks              int32 // beside the first of each worker
	unregisteredRanks       int32
}

func newBounds(workers int, registry bool) bounds {
	b := bounds{
		unregisteredWorkers:     max(minUnregisteredLimit, workers/unregisteredShare),
		staticWorkers:           max(minStaticLimit, workers/staticShare),
		endpoints:               max(minEndpointLimit, workers),
		emptyEndpoints:          minEndpointLimit,
		unregisteredEndpoints:   minEndpointLimit,
		attachments:             int32(min(attachmentsPerWorker*workers, math.MaxInt32)),
		unregisteredAttachments: int32(min(workers, math.MaxInt32)),
		extraRanks:              int32(min(max(minExtraRankLimit, workers/extraRankShare), math.MaxInt32)),
		unregisteredRanks:       int32(min(max(minUnregisteredRankLimit, workers/unregisteredRankShare), math.MaxInt32)),
	}
	if !registry {
		b.unregisteredWorkers, b.staticWorkers, b.unregisteredEndpoints = workers, workers, b.endpoints
	}
	return b
}

// proof is what says that a worker is somewhere.
type evidence int

const (
	byMessage     evidence = iota // it was heard, and registers, or should
	byMessageOnly                 // it was heard, and registers nowhere
	byRegistry                    // the registry
)

// proofOf is what a message of the worker proves.
func (f *Fleet) evidenceOf(id WorkerID) evidence {
	if !f.registry || id.IsStatic() {
		return byMessageOnly
	}
	return byMessage
}

// holding is what a worker takes of the bounds, or all workers together. It is small: there
// is one for each.
type footprint struct {
	attachments, unregisteredAttachments int32
	ranks, extraRanks, unregisteredRanks int32
}

// weigh counts anew what the worker takes of the bounds. It follows each change of that.
func (f *Fleet) updateFootprint(w *worker) {
	now := footprint{attachments: int32(len(w.attachments))}
	mustRegister := f.evidenceOf(w.id) == byMessage // if it is not listed
	count := func(ranks []rank, isListed bool) {
		if mustRegister && !isListed {
			now.unregisteredRanks += int32(len(ranks))
		} else {
			now.ranks += int32(len(ranks))
		}
	}
	for i := range w.attachments {
		a := &w.attachments[i]
		if !a.isListed() {
			now.unregisteredAttachments++
		}
		count(a.ranks, a.isListed())
	}
	if len(w.unattributed) > 0 {
		count(w.unattributed, w.isListed())
	}
	if w.pending != nil {
		count(w.pending.ranks, false)
	}
	now.extraRanks = max(0, now.ranks-1)
	f.setFootprint(w, now)
	f.unregisteredAttachments.setMember(w, &w.attachmentsElem, mustRegister && now.unregisteredAttachments > 0)
}

// hold notes that the worker takes so much now.
func (f *Fleet) setFootprint(w *worker, now footprint) {
	f.footprint.attachments += now.attachments - w.footprint.attachments
	f.footprint.unregisteredAttachments += now.unregisteredAttachments - w.footprint.unregisteredAttachments
	f.footprint.ranks += now.ranks - w.footprint.ranks
	f.footprint.extraRanks += now.extraRanks - w.footprint.extraRanks
	f.footprint.unregisteredRanks += now.unregisteredRanks - w.footprint.unregisteredRanks
	w.footprint = now
}

// roomForRank reports whether the worker, nil if it is new, may have one more rank. A
// stray is of a worker that is not registered there.
func (f *Fleet) roomForRank(w *worker, unregistered bool) bool {
	if unregistered {
		return f.footprint.unregisteredRanks < f.bounds.unregisteredRanks
	}
	return w == nil || w.footprint.ranks == 0 || f.footprint.extraRanks < f.bounds.extraRanks
}

// isStray reports whether ranks, which are some of the worker's, are of an endpoint where
// it is not registered.
func (f *Fleet) isUnregistered(w *worker, ranks *[]rank) bool {
	if f.evidenceOf(w.id) == byMessageOnly {
		return false
	}
	if ranks == &w.unattributed {
		return !w.isListed()
	}
	for i := range w.attachments {
		if ranks == &w.attachments[i].ranks {
			return !w.attachments[i].isListed()
		}
	}
	return true
}

// trim forgets ranks that have become too many because the registry has the worker there
// now, or not any more.
func (f *Fleet) trim(w *worker, a *attachment) {
	f.trimRanks(w, &a.ranks)
	f.trimRanks(w, &w.unattributed)
}

func (f *Fleet) trimRanks(w *worker, ranks *[]rank) {
	tooMany := func() bool {
		if f.isUnregistered(w, ranks) {
			return f.footprint.unregisteredRanks > f.bounds.unregisteredRanks
		}
		return f.footprint.extraRanks > f.bounds.extraRanks && w.footprint.extraRanks > 0
	}
	for len(*ranks) > 0 && tooMany() {
		last := len(*ranks) - 1
		(*ranks)[last] = rank{}
		*ranks = (*ranks)[:last]
		f.Stats.CountRefused(stats.RankLimit)
		f.updateFootprint(w)
	}
}

// roomForWorker reports whether one more can be tracked. A worker that registers pushes
// out the id that was not heard of for longest and that the registry does not have. What
// is turned away or pushed out is counted.
func (f *Fleet) roomForWorker(id WorkerID, by evidence) bool {
	if f.workers.len() < f.workerLimit && (by == byRegistry || f.roomForUnlisted(id)) {
		return true
	}
	f.Stats.CountRefused(stats.WorkerLimit)
	if by != byRegistry {
		return false
	}
	if first := f.unregisteredWorkers.oldest(); first != nil {
		f.drop(first)
		return true
	}
	f.refused[stats.WorkerLimit] = true
	return false
}

// roomForUnlisted reports whether there may be one more worker that the registry does not have.
func (f *Fleet) roomForUnlisted(id WorkerID) bool {
	if id.IsStatic() {
		return len(f.workers.static) < f.bounds.staticWorkers
	}
	return f.unregisteredWorkers.workers.Len() < f.bounds.unregisteredWorkers
}

// roomForAttachment is the same for one more attachment of the worker.
func (f *Fleet) roomForAttachment(w *worker, by evidence) bool {
	own := len(w.attachments) < maxAttachments
	if own && f.footprint.attachments < f.bounds.attachments && (by == byRegistry || f.footprint.unregisteredAttachments < f.bounds.unregisteredAttachments) {
		return true
	}
	f.Stats.CountRefused(stats.AttachmentLimit)
	if by != byRegistry {
		return false
	}
	if !own {
		f.detachUnregistered(w)
		f.updateHitsEndpoint(w)
		if len(w.attachments) >= maxAttachments {
			return false
		}
	}
	for f.footprint.attachments >= f.bounds.attachments {
		switch first := f.unregisteredAttachments.oldest(); first {
		case nil:
			f.refused[stats.AttachmentLimit] = true
			return false
		case w:
			f.detachUnregistered(w)
			f.updateHitsEndpoint(w)
		default:
			f.detachUnregistered(first)
			f.prune(first)
		}
	}
	return true
}

// strip takes the worker from where it is not registered. What is left of it must be settled.
func (f *Fleet) detachUnregistered(w *worker) {
	for i := len(w.attachments) - 1; i >= 0; i-- {
		if a := &w.attachments[i]; !a.isListed() {
			f.detach(w, a)
		}
	}
	f.updateFootprint(w)
}

// findsRoom reports whether something that is registered found no room, and now there is
// some, or something to push out.
func (f *Fleet) hasRoomForRefused() bool {
	return f.refused[stats.WorkerLimit] && (f.workers.len() < f.workerLimit || f.unregisteredWorkers.oldest() != nil) ||
		f.refused[stats.AttachmentLimit] && (f.footprint.attachments < f.bounds.attachments || f.unregisteredAttachments.oldest() != nil) ||
		f.refused[stats.EndpointLimit] && (f.countedEndpoints() < f.bounds.endpoints || f.emptyEndpoints.Len() > 0 || f.unregisteredEndpoints.Len() > 0)
}

// queue is workers, the one first that was not heard of for longest.
type lruQueue struct{ workers list.List }

// keep has the worker in the queue or not; at is where it is.
func (q *lruQueue) setMember(w *worker, at **list.Element, in bool) {
	switch {
	case in && *at == nil:
		*at = q.workers.PushBack(w)
	case !in && *at != nil:
		q.workers.Remove(*at)
		*at = nil
	}
}

// touch notes that the worker there was heard; nil is none.
func (q *lruQueue) touch(at *list.Element) {
	if at != nil {
		q.workers.MoveToBack(at)
	}
}

// first is the first worker; nil if there is none.
func (q *lruQueue) oldest() *worker {
	if e := q.workers.Front(); e != nil {
		return e.Value.(*worker)
	}
	return nil
}

// each calls f with each worker, which it may take out of the queue.
func (q *lruQueue) each(f func(*worker)) {
	for e := q.workers.Front(); e != nil; {
		next := e.Next()
		f(e.Value.(*worker))
		e = next
	}
}
