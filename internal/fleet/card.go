package fleet

import "dynamo-metrics/internal/stats"

// Card is what a worker's model card says of it (0.6 to 1.6). That its totals are for
// each rank is from Dynamo's source: no worker of several ranks was captured.
type Card struct {
	Model     string      // as requests name it; empty where no page can show it
	KVTotal   Opt[uint64] // KV cache blocks there are, for each rank
	MaxSeqs   Opt[uint64] // requests that can be served at once, by each rank
	BlockSize Opt[uint64] // tokens in a KV cache block
	Ranks     Opt[uint64] // data parallel ranks of the worker
	Metrics   string      // host:port of the worker's own metrics page (1.4 to 1.6); empty where the card does not say it
}

// SetCard notes the model card of a worker at an endpoint, registered there or not yet,
// that stands under a key of the registry. There may be several: one counts.
func (f *Fleet) SetCard(key string, in Instance, c Card) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setCard(key, in, c)
}

func (f *Fleet) setCard(key string, in Instance, c Card) {
	a := f.ensureAttachment(WorkerID{Lease: in.ID}, in.Endpoint, byRegistry)
	if a == nil {
		return
	}
	w, before := f.workers.get(WorkerID{Lease: in.ID}), a.isListed()
	counts, room := a.cardKeys.put(hashOf(key), c, a.card.V, equalCards)
	if !room {
		f.Stats.CountRefused(stats.AttachmentLimit)
		return
	}
	a.card = Some(counts)
	f.updateListed(w, a, before)
	f.updateHitsEndpoint(w)
}

// equalCards says that no card says more than another.
func equalCards(Card, Card) int { return 0 }

// DropCard notes that a key of the model card is gone. The card goes with the last one.
func (f *Fleet) DropCard(key string, in Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.workers.get(WorkerID{Lease: in.ID}); w != nil {
		f.retainCard(w, in.Endpoint, allExcept(key), false)
	}
}

// keepCard forgets keys of a model card. It goes with the last one, unless it is known to
// have another that is yet to be told.
func (f *Fleet) retainCard(w *worker, e Endpoint, keeps func(key uint64) bool, expectMore bool) {
	a := w.attachmentAt(e)
	if a == nil || !a.card.OK {
		return
	}
	counts, some := a.cardKeys.retain(keeps, a.card.V, equalCards)
	if some || expectMore {
		a.card.V = counts
		return
	}
	a.card = Opt[Card]{}
	f.updateListed(w, a, true)
	if tooMany := f.footprint.unregisteredAttachments > f.bounds.unregisteredAttachments; !a.registered && (tooMany || !a.answered && len(a.ranks) == 0) {
		if tooMany {
			f.Stats.CountRefused(stats.AttachmentLimit)
		}
		f.detach(w, a)
		f.updateFootprint(w)
	}
	f.prune(w)
}
