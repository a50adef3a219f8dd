package fleet

import "dynamo-metrics/internal/stats"

// Card is what a worker's model card says (0.6 to 1.6). Its totals are those of one rank. This
// is known from Dynamo's source only, because no captured fleet has a worker of several ranks.
type Card struct {
	Model     string      // model name in requests; empty if it cannot be a label value
	KVTotal   Opt[uint64] // KV cache blocks of each rank
	MaxSeqs   Opt[uint64] // largest number of running requests of each rank
	BlockSize Opt[uint64] // tokens in a KV cache block
	Ranks     Opt[uint64] // number of data parallel ranks
	Metrics   string      // host:port of the worker's own metrics endpoint (1.4 to 1.6); empty if the card has none
}

// SetCard records that a key of the registry holds a worker's model card for an endpoint. The
// worker need not be registered there yet. If several keys hold a card of it, one of them counts.
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

// equalCards is the comparison for keySet: no card says more than another.
func equalCards(Card, Card) int { return 0 }

// DropCard records that a key of a model card is deleted. The card is deleted with its last
// key.
func (f *Fleet) DropCard(key string, in Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.workers.get(WorkerID{Lease: in.ID}); w != nil {
		f.retainCard(w, in.Endpoint, allExcept(key), false)
	}
}

// retainCard keeps only the accepted keys of a model card. If none is left, it deletes the
// card, unless expectMore says that another key is about to be added.
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
