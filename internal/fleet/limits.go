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
	leastEndpoints = 1024

	// Where there is a registry, a quarter of the workers may be ids that it does not have,
	// or leastStrangers; and a sixteenth static workers, or leastStatic. Nothing proves that
	// they exist, and pages show them.
	strangerShare  = 4
	leastStrangers = 4096
	staticShare    = 16
	leastStatic    = 1024

	// Beside one rank for each worker there may be a quarter as many as workers, or
	// leastRanks; and a quarter as many, or leastStrayRanks, of workers that are not
	// registered where they say they are. A rank with its forward passes takes up to 3 kB.
	rankShare       = 4
	leastRanks      = 8192
	strayRankShare  = 4
	leastStrayRanks = 1024
)

// bounds are the limits of a fleet, beside that of its workers.
type bounds struct {
	strangers    int // workers that the registry does not have, but for static ones
	static       int // workers that are static
	endpoints    int // but for our own
	left         int // those of them without workers
	heard        int // those of them that the registry does not have
	attachments  int32
	unregistered int32 // those of them that the registry does not have
	furtherRanks int32 // beside the first of each worker
	strayRanks   int32
}

func boundsOf(workers int, registry bool) bounds {
	b := bounds{
		strangers:    max(leastStrangers, workers/strangerShare),
		static:       max(leastStatic, workers/staticShare),
		endpoints:    max(leastEndpoints, workers),
		left:         leastEndpoints,
		heard:        leastEndpoints,
		attachments:  int32(min(attachmentsPerWorker*workers, math.MaxInt32)),
		unregistered: int32(min(workers, math.MaxInt32)),
		furtherRanks: int32(min(max(leastRanks, workers/rankShare), math.MaxInt32)),
		strayRanks:   int32(min(max(leastStrayRanks, workers/strayRankShare), math.MaxInt32)),
	}
	if !registry {
		b.strangers, b.static, b.heard = workers, workers, b.endpoints
	}
	return b
}

// proof is what says that a worker is somewhere.
type proof int

const (
	heard  proof = iota // it was heard, and registers, or should
	alone               // it was heard, and registers nowhere
	listed              // the registry
)

// proofOf is what a message of the worker proves.
func (f *Fleet) proofOf(id WorkerID) proof {
	if !f.registry || id.IsStatic() {
		return alone
	}
	return heard
}

// holding is what a worker takes of the bounds, or all workers together. It is small: there
// is one for each.
type holding struct {
	attachments, unregistered   int32
	ranks, furtherRanks, strays int32
}

// weigh counts anew what the worker takes of the bounds. It follows each change of that.
func (f *Fleet) weigh(w *worker) {
	now := holding{attachments: int32(len(w.seats))}
	strays := f.proofOf(w.id) == heard // if it is not listed
	count := func(ranks []rank, isListed bool) {
		if strays && !isListed {
			now.strays += int32(len(ranks))
		} else {
			now.ranks += int32(len(ranks))
		}
	}
	for i := range w.seats {
		s := &w.seats[i]
		if !s.isListed() {
			now.unregistered++
		}
		count(s.ranks, s.isListed())
	}
	if len(w.loose) > 0 {
		count(w.loose, w.isListed())
	}
	if w.waiting != nil {
		count(w.waiting.ranks, false)
	}
	now.furtherRanks = max(0, now.ranks-1)
	f.hold(w, now)
	f.strays.keep(w, &w.stray, strays && now.unregistered > 0)
}

// hold notes that the worker takes so much now.
func (f *Fleet) hold(w *worker, now holding) {
	f.held.attachments += now.attachments - w.held.attachments
	f.held.unregistered += now.unregistered - w.held.unregistered
	f.held.ranks += now.ranks - w.held.ranks
	f.held.furtherRanks += now.furtherRanks - w.held.furtherRanks
	f.held.strays += now.strays - w.held.strays
	w.held = now
}

// roomForRank reports whether the worker, nil if it is new, may have one more rank. A
// stray is of a worker that is not registered there.
func (f *Fleet) roomForRank(w *worker, stray bool) bool {
	if stray {
		return f.held.strays < f.bounds.strayRanks
	}
	return w == nil || w.held.ranks == 0 || f.held.furtherRanks < f.bounds.furtherRanks
}

// isStray reports whether ranks, which are some of the worker's, are of an endpoint where
// it is not registered.
func (f *Fleet) isStray(w *worker, ranks *[]rank) bool {
	if f.proofOf(w.id) == alone {
		return false
	}
	if ranks == &w.loose {
		return !w.isListed()
	}
	for i := range w.seats {
		if ranks == &w.seats[i].ranks {
			return !w.seats[i].isListed()
		}
	}
	return true
}

