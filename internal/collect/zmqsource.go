package collect

import (
	"cmp"
	"container/list"
	"net"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
)

// sourceKey identifies a publisher or broker to subscribe to. A publisher that is registered
// under several keys, as by a proxy that writes the key layouts of old and new releases, is one
// source.
type sourceKey struct {
	address   string
	publisher uint64
	kind      stats.Kind
	broker    bool // publisher and kind are not set
}

// zmqSource is a source that should be subscribed to.
type zmqSource struct {
	sourceKey
	host string

	registryKeys int                    // how many keys announce it
	endpoint     fleet.Endpoint         // of the most specific key
	endpoints    map[fleet.Endpoint]int // of all keys, if they differ
	configured   bool                   // it is subscribed to even if no key announces it

	queued      *list.Element // in its host's waiting list; nil: it has a slot
	subscriber  *subscriber   // nil: not running
	waitCounted bool          // its wait was counted
	sequence    sequence      // of the publisher's events
}

func newZMQSource(s sourceKey) *zmqSource {
	host, _, _ := net.SplitHostPort(strings.TrimPrefix(s.address, "tcp://"))
	return &zmqSource{sourceKey: s, host: host}
}

// addKey adds a key with this endpoint (delta 1), or removes one (delta -1).
func (src *zmqSource) addKey(at fleet.Endpoint, delta int) {
	src.registryKeys += delta
	switch {
	case src.endpoints != nil:
		if src.endpoints[at] += delta; src.endpoints[at] <= 0 {
			delete(src.endpoints, at)
		}
	case delta > 0 && src.registryKeys > 1 && src.endpoint != at:
		src.endpoints = map[fleet.Endpoint]int{src.endpoint: src.registryKeys - 1, at: 1}
	case delta > 0:
		src.endpoint = at
	}
}

// chooseEndpoint chooses the most specific endpoint, and of equal ones the first.
func (src *zmqSource) chooseEndpoint() {
	first := true
	for e := range src.endpoints {
		if first || moreSpecific(e, src.endpoint) {
			src.endpoint, first = e, false
		}
	}
	if len(src.endpoints) == 1 {
		src.endpoints = nil
	}
}

func moreSpecific(a, b fleet.Endpoint) bool {
	named := func(s string) int { return min(len(s), 1) }
	return cmp.Or(
		cmp.Compare(named(b.Name), named(a.Name)), cmp.Compare(named(b.Component), named(a.Component)),
		cmp.Compare(a.Component, b.Component), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace),
	) < 0
}

// channel returns the source as a channel.
func (src *zmqSource) channel(topic string) fleet.Channel {
	if src.broker {
		return fleet.Channel{Plane: fleet.BrokerPlane, Address: src.address}
	}
	return fleet.Channel{Endpoint: src.endpoint, Topic: topic, Publisher: src.publisher, Plane: fleet.ZMQPlane, Address: src.address}
}
