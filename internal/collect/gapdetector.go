package collect

import (
	"math"
	"slices"
	"sync"

	"dynamo-metrics/internal/stats"
)

// sequences finds the gaps in what publishers count (0.9 to 1.6): each counts the events of
// one topic from 0. It remembers where at least the last maxStreams stand; what was
// forgotten begins anew, and nothing is missing before its first event.
type gapDetector struct {
	mu      sync.Mutex
	streams recentMap[stream, sequence]
}

// stream is what one publisher says of one topic.
type stream struct {
	publisher uint64
	kind      stats.Kind
}

const (
	// maxStreams bounds what is remembered, in tracks: ten thousand workers of eight ranks
	// with three topics each find room.
	maxStreams = 1 << 18

	// maxTracks bounds those of one stream.
	maxTracks = 8

	// maxGap is a gap from which on a number is not believed.
	maxGap = 1 << 32

	// certain is for how many events it stays certain that several publishers share an id.
	sharedIDWindow = 1024

	// enough is how many events must follow one that is ahead where several publishers
	// share an id, until it is no longer taken for the first of another one.
	confirmAfter = 3
)

// skipped are events that never came, between two that did.
type sequenceGap struct {
	missing       uint64 // 0: there are none
	after, before uint64 // the numbers of those that came
}

// arrives notes an event of a stream, and says what is missing before it.
func (s *gapDetector) record(of stream, number uint64) sequenceGap {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams.generationSize = maxStreams
	run, fresh := s.streams.get(of)
	held := 0
	if !fresh {
		held = run.extra()
	}
	gap := run.record(of, number)
	s.streams.put(of, run, run.extra()-held)
	return gap
}

// forget forgets where publishers stand: what they say until they are heard again is not missing.
func (s *gapDetector) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams.reset()
}

// sequence is where one stream stands. The zero sequence has heard nothing of it.
type sequence struct {
	next  uint64  // the number that comes next; 0: nothing has been heard yet
	split *tracks // instead, once a number has gone back
}

// extra is how many tracks there are beside the first.
func (s *sequence) extra() int {
	if s.split == nil {
		return 0
	}
	return len(s.split.list) - 1
}

// arrives notes an event, and says what is missing before it.
func (s *sequence) record(_ stream, number uint64) (gap sequenceGap) {
	switch {
	case number == math.MaxUint64: // nothing can come after it
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

// tracks are what may be one publisher each, of those that share an id. Up to 1.2 all
// publishers of a process do, and those of one topic, as of several data parallel ranks,
// count side by side. A number that goes back may also be of a publisher that has begun
// anew, a copy, or forged: none of them stops the counting of the others.
//
// A number that continues a track moves it on. One that is ahead of a track is a gap of the
// nearest below. One that is below all begins a track, on which no gap is counted until it
// has been continued. Where tracks were seen to go on in turn, one that is ahead may also be
// the first event of another publisher: what follows decides.
//
// There is room for a window in which events may come out of order: what is owed of a gap
// until that is settled.
type tracks struct {
	list         []track // the one that was heard last first
	events       int
	sharedUntil  int // until which of them it is certain that several publishers share the id
	crowdedUntil int // until which there are more publishers than tracks, so that nothing can be said
}

type track struct {
	next      uint64
	confirmed bool // it has been continued
	lastEvent int  // which event was its last

	// Where it may be what has become of the track that was to continue with from:
	predecessor, pendingGap uint64 // so many events are missing between them, if it is
	eventsSince             int    // events since
}

func (t *tracks) record(number uint64) (gap sequenceGap) {
	t.events++
	i := t.nearestBelow(number)
	switch {
	case i >= 0 && t.list[i].next == number:
		return t.extend(i)
	case slices.ContainsFunc(t.list, func(r track) bool { return r.next == number+1 }): // a copy of what came last
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

// goOn continues a track.
func (t *tracks) extend(i int) (gap sequenceGap) {
	if i > 0 && t.list[i].confirmed && t.list[0].confirmed {
		t.sharedUntil = t.events + sharedIDWindow
	}
	number := t.list[i].next
	t.resolve(number) // what was taken for its future is not
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

// settle ends the question which track the one that was to continue with a number has become.
func (t *tracks) resolve(number uint64) {
	for i := range t.list {
		if t.list[i].pendingGap > 0 && t.list[i].predecessor == number {
			t.list[i].pendingGap = 0
		}
	}
}

// repeated reports whether a number that is ahead of the one that was expected is rather one
// that came before: before the track that was heard last, or, where several publishers share
// the id, nearer to another track than to the one below.
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

// below is the track nearest below a number, of equals one that has been continued; -1 if
// there is none that can have come so far.
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

// begin adds a track. Where there is no room the one that was heard longest ago goes, of
// those that were never continued if there are some.
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

// first puts a track before the others.
func (t *tracks) moveToFront(i int) {
	r := t.list[i]
	r.lastEvent = t.events
	copy(t.list[1:i+1], t.list[:i])
	t.list[0] = r
}
