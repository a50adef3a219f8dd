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

var errOtherPublisher = errors.New("another publisher answers at this address")

// ParseBrokers reads DYN_ZMQ_BROKER_URL (0.9 to 1.6), which has the form
// "xsub=tcp://host:port , xpub=tcp://host:port" with more brokers behind semicolons.
// Events are read at the xpub side. Empty is none.
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

// copies tells the copies of an event apart that come by several brokers: publishers
// send each to all of them. A stream here is of one rank of a worker, since to 1.2
// several publishers of a process share an id and count side by side.
type deduper struct {
	mu              sync.Mutex // held while an event is booked: the brokers must not overtake each other between
	multipleBrokers bool       // brokers
	streams         recentMap[dedupKey, *window]

	gaps gapDetector // of what comes by one broker alone
}

type dedupKey struct {
	stream
	worker uint64
	rank   uint32
}

const (
	// remembered is how many events one broker may be ahead of another.
	windowSize = 1024

	// maxCopied bounds the streams that are remembered: at least so many, of those that
	// were heard last. Of one that was forgotten the copies of a moment count twice.
	maxDedupStreams = 1 << 17
)

// window is the last numbers of a stream.
type window struct {
	newest      uint64
	publishedAt uint64                  // when that was published, in Unix milliseconds
	seen        [windowSize / 64]uint64 // a bit for each number, by the number's last bits
}

// arrival is how an event stands to those that came before it.
type order int

const (
	inOrder   order = iota
	late            // it comes for the first time, after a newer one
	duplicate       // it came before, or so long ago that nobody knows
)

// arrives notes an event of a stream. Copies that are nil are of no broker.
func (c *deduper) classify(v wire.Envelope, kind stats.Kind, worker uint64, rank uint32) order {
	if c == nil {
		return inOrder
	}
	key := dedupKey{stream{v.Publisher, kind}, worker, rank}
	c.streams.generationSize = maxDedupStreams
	w, fresh := c.streams.get(key)
	if w == nil {
		w = new(window)
		w.restart(v)
		c.streams.put(key, w, 0)
		return inOrder
	}
	if fresh {
		c.streams.put(key, w, 0)
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
		w.restart(v) // a publisher made anew, in the same process or in one that has its id
		return inOrder
	}
	w.mark(number)
	return late
}

func (w *window) mark(number uint64) { w.seen[number%windowSize/64] |= 1 << (number % 64) }
