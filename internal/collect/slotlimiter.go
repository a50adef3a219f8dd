package collect

import "container/list"

const (
	// reservedDescriptors is how many file descriptors ZeroMQ leaves to HTTP, to the servers and
	// to scrapes. Where there are few, it leaves half.
	reservedDescriptors = 512

	slotsPerWorker     = 4
	workersPerSlot     = 4
	minSlots, maxSlots = 1024, 16 << 10
)

// MaxZMQSubscriptions returns how many ZeroMQ publishers may be subscribed to at the same time:
// four for each worker that may be tracked, but at least 1,024, and at most the larger of 16,384
// and a quarter of the number of workers. Each takes a file descriptor, of which the process has
// descriptors (0: no limit). A publisher that cannot be reached takes some 20 kB of memory.
func MaxZMQSubscriptions(maxWorkers, descriptors int) int {
	n := max(minSlots, min(slotsPerWorker*maxWorkers, max(maxSlots, maxWorkers/workersPerSlot)))
	if descriptors > 0 {
		n = min(n, descriptors-min(reservedDescriptors, descriptors/2))
	}
	return max(n, 1)
}

// slotLimiter bounds how many sources are subscribed to at the same time. The others wait in
// order. One host gets at most half of the slots, so that it cannot take those of the others.
type slotLimiter struct {
	max, perHost int
	used         int
	waiting      int
	hosts        map[string]*host
	open         list.List // of *host, in turn: hosts whose first waiting source may get a slot
}

type host struct {
	name    string
	used    int
	waiting list.List     // of *zmqSource
	element *list.Element // in slotLimiter.open; nil: no waiting source may get a slot
}

func newSlotLimiter(most int) *slotLimiter {
	return &slotLimiter{max: most, perHost: (most + 1) / 2, hosts: make(map[string]*host)}
}

// enqueue lets a source wait for a slot.
func (p *slotLimiter) enqueue(w *zmqSource) {
	h := p.hosts[w.host]
	if h == nil {
		h = &host{name: w.host}
		p.hosts[w.host] = h
	}
	w.queued = h.waiting.PushBack(w)
	p.waiting++
	p.updateHost(h)
}

// next gives a waiting source a slot and returns it, or nil if no source may get one.
func (p *slotLimiter) next() *zmqSource {
	first := p.open.Front()
	if first == nil || p.used == p.max {
		return nil
	}
	p.open.MoveToBack(first)
	h := first.Value.(*host)
	w := h.waiting.Remove(h.waiting.Front()).(*zmqSource)
	w.queued = nil
	p.waiting--
	h.used++
	p.used++
	p.updateHost(h)
	return w
}

// release frees the slot of a source.
func (p *slotLimiter) release(w *zmqSource) {
	h := p.hosts[w.host]
	h.used--
	p.used--
	p.updateHost(h)
}

// cancel stops the waiting of a source.
func (p *slotLimiter) cancel(w *zmqSource) {
	h := p.hosts[w.host]
	h.waiting.Remove(w.queued)
	w.queued = nil
	p.waiting--
	p.updateHost(h)
}

// updateHost updates whether a host's waiting sources may get a slot, and forgets a host that
// has neither slots nor waiting sources.
func (p *slotLimiter) updateHost(h *host) {
	eligible := h.waiting.Len() > 0 && h.used < p.perHost
	switch {
	case eligible && h.element == nil:
		h.element = p.open.PushBack(h)
	case !eligible && h.element != nil:
		p.open.Remove(h.element)
		h.element = nil
	}
	if h.used == 0 && h.waiting.Len() == 0 {
		delete(p.hosts, h.name)
	}
}
