package fleet

import (
	"container/list"

	"dynamo-metrics/internal/stats"
)

// waiting is what a worker has published of an endpoint that does not exist, as far as is
// known: it waits for the worker's registration there. An event alone never makes an
// endpoint: those who can publish would fill the page with names.
type pending struct {
	endpoint Endpoint
	ranks    []rank
	elem     *list.Element // among the Fleet's waiters
}

// await is where an event of a worker waits; it is nil where there is no room. What has
// waited for another endpoint goes.
func (f *Fleet) pendingOrigin(id WorkerID, e Endpoint) (*worker, *[]rank) {
	w := f.workers.get(id)
	if w != nil && w.pending != nil && w.pending.endpoint != e {
		f.discardPending(w)
	}
	if (w == nil || w.pending == nil) && !f.roomForRank(w, true) {
		f.Stats.CountRefused(stats.RankLimit)
		if w != nil {
			f.dropIfEmpty(w)
		}
		return nil, nil
	}
	if w == nil {
		if w = f.ensureWorker(id, byMessage); w == nil {
			return nil, nil
		}
		f.updateHitsEndpoint(w)
	}
	if w.pending == nil {
		w.pending = &pending{endpoint: e}
		f.pendingWorkers.setMember(w, &w.pending.elem, true)
		f.updateFootprint(w)
	}
	return w, &w.pending.ranks
}

// giveUp forgets what waits, and counts it as messages of no use.
func (f *Fleet) discardPending(w *worker) {
	for i := range w.pending.ranks {
		r := &w.pending.ranks[i]
		if r.load.OK {
			f.Stats.CountRejected(stats.LoadEvent, stats.NotRegistered)
		}
		if r.passes != nil {
			f.Stats.CountRejected(stats.ForwardPass, stats.NotRegistered)
		}
	}
	f.removePending(w)
	f.updateFootprint(w)
}

// stopWaiting forgets what waits, if anything does. The worker must be weighed.
func (f *Fleet) removePending(w *worker) {
	if w.pending != nil {
		f.pendingWorkers.setMember(w, &w.pending.elem, false)
		w.pending = nil
	}
}
