package fleet

// Card is what a worker's model card says of it (0.6 to 1.6). That its totals are for
// each rank is from Dynamo's source: no worker of several ranks was captured.
type Card struct {
	Model     string      // as requests name it; empty where no page can show it
	KVTotal   Opt[uint64] // KV cache blocks there are, for each rank
	MaxSeqs   Opt[uint64] // requests that can be served at once, by each rank
	BlockSize Opt[uint64] // tokens in a KV cache block
	Ranks     Opt[uint64] // data parallel ranks of the worker
	Metrics   string      // host:port of the worker's own metrics page (1.6); empty where the card does not say it
}

// SetCard notes the model card of a worker at an endpoint, registered there or not yet.
func (f *Fleet) SetCard(in Instance, c Card) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setCard(in, c)
}

func (f *Fleet) setCard(in Instance, c Card) {
	s := f.seat(WorkerID{Lease: in.ID}, in.Endpoint, true)
	if s == nil {
		return
	}
	s.card = Some(c)
	w := f.workers.of(WorkerID{Lease: in.ID})
	f.setStranger(w, false)
	f.rehome(w)
}

// DropCard notes that the model card is gone.
func (f *Fleet) DropCard(in Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.workers.of(WorkerID{Lease: in.ID}); w != nil {
		f.dropCard(w, in.Endpoint)
	}
}

func (f *Fleet) dropCard(w *worker, e Endpoint) {
	s := w.at(e)
	if s == nil || !s.card.OK {
		return
	}
	s.card = Opt[Card]{}
	if !s.registered && !s.answered && len(s.ranks) == 0 {
		f.leave(w, s)
	}
	f.setStranger(w, !w.listed())
	f.settle(w)
}
