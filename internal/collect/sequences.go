package collect

import (
	"sync"

	"dynamo-metrics/internal/fleet"
)

// sequences finds the gaps in what publishers count (0.9 to 1.6): each counts the
// events of one topic from 0. To 1.2 all publishers of a process share an id, and
// those of one topic, as of several data parallel ranks, count side by side: a number
// that goes back tells them, and then nothing can be said of their gaps.
type sequences struct {
	mu   sync.Mutex
	next map[stream]uint64
}

type stream struct {
	publisher uint64
	kind      fleet.Kind
}

const (
	// maxStreams bounds the streams that are remembered. Beyond it all are forgotten:
	// gaps of the moment go uncounted, which is better than growing for ever.
	maxStreams = 1 << 18
	sharedID   = 1<<64 - 1 // in place of a stream's next number
	// maxGap is a gap beyond which a number is not believed.
	maxGap = 1 << 32
)

// gap is how many events of a stream are missing before the one of this number.
func (s *sequences) gap(publisher uint64, kind fleet.Kind, number uint64) (missing uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.next) >= maxStreams {
		clear(s.next)
	}
	if s.next == nil {
		s.next = make(map[stream]uint64)
	}
	key := stream{publisher, kind}
	next, known := s.next[key]
	switch {
	case known && next == sharedID:
		return 0
	case known && number < next:
		s.next[key] = sharedID
		return 0
	case known && number-next < maxGap:
		missing = number - next
	}
	s.next[key] = number + 1
	return missing
}
