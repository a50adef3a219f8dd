package collect

import "container/list"

const (
	// reserved are the file descriptors that ZMQ leaves to the others: HTTP, the servers,
	// the workers' own pages. Where there are few it leaves half.
	reservedDescriptors = 512

	slotsPerWorker     = 4
	workersPerSlot     = 4 // of the workers, where they are many
	minSlots, maxSlots = 1024, 16 << 10
)

// ZMQPlaces is how many ZMQ publishers may be subscribed to at once: four for each worker
// that may be tracked, but at least 1,024, and at most 16,384, or a quarter as many as workers. One that is out of
// reach takes some 20 kB.
// Each takes a file descriptor, of which there are so many; 0 is no limit.
func MaxZMQSubscriptions(maxWorkers, descriptors int) int {
	n := max(minSlots, min(slotsPerWorker*maxWorkers, max(maxSlots, maxWorkers/workersPerSlot)))
	if descriptors > 0 {
		n = min(n, descriptors-min(reservedDescriptors, descriptors/2))
	}
	return max(n, 1)
}

// places are handed out to those who want to connect; the others wait, in their order.
// Publishers of one host get half of them at most, so that it takes none of the others'.
type slotLimiter struct {
	max, perHost int
	used         int
	waiting      int
	hosts        map[string]*host
	open         list.List // of hosts where one waits that may have a place; they take turns
}

type host struct {
	name    string
	used    int
	waiting list.List     // of *want
	element *list.Element // nil: none of those who wait there may have a place
}

func newSlotLimiter(most int) *slotLimiter {
	return &slotLimiter{max: most, perHost: (most + 1) / 2, hosts: make(map[string]*host)}
}

// ask lets one wait for a place.
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

// next is one that has a place from now on; nil if there is none left, or none for those who wait.
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

// leave takes back a place.
func (p *slotLimiter) release(w *zmqSource) {
	h := p.hosts[w.host]
	h.used--
	p.used--
	p.updateHost(h)
}

// withdraw lets one wait no more.
func (p *slotLimiter) cancel(w *zmqSource) {
	h := p.hosts[w.host]
	h.waiting.Remove(w.queued)
	w.queued = nil
	p.waiting--
	p.updateHost(h)
}

// look notes whether one who waits at the host may have a place, and forgets a host with
// neither places nor any who wait.
func (p *slotLimiter) updateHost(h *host) {
	may := h.waiting.Len() > 0 && h.used < p.perHost
	switch {
	case may && h.element == nil:
		h.element = p.open.PushBack(h)
	case !may && h.element != nil:
		p.open.Remove(h.element)
		h.element = nil
	}
	if h.used == 0 && h.waiting.Len() == 0 {
		delete(p.hosts, h.name)
	}
}