// trim forgets ranks that have become too many because the registry has the worker there
// now, or not any more.
func (f *Fleet) trim(w *worker, s *seat) {
	f.trimRanks(w, &s.ranks)
	f.trimRanks(w, &w.loose)
}

func (f *Fleet) trimRanks(w *worker, ranks *[]rank) {
	tooMany := func() bool {
		if f.isStray(w, ranks) {
			return f.held.strays > f.bounds.strayRanks
		}
		return f.held.furtherRanks > f.bounds.furtherRanks && w.held.furtherRanks > 0
	}
	for len(*ranks) > 0 && tooMany() {
		last := len(*ranks) - 1
		(*ranks)[last] = rank{}
		*ranks = (*ranks)[:last]
		f.Tally.TurnAway(stats.RankLimit)
		f.weigh(w)
	}
}

// roomForWorker reports whether one more can be tracked. A worker that registers pushes
// out the id that was not heard of for longest and that the registry does not have. What
// is turned away or pushed out is counted.
func (f *Fleet) roomForWorker(id WorkerID, by proof) bool {
	if f.workers.len() < f.limit && (by == listed || f.roomForUnlisted(id)) {
		return true
	}
	f.Tally.TurnAway(stats.WorkerLimit)
	if by != listed {
		return false
	}
	if first := f.strangers.first(); first != nil {
		f.drop(first)
		return true
	}
	f.refused[stats.WorkerLimit] = true
	return false
}

// roomForUnlisted reports whether there may be one more worker that the registry does not have.
func (f *Fleet) roomForUnlisted(id WorkerID) bool {
	if id.IsStatic() {
		return len(f.workers.static) < f.bounds.static
	}
	return f.strangers.workers.Len() < f.bounds.strangers
}

// roomForAttachment is the same for one more attachment of the worker.
func (f *Fleet) roomForAttachment(w *worker, by proof) bool {
	own := len(w.seats) < maxSeats
	if own && f.held.attachments < f.bounds.attachments && (by == listed || f.held.unregistered < f.bounds.unregistered) {
		return true
	}
	f.Tally.TurnAway(stats.AttachmentLimit)
	if by != listed {
		return false
	}
	if !own {
		f.strip(w)
		f.rehome(w)
		if len(w.seats) >= maxSeats {
			return false
		}
	}
	for f.held.attachments >= f.bounds.attachments {
		switch first := f.strays.first(); first {
		case nil:
			f.refused[stats.AttachmentLimit] = true
			return false
		case w:
			f.strip(w)
			f.rehome(w)
		default:
			f.strip(first)
			f.settle(first)
		}
	}
	return true
}

// strip takes the worker from where it is not registered. What is left of it must be settled.
func (f *Fleet) strip(w *worker) {
	for i := len(w.seats) - 1; i >= 0; i-- {
		if s := &w.seats[i]; !s.isListed() {
			f.leave(w, s)
		}
	}
	f.weigh(w)
}

// findsRoom reports whether something that is registered found no room, and now there is
// some, or something to push out.
func (f *Fleet) findsRoom() bool {
	return f.refused[stats.WorkerLimit] && (f.workers.len() < f.limit || f.strangers.first() != nil) ||
		f.refused[stats.AttachmentLimit] && (f.held.attachments < f.bounds.attachments || f.strays.first() != nil) ||
		f.refused[stats.EndpointLimit] && (f.counted() < f.bounds.endpoints || f.left.Len() > 0 || f.unregistered.Len() > 0)
}

// queue is workers, the one first that was not heard of for longest.
type queue struct{ workers list.List }

// keep has the worker in the queue or not; at is where it is.
func (q *queue) keep(w *worker, at **list.Element, in bool) {
	switch {
	case in && *at == nil:
		*at = q.workers.PushBack(w)
	case !in && *at != nil:
		q.workers.Remove(*at)
		*at = nil
	}
}

// touch notes that the worker there was heard; nil is none.
func (q *queue) touch(at *list.Element) {
	if at != nil {
		q.workers.MoveToBack(at)
	}
}

// first is the first worker; nil if there is none.
func (q *queue) first() *worker {
	if e := q.workers.Front(); e != nil {
		return e.Value.(*worker)
	}
	return nil
}

// each calls f with each worker, which it may take out of the queue.
func (q *queue) each(f func(*worker)) {
	for e := q.workers.Front(); e != nil; {
		next := e.Next()
		f(e.Value.(*worker))
		e = next
	}
}
