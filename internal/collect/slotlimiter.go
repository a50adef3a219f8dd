package collect

import "container/list"

const (
	// reservedDescriptors is how many file descriptors ZeroMQ leaves to HTTP, to the connections
	// to NATS, etcd and Kubernetes, and to scrapes. If there are few, it leaves half of them.
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
	open         list.List // of *host, which take turns: those whose first waiting source may get a slot
}

type host struct {
	name    string
	used    int
	waiting list.List     // of *zmqSource
	element *list.Element // in slotLimiter.open; nil: no waiting source may get a slot
}

func newSlotLimiter(slots int) *slotLimiter {
	return &slotLimiter{max: slots, perHost: (slots + 1) / 2, hosts: make(map[string]*host)}
}

// enqueue lets a source wait for a slot.
func (l *slotLimiter) enqueue(src *zmqSource) {
	h := l.hosts[src.host]
	if h == nil {
		h = &host{name: src.host}
		l.hosts[src.host] = h
	}
	src.queued = h.waiting.PushBack(src)
	l.waiting++
	l.updateHost(h)
}

// next gives a waiting source a slot and returns it, or nil if no source may get one.
func (l *slotLimiter) next() *zmqSource {
	first := l.open.Front()
	if first == nil || l.used == l.max {
		return nil
	}
	l.open.MoveToBack(first)
	h := first.Value.(*host)
	src := h.waiting.Remove(h.waiting.Front()).(*zmqSource)
	src.queued = nil
	l.waiting--
	h.used++
	l.used++
	l.updateHost(h)
	return src
}

// release frees the slot of a source.
func (l *slotLimiter) release(src *zmqSource) {
	h := l.hosts[src.host]
	h.used--
	l.used--
	l.updateHost(h)
}

// cancel stops the waiting of a source.
func (l *slotLimiter) cancel(src *zmqSource) {
	h := l.hosts[src.host]
	h.waiting.Remove(src.queued)
	src.queued = nil
	l.waiting--
	l.updateHost(h)
}

// updateHost updates whether a host's waiting sources may get a slot, and forgets a host that
// has neither slots nor waiting sources.
func (l *slotLimiter) updateHost(h *host) {
	eligible := h.waiting.Len() > 0 && h.used < l.perHost
	switch {
	case eligible && h.element == nil:
		h.element = l.open.PushBack(h)
	case !eligible && h.element != nil:
		l.open.Remove(h.element)
		h.element = nil
	}
	if h.used == 0 && h.waiting.Len() == 0 {
		delete(l.hosts, h.name)
	}
}
