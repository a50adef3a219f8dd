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
type openGaps struct {
	fleet *fleet.Fleet
	count atomic.Int64 // so that nothing is locked for each event where there are none

	mu       sync.Mutex
	byStream map[gapKey][]*openGap
	byAge    list.List // of *gap, the first that closes first
}

const (
	gapWindow  = 256
	gapTimeout = 5 * time.Second

	// A number so far ahead is another publisher's that shares the id: it closes no window.
	sharedIDDistance = 1 << 16

	// maxGaps bounds those that are open, maxGapsOfOne those of one stream. Of those that there
	// is no room for the events are missing at once.
	maxGaps          = 1 << 16
	maxGapsPerStream = 256
)

// gapKey is a stream, by the way it comes.
type gapKey struct {
	tracker sequenceTracker
	stream  stream
}

// gap is a run of numbers that have not come.
type openGap struct {
	key      gapKey
	from, to uint64 // both are of it
	since    time.Time
	element  *list.Element
}

// comes notes a number, and reports whether it is one that had not come in its turn.
func (g *openGaps) record(key gapKey, number uint64) (tooOld bool) {
	if g.count.Load() == 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range slices.Clone(g.byStream[key]) {
		switch {
		case number > o.to && number-o.to >= gapWindow && number-o.to < sharedIDDistance:
			g.countMissing(o)
		case number < o.from || number > o.to:
		default:
			g.fill(o, number)
			return true
		}
	}
	return false
}

// fill takes a number out of a gap.
func (g *openGaps) fill(o *openGap, number uint64) {
	switch {
	case o.from == o.to:
		g.remove(o)
	case number == o.from:
		o.from++
	case number == o.to:
		o.to--
	default:
		rest := &openGap{key: o.key, from: number + 1, to: o.to, since: o.since}
		o.to = number - 1
		rest.element = g.byAge.InsertAfter(rest, o.element)
		g.byStream[o.key] = append(g.byStream[o.key], rest)
		g.enforceLimits(o.key)
	}
}

// skip notes that numbers have not come in their turn.
func (g *openGaps) add(key gapKey, s sequenceGap, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := &openGap{key: key, from: s.after + 1, to: s.before - 1, since: now}
	o.element = g.byAge.PushBack(o)
	if g.byStream == nil {
		g.byStream = make(map[gapKey][]*openGap)
	}
	g.byStream[key] = append(g.byStream[key], o)
	g.enforceLimits(key)
}

// bound takes for missing what there is no room for.
func (g *openGaps) enforceLimits(key gapKey) {
	if of := g.byStream[key]; len(of) > maxGapsPerStream {
		g.countMissing(of[0])
	}
	if g.byAge.Len() > maxGaps {
		g.countMissing(g.byAge.Front().Value.(*openGap))
	}
	g.count.Store(int64(g.byAge.Len()))
}

// expire takes for missing what has not come in time.
func (g *openGaps) expire(now time.Time) {
	if g.count.Load() == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.byAge.Len() > 0 {
		o := g.byAge.Front().Value.(*openGap)
		if now.Sub(o.since) < gapTimeout {
			break
		}
		g.countMissing(o)
	}
}

// forget closes what is open of what came this way, since we have let go of it: what did not
// come may have been sent meanwhile.
func (g *openGaps) discard(by sequenceTracker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, of := range g.byStream {
		if key.tracker == by {
			for _, o := range slices.Clone(of) {
				g.remove(o)
			}
		}
	}
}

// miss counts what is left of a gap.
func (g *openGaps) countMissing(o *openGap) {
	g.fleet.Stats.MissedEvents.Add(o.to - o.from + 1)
	g.fleet.Diagnostics.AddGap(fleet.Gap{Publisher: o.key.stream.publisher, Kind: o.key.stream.kind, After: o.from - 1, Before: o.to + 1, At: o.since})
	g.remove(o)
}

func (g *openGaps) remove(o *openGap) {
	g.byAge.Remove(o.element)
	of := slices.DeleteFunc(g.byStream[o.key], func(p *openGap) bool { return p == o })
	if g.byStream[o.key] = of; len(of) == 0 {
		delete(g.byStream, o.key)
	}
	g.count.Store(int64(g.byAge.Len()))
}
