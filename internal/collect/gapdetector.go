package collect

import (
	"math"
	"slices"
	"sync"

	"dynamo-metrics/internal/stats"
)

// gapDetector finds gaps in the sequence numbers of publishers (0.9 to 1.6). Each publisher
// numbers the events of each topic from 0. The detector remembers at least the last maxStreams
// streams. After a stream was forgotten, nothing counts as missing before its next event.
type gapDetector struct {
	mu      sync.Mutex
	streams recentMap[stream, sequence]
}

// stream identifies the events of one publisher about one topic.
type stream struct {
	publisher uint64
	kind      stats.Kind
}

const (
	// maxStreams bounds the tracks of all streams in each of two generations. It is enough for
	// 10,000 workers with eight ranks and three topics each.
	maxStreams = 1 << 18

	// maxTracks bounds the tracks of one stream.
	maxTracks = 8

	// maxGap is the first distance that is taken for a forged number rather than for a gap.
	maxGap = 1 << 32

	// sharedIDWindow is the number of events for which the detector assumes that several
	// publishers share an id, after it has seen that they do.
	sharedIDWindow = 1024

	// confirmAfter is how many events must follow a number that is ahead, where several
	// publishers share an id, until it counts as a gap rather than as the first event of another
	// publisher.
	confirmAfter = 3
)

// sequenceGap describes events that are missing between two that have arrived.
type sequenceGap struct {
	missing       uint64 // 0: there is no gap
	after, before uint64 // the numbers around the gap, which have arrived
}

// record records an event of a stream, and returns the gap before it.
func (s *gapDetector) record(key stream, number uint64) sequenceGap {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams.generationSize = maxStreams
	seq, mustPut := s.streams.get(key)
	extraBefore := 0
	if !mustPut {
		extraBefore = seq.extra()
	}
	gap := seq.record(key, number)
	s.streams.put(key, seq, seq.extra()-extraBefore)
	return gap
}

// reset forgets all streams. Nothing counts as missing before their next events.
func (s *gapDetector) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams.reset()
}

// sequence is the state of one stream. The zero sequence has seen no event.
type sequence struct {
	next  uint64  // the next expected number; 0: no event has arrived yet
	split *tracks // used instead of next after a number has gone back
}

// extra returns how many tracks there are besides the first.
func (s *sequence) extra() int {
	if s.split == nil {
		return 0
	}
	return len(s.split.list) - 1
}

// record records an event, and returns the gap before it.
func (s *sequence) record(_ stream, number uint64) (gap sequenceGap) {
	switch {
	case number == math.MaxUint64: // no number can follow it
	case s.split != nil:
		return s.split.record(number)
	case s.next == 0 || number == s.next:
		s.next = number + 1
	case number > s.next && number-s.next < maxGap:
		gap = sequenceGap{number - s.next, s.next - 1, number}
		s.next = number + 1
	default:
		s.split = &tracks{list: []track{{next: s.next, confirmed: true}}}
		return s.split.record(number)
	}
	return gap
}

// tracks holds a track for each publisher that may share the id. Up to 1.2 all publishers of a
// process share one, and those of one topic, such as the publishers of several data-parallel
// ranks, each count from 0. A number that goes back may also be from a publisher that has
// restarted, or it may be a copy, or forged. None of these may stop the counting of the others.
//
// A number that continues a track extends it. A number ahead of a track is a gap in the nearest
// track below it. A number below all tracks begins a new track, which has no gaps until it has
// been continued. Where tracks were seen to advance in turn, a number that is ahead may also be
// the first event of another publisher. The events that follow decide: until then the gap is
// pending.
type tracks struct {
	list         []track // most recently used first
	events       int
	sharedUntil  int // the event up to which several publishers are known to share the id
	crowdedUntil int // the event up to which there are more publishers than tracks, so that no gap can be found
}

type track struct {
	next      uint64
	confirmed bool // it has been continued
	lastEvent int  // the count of events when it was last used

	// Set while this track may be the continuation, after a gap, of another one, its predecessor:
	predecessor, pendingGap uint64 // predecessor's next number, and how many events are missing in between
	eventsSince             int    // how many events have arrived since
}

