package fleet

import (
	"container/list"

	"dynamo-metrics/internal/stats"
)

// pending has what a worker has published for an endpoint that is not known yet, until the
// worker registers there. An event alone never adds an endpoint. Otherwise any client that
// can publish could fill the metrics with names.
type pending struct {
	endpoint Endpoint
	ranks    []rank
	elem     *list.Element // its element in Fleet.pendingWorkers
}

// pendingOrigin does the work of origin for an event of an endpoint that is not known. It
// returns nil if there is no room. It discards the worker's pending events for another endpoint.
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

// discardPending deletes the worker's pending events and counts them as rejected.
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

// removePending deletes the worker's pending events, if it has any. The caller must call
// updateFootprint.
func (f *Fleet) removePending(w *worker) {
	if w.pending != nil {
		f.pendingWorkers.setMember(w, &w.pending.elem, false)
		w.pending = nil
	}
}
