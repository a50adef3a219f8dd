package collect

import (
	"container/list"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dynamo-metrics/internal/fleet"
)

// openGaps holds the sequence numbers that have not arrived although later ones of their
// publisher have: routers of 0.9 and 1.0 send events out of order. A number counts as missing if
// it has not arrived when its window closes: after 256 later numbers, or after five seconds.
type openGaps struct {
	fleet *fleet.Fleet
	count atomic.Int64 // lets record return without the lock while there are none

	mu       sync.Mutex
	byStream map[gapKey][]*openGap
	byAge    list.List // of *openGap, oldest first
}

const (
	gapWindow  = 256
	gapTimeout = 5 * time.Second

	// sharedIDDistance is how far ahead a number must be to belong to another publisher with
	// the same id. Such a number closes no window.
	sharedIDDistance = 1 << 16

	// maxGaps and maxGapsPerStream bound the open gaps. What exceeds them counts as missing at
	// once.
	maxGaps          = 1 << 16
	maxGapsPerStream = 256
)

// gapKey identifies a stream, and the tracker of the connection that delivers it.
type gapKey struct {
	tracker sequenceTracker
	stream  stream
}

// openGap is a range of numbers that have not arrived.
type openGap struct {
	key      gapKey
	from, to uint64 // inclusive
	since    time.Time
	element  *list.Element
}

// record records a number, and reports whether it was in an open gap.
func (g *openGaps) record(key gapKey, number uint64) (wasOpen bool) {
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

// fill removes a number from a gap.
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

// add opens a gap.
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

// enforceLimits closes the oldest gap of a stream that has too many, and the oldest of all if there
// are too many.
func (g *openGaps) enforceLimits(key gapKey) {
	if gaps := g.byStream[key]; len(gaps) > maxGapsPerStream {
		g.countMissing(gaps[0])
	}
	if g.byAge.Len() > maxGaps {
		g.countMissing(g.byAge.Front().Value.(*openGap))
	}
	g.count.Store(int64(g.byAge.Len()))
}

// expire closes the gaps that have been open for too long.
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

// discard closes the open gaps of a tracker without counting them, because its subscription has
// ended: their events may have been sent while there was none.
func (g *openGaps) discard(tracker sequenceTracker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, gaps := range g.byStream {
		if key.tracker == tracker {
			for _, o := range slices.Clone(gaps) {
				g.remove(o)
			}
		}
	}
}

// countMissing counts the rest of a gap as missing, and closes it.
func (g *openGaps) countMissing(o *openGap) {
	g.fleet.Stats.MissedEvents.Add(o.to - o.from + 1)
	g.fleet.Diagnostics.AddGap(fleet.Gap{Publisher: o.key.stream.publisher, Kind: o.key.stream.kind, After: o.from - 1, Before: o.to + 1, At: o.since})
	g.remove(o)
}

func (g *openGaps) remove(o *openGap) {
	g.byAge.Remove(o.element)
	gaps := slices.DeleteFunc(g.byStream[o.key], func(p *openGap) bool { return p == o })
	if g.byStream[o.key] = gaps; len(gaps) == 0 {
		delete(g.byStream, o.key)
	}
	g.count.Store(int64(g.byAge.Len()))
}
