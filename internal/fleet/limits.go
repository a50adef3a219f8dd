package fleet

import (
	"container/list"
	"math"

	"dynamo-metrics/internal/stats"
)

// Limits on what a Fleet holds in addition to its workers. Anything on the network can send
// any number of names of endpoints, workers and ranks. These limits keep the program's memory
// and its output in proportion to the limit of workers.
const (
	// attachmentsPerWorker times the limit of workers is the limit of attachments of all
	// workers together. The limit of unregistered attachments is one for each worker.
	attachmentsPerWorker = 8

	// minEndpointLimit is the smallest limit of endpoints. It is also the limit of endpoints
	// without workers, and of endpoints whose workers are all unregistered there.
	minEndpointLimit = 1024

	// If there is a registry, at most a quarter of the workers (or minUnregisteredLimit) may
	// be unregistered ids, and at most a sixteenth (or minStaticLimit) static workers.
	// Nothing proves that these exist, but the metrics show them.
	unregisteredShare    = 4
	minUnregisteredLimit = 4096
	staticShare          = 16
	minStaticLimit       = 1024

	// In addition to one rank of each worker there may be a quarter as many ranks as workers
	// (or minExtraRankLimit), and a quarter as many (or minUnregisteredRankLimit) of workers
	// at endpoints where they are not registered. A rank with its forward passes takes up to
	// 3 kB.
	extraRankShare           = 4
	minExtraRankLimit        = 8192
	unregisteredRankShare    = 4
	minUnregisteredRankLimit = 1024
)

// bounds has the limits of a Fleet, except the limit of workers.
type bounds struct {
	unregisteredWorkers     int // workers without any key in the registry, except static ones
	staticWorkers           int // static workers
	endpoints               int // all endpoints that countedEndpoints counts
	emptyEndpoints          int // endpoints without workers
	unregisteredEndpoints   int // endpoints with workers, but without a key in the registry
	attachments             int32
	unregisteredAttachments int32 // attachments without a key in the registry
	extraRanks              int32 // ranks in addition to the first of each worker
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

// evidence is what shows that a worker is at an endpoint.
type evidence int

const (
	byMessage     evidence = iota // a message from a worker that should be in the registry
	byMessageOnly                 // a message from a worker that never registers
	byRegistry                    // a key in the registry
)

// evidenceOf returns the kind of evidence that a message from this worker is.
func (f *Fleet) evidenceOf(id WorkerID) evidence {
	if !f.registry || id.IsStatic() {
		return byMessageOnly
	}
	return byMessage
}

// footprint is how much of the bounds one worker uses, or all workers together. It is small,
// because each worker has one.
type footprint struct {
	attachments, unregisteredAttachments int32
	ranks, extraRanks, unregisteredRanks int32
}

// updateFootprint counts how much of the bounds the worker uses. It must be called after each
// change that affects this.
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

// setFootprint sets the worker's footprint and adds the difference to the Fleet's.
func (f *Fleet) setFootprint(w *worker, now footprint) {
	f.footprint.attachments += now.attachments - w.footprint.attachments
	f.footprint.unregisteredAttachments += now.unregisteredAttachments - w.footprint.unregisteredAttachments
	f.footprint.ranks += now.ranks - w.footprint.ranks
	f.footprint.extraRanks += now.extraRanks - w.footprint.extraRanks
	f.footprint.unregisteredRanks += now.unregisteredRanks - w.footprint.unregisteredRanks
	w.footprint = now
}

// roomForRank reports whether there is room for one more rank of the worker, which is nil if
// it is new. Unregistered says whether the rank belongs to an endpoint where the worker is
// not registered.
func (f *Fleet) roomForRank(w *worker, unregistered bool) bool {
	if unregistered {
		return f.footprint.unregisteredRanks < f.bounds.unregisteredRanks
	}
	return w == nil || w.footprint.ranks == 0 || f.footprint.extraRanks < f.bounds.extraRanks
}

// isUnregistered reports whether ranks, which is one of the worker's lists, belongs to an
// endpoint where the worker is not registered but should be.
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

// trim deletes ranks above the limits. It must be called after each registration and
// deregistration, because other limits apply to the worker's ranks then.
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

// roomForWorker reports whether there is room for one more worker. A registered worker evicts
// the least recently active unregistered one. It counts what is refused or evicted.
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

// roomForUnlisted reports whether there is room for one more worker without any key in the
// registry.
func (f *Fleet) roomForUnlisted(id WorkerID) bool {
	if id.IsStatic() {
		return len(f.workers.static) < f.bounds.staticWorkers
	}
	return f.unregisteredWorkers.workers.Len() < f.bounds.unregisteredWorkers
}

// roomForAttachment is like roomForWorker, but for one more attachment of the worker.
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

// detachUnregistered deletes the worker's unregistered attachments. The caller must prune the
// worker.
func (f *Fleet) detachUnregistered(w *worker) {
	for i := len(w.attachments) - 1; i >= 0; i-- {
		if a := &w.attachments[i]; !a.isListed() {
			f.detach(w, a)
		}
	}
	f.updateFootprint(w)
}

// hasRoomForRefused reports whether there is room now for something registered that was
// refused, or something to evict for it.
func (f *Fleet) hasRoomForRefused() bool {
	return f.refused[stats.WorkerLimit] && (f.workers.len() < f.workerLimit || f.unregisteredWorkers.oldest() != nil) ||
		f.refused[stats.AttachmentLimit] && (f.footprint.attachments < f.bounds.attachments || f.unregisteredAttachments.oldest() != nil) ||
		f.refused[stats.EndpointLimit] && (f.countedEndpoints() < f.bounds.endpoints || f.emptyEndpoints.Len() > 0 || f.unregisteredEndpoints.Len() > 0)
}

// lruQueue is a queue of workers, sorted by their last message. The least recently active
// worker is the first.
type lruQueue struct{ workers list.List }

// setMember adds the worker to the queue or removes it. At is its element.
func (q *lruQueue) setMember(w *worker, at **list.Element, in bool) {
	switch {
	case in && *at == nil:
		*at = q.workers.PushBack(w)
	case !in && *at != nil:
		q.workers.Remove(*at)
		*at = nil
	}
}

// touch moves a worker to the end of the queue, because it has sent a message. At may be nil.
func (q *lruQueue) touch(at *list.Element) {
	if at != nil {
		q.workers.MoveToBack(at)
	}
}

// oldest returns the least recently active worker, or nil.
func (q *lruQueue) oldest() *worker {
	if e := q.workers.Front(); e != nil {
		return e.Value.(*worker)
	}
	return nil
}

// each calls f for each worker. F may remove the worker from the queue.
func (q *lruQueue) each(f func(*worker)) {
	for e := q.workers.Front(); e != nil; {
		next := e.Next()
		f(e.Value.(*worker))
		e = next
	}
}
