package collect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

var errOtherPublisher = errors.New("another publisher uses this address")

// ParseBrokers returns the xpub addresses in DYN_ZMQ_BROKER_URL (0.9 to 1.6), which has the form
// "xsub=tcp://host:port , xpub=tcp://host:port", with the addresses of further brokers after
// semicolons. Events are read from the xpub side. An empty value names no broker.
func ParseBrokers(value string) (xpub []string, err error) {
	if strings.TrimSpace(value) == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(value, ",") {
		side, addresses, _ := strings.Cut(strings.TrimSpace(part), "=")
		if strings.TrimSpace(side) != "xpub" {
			continue
		}
		for address := range strings.SplitSeq(addresses, ";") {
			if address = strings.TrimSpace(address); !wire.ValidAddress(address) {
				return nil, fmt.Errorf("address %q: want tcp://host:port", address)
			}
			xpub = append(xpub, address)
		}
	}
	if len(xpub) == 0 {
		return nil, errors.New("no xpub: want xsub=tcp://host:port , xpub=tcp://host:port")
	}
	slices.Sort(xpub)
	return slices.Compact(xpub), nil
}

// deduper finds copies of an event: publishers send each event to all brokers. It keeps a stream
// for each rank of a worker, because up to 1.2 several publishers in a process share an id, and
// each numbers its own events.
type deduper struct {
	mu              sync.Mutex // held until an event is recorded, so that brokers do not overtake each other
	multipleBrokers bool
	streams         recentMap[dedupKey, *window]

	gaps gapDetector // used while there is only one broker
}

type dedupKey struct {
	stream
	worker uint64
	rank   uint32
}

const (
	// windowSize is how many events one broker may be ahead of another.
	windowSize = 1024

	// maxDedupStreams bounds the streams in each of two generations, so that at least this many
	// of the streams that were used last are remembered. After a stream was forgotten, copies
	// may count twice.
	maxDedupStreams = 1 << 17
)

// window remembers the last sequence numbers of a stream.
type window struct {
	newest      uint64
	publishedAt uint64                  // when newest was published, in Unix milliseconds
	seen        [windowSize / 64]uint64 // one bit per number, indexed by the number modulo windowSize
}

// order classifies an event by the events that arrived before it.
type order int

const (
	inOrder   order = iota
	late            // the first copy of the event, after a newer event
	duplicate       // another copy of the event, or one that is older than the window
)

// classify records an event of a stream. A nil deduper, which is for events without a broker,
// returns inOrder.
func (d *deduper) classify(v wire.Envelope, kind stats.Kind, worker uint64, rank uint32) order {
	if d == nil {
		return inOrder
	}
	key := dedupKey{stream{v.Publisher, kind}, worker, rank}
	d.streams.generationSize = maxDedupStreams
	w, mustPut := d.streams.get(key)
	if w == nil {
		w = new(window)
		w.restart(v)
		d.streams.put(key, w, 0)
		return inOrder
	}
	if mustPut {
		d.streams.put(key, w, 0)
	}
	return w.classify(v)
}

func (w *window) restart(v wire.Envelope) {
	*w = window{newest: v.Sequence, publishedAt: v.PublishedAt}
	w.mark(v.Sequence)
}

func (w *window) classify(v wire.Envelope) order {
	number := v.Sequence
	if number > w.newest {
		for n := range min(number-w.newest, windowSize) {
			w.seen[(number-n)%windowSize/64] &^= 1 << ((number - n) % 64)
		}
		w.newest, w.publishedAt = number, v.PublishedAt
		w.mark(number)
		return inOrder
	}
	if w.newest-number >= windowSize || w.seen[number%windowSize/64]&(1<<(number%64)) != 0 {
		if v.PublishedAt <= w.publishedAt {
			return duplicate
		}
		w.restart(v) // a new publisher with the same id, in the same or another process
		return inOrder
	}
	w.mark(number)
	return late
}

func (w *window) mark(number uint64) { w.seen[number%windowSize/64] |= 1 << (number % 64) }
