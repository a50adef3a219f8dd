package collect

import (
	"container/list"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dynamo-metrics/internal/fleet"
)

// gaps are the events that have not come so far, though later ones of their publishers have:
// routers of 0.9 and 1.0 send theirs out of order. One is missing when it has not come while
// the window is open: until 256 more have come, or for five seconds.
type gaps struct {
	fleet *fleet.Fleet
	open  atomic.Int64 // so that nothing is locked for each event where there are none

	mu  sync.Mutex
	all map[gapKey][]*gap
	due list.List // of *gap, the first that closes first
}

const (
	gapNumbers = 256
	gapTime    = 5 * time.Second

	// A number so far ahead is another publisher's that shares the id: it closes no window.
	gapAhead = 1 << 16

	// maxGaps bounds those that are open, maxGapsOfOne those of one stream. Of those that there
	// is no room for the events are missing at once.
	maxGaps      = 1 << 16
	maxGapsOfOne = 256
)

// gapKey is a stream, by the way it comes.
type gapKey struct {
	by counted
	of stream
}

// gap is a run of numbers that have not come.
type gap struct {
	key      gapKey
	from, to uint64 // both are of it
	since    time.Time
	at       *list.Element
}

// comes notes a number, and reports whether it is one that had not come in its turn.
func (g *gaps) comes(key gapKey, number uint64) (late bool) {
	if g.open.Load() == 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range slices.Clone(g.all[key]) {
		switch {
		case number > o.to && number-o.to >= gapNumbers && number-o.to < gapAhead:
			g.miss(o)
		case number < o.from || number > o.to:
		default:
			g.fill(o, number)
			return true
		}
	}
	return false
}

// fill takes a number out of a gap.
func (g *gaps) fill(o *gap, number uint64) {
	switch {
	case o.from == o.to:
		g.close(o)
	case number == o.from:
		o.from++
	case number == o.to:
		o.to--
	default:
		rest := &gap{key: o.key, from: number + 1, to: o.to, since: o.since}
		o.to = number - 1
		rest.at = g.due.InsertAfter(rest, o.at)
		g.all[o.key] = append(g.all[o.key], rest)
		g.bound(o.key)
	}
}

// skip notes that numbers have not come in their turn.
func (g *gaps) skip(key gapKey, s skipped, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := &gap{key: key, from: s.after + 1, to: s.before - 1, since: now}
	o.at = g.due.PushBack(o)
	if g.all == nil {
		g.all = make(map[gapKey][]*gap)
	}
	g.all[key] = append(g.all[key], o)
	g.bound(key)
}

// bound takes for missing what there is no room for.
func (g *gaps) bound(key gapKey) {
	if of := g.all[key]; len(of) > maxGapsOfOne {
		g.miss(of[0])
	}
	if g.due.Len() > maxGaps {
		g.miss(g.due.Front().Value.(*gap))
	}
	g.open.Store(int64(g.due.Len()))
}

// expire takes for missing what has not come in time.
func (g *gaps) expire(now time.Time) {
	if g.open.Load() == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.due.Len() > 0 {
		o := g.due.Front().Value.(*gap)
		if now.Sub(o.since) < gapTime {
			break
		}
		g.miss(o)
	}
}

// forget closes what is open of what came this way, since we have let go of it: what did not
// come may have been sent meanwhile.
func (g *gaps) forget(by counted) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, of := range g.all {
		if key.by == by {
			for _, o := range slices.Clone(of) {
				g.close(o)
			}
		}
	}
}

// miss counts what is left of a gap.
func (g *gaps) miss(o *gap) {
	g.fleet.Stats.MissedEvents.Add(o.to - o.from + 1)
	g.fleet.Diagnostics.AddGap(fleet.Gap{Publisher: o.key.of.publisher, Kind: o.key.of.kind, After: o.from - 1, Before: o.to + 1, At: o.since})
	g.close(o)
}

func (g *gaps) close(o *gap) {
	g.due.Remove(o.at)
	of := slices.DeleteFunc(g.all[o.key], func(p *gap) bool { return p == o })
	if g.all[o.key] = of; len(of) == 0 {
		delete(g.all, o.key)
	}
	g.open.Store(int64(g.due.Len()))
}
