package collect

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"dynamo-metrics/internal/fleet"
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
	return compacted(xpub), nil
}

// compacted is the list sorted, each once.
func compacted(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

// repeats tells events that came before, by another broker: publishers send each to
// all of them. The number of an event alone does not tell, since publishers to 1.2
// may share an id.
type repeats struct {
	mu   sync.Mutex
	seed maphash.Seed
	last map[stream]*[memory]uint64 // hashes of the last events
}

// memory is how many events one broker may be ahead of another.
const memory = 256

// seen reports whether the event came before, and remembers it.
func (r *repeats) seen(v wire.Envelope, kind fleet.Kind) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil || len(r.last) > maxStreams/memory {
		r.seed, r.last = maphash.MakeSeed(), make(map[stream]*[memory]uint64)
	}
	var h maphash.Hash
	h.SetSeed(r.seed)
	h.Write(v.Payload)
	maphash.WriteComparable(&h, v.Sequence)
	maphash.WriteComparable(&h, v.PublishedAt)
	key := stream{v.Publisher, kind}
	last := r.last[key]
	if last == nil {
		last = new([memory]uint64)
		r.last[key] = last
	}
	slot := &last[v.Sequence%memory]
	if sum := h.Sum64(); *slot != sum {
		*slot = sum
		return false
	}
	return true
}
