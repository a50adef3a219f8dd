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
type sequences struct {
	mu   sync.Mutex
	runs recent[stream, sequence]
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
	certain = 1024

	// enough is how many events must follow one that is ahead where several publishers
	// share an id, until it is no longer taken for the first of another one.
	enough = 3
)

// skipped are events that never came, between two that did.
type skipped struct {
	missing       uint64 // 0: there are none
	after, before uint64 // the numbers of those that came
}

// arrives notes an event of a stream, and says what is missing before it.
func (s *sequences) arrives(of stream, number uint64) skipped {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs.most = maxStreams
	run, fresh := s.runs.get(of)
	held := 0
	if !fresh {
		held = run.extra()
	}
	gap := run.arrives(of, number)
	s.runs.put(of, run, run.extra()-held)
	return gap
}

// forget forgets where publishers stand: what they say until they are heard again is not missing.
func (s *sequences) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs.forget()
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
	return len(s.split.all) - 1
}

// arrives notes an event, and says what is missing before it.
func (s *sequence) arrives(_ stream, number uint64) (gap skipped) {
	switch {
	case number == math.MaxUint64: // nothing can come after it
	case s.split != nil:
		return s.split.arrives(number)
	case s.next == 0 || number == s.next:
		s.next = number + 1
	case number > s.next && number-s.next < maxGap:
		gap = skipped{number - s.next, s.next - 1, number}
		s.next = number + 1
	default:
		s.split = &tracks{all: []track{{next: s.next, proved: true}}}
		return s.split.arrives(number)
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
	all     []track // the one that was heard last first
	events  int
	shared  int // until which of them it is certain that several publishers share the id
	crowded int // until which there are more publishers than tracks, so that nothing can be said
}

type track struct {
	next   uint64
	proved bool // it has been continued
	at     int  // which event was its last

	// Where it may be what has become of the track that was to continue with from:
	from, owed uint64 // so many events are missing between them, if it is
	heard      int    // events since
}

func (t *tracks) arrives(number uint64) (gap skipped) {
	t.events++
	i := t.below(number)
	switch {
	case i >= 0 && t.all[i].next == number:
		return t.goOn(i)
	case slices.ContainsFunc(t.all, func(r track) bool { return r.next == number+1 }): // a copy of what came last
	case i < 0 || !t.all[i].proved || t.events < t.crowded || t.repeated(number, t.all[i].next):
		t.begin(track{next: number + 1})
	case t.events < t.shared:
		from := t.all[i].next
		t.begin(track{next: number + 1, from: from, owed: number - from})
	default:
		r := &t.all[i]
		gap = skipped{number - r.next, r.next - 1, number}
		r.next = number + 1
		t.first(i)
	}
	return gap
}

// goOn continues a track.
func (t *tracks) goOn(i int) (gap skipped) {
	if i > 0 && t.all[i].proved && t.all[0].proved {
		t.shared = t.events + certain
	}
	number := t.all[i].next
	t.settle(number) // what was taken for its future is not
	r := &t.all[i]
	r.next, r.proved = number+1, true
	if r.heard++; r.owed > 0 && r.heard == enough {
		gap = skipped{r.owed, r.from - 1, r.from + r.owed}
		from := r.from
		t.settle(from)
		t.first(i)
		t.all = slices.DeleteFunc(t.all, func(o track) bool { return o.next == from })
		return gap
	}
	t.first(i)
	return skipped{}
}

// settle ends the question which track the one that was to continue with a number has become.
func (t *tracks) settle(number uint64) {
	for i := range t.all {
		if t.all[i].owed > 0 && t.all[i].from == number {
			t.all[i].owed = 0
		}
	}
}

// repeated reports whether a number that is ahead of the one that was expected is rather one
// that came before: before the track that was heard last, or, where several publishers share
// the id, nearer to another track than to the one below.
func (t *tracks) repeated(number, expected uint64) bool {
	for _, r := range t.all {
		switch {
		case !r.proved:
		case t.events >= t.shared:
			return r.next > number
		case r.next > number && r.next-number < number-expected:
			return true
		}
	}
	return false
}

// below is the track nearest below a number, of equals one that has been continued; -1 if
// there is none that can have come so far.
func (t *tracks) below(number uint64) (nearest int) {
	nearest = -1
	for i, r := range t.all {
		if r.next > number || number-r.next >= maxGap {
			continue
		}
		if nearest < 0 || r.next > t.all[nearest].next || r.next == t.all[nearest].next && r.proved && !t.all[nearest].proved {
			nearest = i
		}
	}
	return nearest
}

// begin adds a track. Where there is no room the one that was heard longest ago goes, of
// those that were never continued if there are some.
func (t *tracks) begin(r track) {
	if len(t.all) == maxTracks {
		last := maxTracks - 1
		for last > 0 && t.all[last].proved {
			last--
		}
		if t.all[last].proved {
			last = maxTracks - 1
			if t.all[last].at > t.events-certain {
				t.crowded = t.events + certain
			}
		}
		t.all = slices.Delete(t.all, last, last+1)
	}
	t.all = slices.Insert(t.all, 0, r)
	t.all[0].at = t.events
}

// first puts a track before the others.
func (t *tracks) first(i int) {
	r := t.all[i]
	r.at = t.events
	copy(t.all[1:i+1], t.all[:i])
	t.all[0] = r
}
