package fleet

import (
	"container/list"

	"dynamo-metrics/internal/stats"
)

// waiting is what a worker has published of an endpoint that does not exist, as far as is
// known: it waits for the worker's registration there. An event alone never makes an
// endpoint: those who can publish would fill the page with names.
type waiting struct {
	at    Endpoint
	ranks []rank
	place *list.Element // among the Fleet's waiters
}

// await is where an event of a worker waits; it is nil where there is no room. What has
// waited for another endpoint goes.
func (f *Fleet) await(id WorkerID, e Endpoint) (*worker, *[]rank) {
	w := f.workers.of(id)
	if w != nil && w.waiting != nil && w.waiting.at != e {
		f.giveUp(w)
	}
	if (w == nil || w.waiting == nil) && !f.roomForRank(w, true) {
		f.Tally.TurnAway(stats.RankLimit)
		if w != nil {
			f.dropIfEmpty(w)
		}
		return nil, nil
	}
	if w == nil {
		if w = f.worker(id, heard); w == nil {
			return nil, nil
		}
		f.rehome(w)
	}
	if w.waiting == nil {
		w.waiting = &waiting{at: e}
		f.waiters.keep(w, &w.waiting.place, true)
		f.weigh(w)
	}
	return w, &w.waiting.ranks
}

// giveUp forgets what waits, and counts it as messages of no use.
func (f *Fleet) giveUp(w *worker) {
	for i := range w.waiting.ranks {
		r := &w.waiting.ranks[i]
		if r.load.OK {
			f.Tally.Reject(stats.LoadEvent, stats.NotRegistered)
		}
		if r.passes != nil {
			f.Tally.Reject(stats.ForwardPass, stats.NotRegistered)
		}
	}
	f.stopWaiting(w)
	f.weigh(w)
}

// stopWaiting forgets what waits, if anything does. The worker must be weighed.
func (f *Fleet) stopWaiting(w *worker) {
	if w.waiting != nil {
		f.waiters.keep(w, &w.waiting.place, false)
		w.waiting = nil
	}
}
