package collect

import "container/list"

const (
	// reserved are the file descriptors that ZMQ leaves to the others: HTTP, the servers,
	// the workers' own pages. Where there are few it leaves half.
	reserved = 512

	placesPerWorker         = 4
	placesShare             = 4 // of the workers, where they are many
	leastPlaces, mostPlaces = 1024, 16 << 10
)

// ZMQPlaces is how many ZMQ publishers may be subscribed to at once: four for each worker
// that may be tracked, but at least 1,024, and at most 16,384, or a quarter as many as workers. One that is out of
// reach takes some 20 kB.
// Each takes a file descriptor, of which there are so many; 0 is no limit.
func ZMQPlaces(maxWorkers, descriptors int) int {
	n := max(leastPlaces, min(placesPerWorker*maxWorkers, max(mostPlaces, maxWorkers/placesShare)))
	if descriptors > 0 {
		n = min(n, descriptors-min(reserved, descriptors/2))
	}
	return max(n, 1)
}

// places are handed out to those who want to connect; the others wait, in their order.
// Publishers of one host get half of them at most, so that it takes none of the others'.
type places struct {
	most, perHost int
	used          int
	waiting       int
	hosts         map[string]*host
	open          list.List // of hosts where one waits that may have a place; they take turns
}

type host struct {
	name    string
	used    int
	waiting list.List     // of *want
	open    *list.Element // nil: none of those who wait there may have a place
}

func newPlaces(most int) *places {
	return &places{most: most, perHost: (most + 1) / 2, hosts: make(map[string]*host)}
}

// ask lets one wait for a place.
func (p *places) ask(w *want) {
	h := p.hosts[w.host]
	if h == nil {
		h = &host{name: w.host}
		p.hosts[w.host] = h
	}
	w.waiting = h.waiting.PushBack(w)
	p.waiting++
	p.look(h)
}

// next is one that has a place from now on; nil if there is none left, or none for those who wait.
func (p *places) next() *want {
	first := p.open.Front()
	if first == nil || p.used == p.most {
		return nil
	}
	p.open.MoveToBack(first)
	h := first.Value.(*host)
	w := h.waiting.Remove(h.waiting.Front()).(*want)
	w.waiting = nil
	p.waiting--
	h.used++
	p.used++
	p.look(h)
	return w
}

// leave takes back a place.
func (p *places) leave(w *want) {
	h := p.hosts[w.host]
	h.used--
	p.used--
	p.look(h)
}

// withdraw lets one wait no more.
func (p *places) withdraw(w *want) {
	h := p.hosts[w.host]
	h.waiting.Remove(w.waiting)
	w.waiting = nil
	p.waiting--
	p.look(h)
}

// look notes whether one who waits at the host may have a place, and forgets a host with
// neither places nor any who wait.
func (p *places) look(h *host) {
	may := h.waiting.Len() > 0 && h.used < p.perHost
	switch {
	case may && h.open == nil:
		h.open = p.open.PushBack(h)
	case !may && h.open != nil:
		p.open.Remove(h.open)
		h.open = nil
	}
	if h.used == 0 && h.waiting.Len() == 0 {
		delete(p.hosts, h.name)
	}
}