func (t *tracks) record(number uint64) (gap sequenceGap) {
	t.events++
	i := t.nearestBelow(number)
	switch {
	case i >= 0 && t.list[i].next == number:
		return t.extend(i)
	case slices.ContainsFunc(t.list, func(r track) bool { return r.next == number+1 }): // a copy of the last event
	case i < 0 || !t.list[i].confirmed || t.events < t.crowdedUntil || t.isRepeat(number, t.list[i].next):
		t.add(track{next: number + 1})
	case t.events < t.sharedUntil:
		from := t.list[i].next
		t.add(track{next: number + 1, predecessor: from, pendingGap: number - from})
	default:
		r := &t.list[i]
		gap = sequenceGap{number - r.next, r.next - 1, number}
		r.next = number + 1
		t.moveToFront(i)
	}
	return gap
}

// extend continues a track with the number that it expects.
func (t *tracks) extend(i int) (gap sequenceGap) {
	if i > 0 && t.list[i].confirmed && t.list[0].confirmed {
		t.sharedUntil = t.events + sharedIDWindow
	}
	number := t.list[i].next
	t.resolve(number) // the track continues itself, so no other track is its continuation
	r := &t.list[i]
	r.next, r.confirmed = number+1, true
	if r.eventsSince++; r.pendingGap > 0 && r.eventsSince == confirmAfter {
		gap = sequenceGap{r.pendingGap, r.predecessor - 1, r.predecessor + r.pendingGap}
		from := r.predecessor
		t.resolve(from)
		t.moveToFront(i)
		t.list = slices.DeleteFunc(t.list, func(o track) bool { return o.next == from })
		return gap
	}
	t.moveToFront(i)
	return sequenceGap{}
}

// resolve drops the pending gaps after the track that expects a number.
func (t *tracks) resolve(number uint64) {
	for i := range t.list {
		if t.list[i].pendingGap > 0 && t.list[i].predecessor == number {
			t.list[i].pendingGap = 0
		}
	}
}

// isRepeat reports whether a number that is ahead of the expected one is more likely a repeated
// number: it is below the track that was used last, or, where several publishers share the id,
// it is nearer to another track than to the one below.
func (t *tracks) isRepeat(number, expected uint64) bool {
	for _, r := range t.list {
		switch {
		case !r.confirmed:
		case t.events >= t.sharedUntil:
			return r.next > number
		case r.next > number && r.next-number < number-expected:
			return true
		}
	}
	return false
}

// nearestBelow returns the index of the nearest track below a number, and of two equal ones the
// confirmed one. It returns -1 if no track can have reached the number.
func (t *tracks) nearestBelow(number uint64) (nearest int) {
	nearest = -1
	for i, r := range t.list {
		if r.next > number || number-r.next >= maxGap {
			continue
		}
		if nearest < 0 || r.next > t.list[nearest].next || r.next == t.list[nearest].next && r.confirmed && !t.list[nearest].confirmed {
			nearest = i
		}
	}
	return nearest
}

// add adds a track. If there is no room, it replaces the unconfirmed track that was not used for
// longest, or, if all are confirmed, the last of all.
func (t *tracks) add(r track) {
	if len(t.list) == maxTracks {
		last := maxTracks - 1
		for last > 0 && t.list[last].confirmed {
			last--
		}
		if t.list[last].confirmed {
			last = maxTracks - 1
			if t.list[last].lastEvent > t.events-sharedIDWindow {
				t.crowdedUntil = t.events + sharedIDWindow
			}
		}
		t.list = slices.Delete(t.list, last, last+1)
	}
	t.list = slices.Insert(t.list, 0, r)
	t.list[0].lastEvent = t.events
}

// moveToFront makes a track the first one.
func (t *tracks) moveToFront(i int) {
	r := t.list[i]
	r.lastEvent = t.events
	copy(t.list[1:i+1], t.list[:i])
	t.list[0] = r
}
