package collect

import (
	"cmp"
	"container/list"
	"net"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
)

// source is one publisher that is subscribed to, or a broker. A publisher that is announced
// under several keys, as by a proxy that writes the layouts of old and new releases, is one.
type sourceKey struct {
	address   string
	publisher uint64
	kind      stats.Kind
	broker    bool // publisher and kind are not set
}

// want is a source that there should be a subscription at.
type zmqSource struct {
	sourceKey
	host string

	registryKeys int                    // that announce it
	endpoint     fleet.Endpoint         // of the key that names most
	endpoints    map[fleet.Endpoint]int // of all of them, if they differ
	configured   bool                   // it is wanted without a key

	queued      *list.Element // for a place; nil: it has one
	subscriber  *subscriber   // nil: it has none
	waitCounted bool          // that it has to wait was counted
	sequence    sequence      // of what the publisher sends
}

func newZMQSource(s sourceKey) *zmqSource {
	host, _, _ := net.SplitHostPort(strings.TrimPrefix(s.address, "tcp://"))
	return &zmqSource{sourceKey: s, host: host}
}

// announce notes one more key, or one less.
func (w *zmqSource) addKey(at fleet.Endpoint, delta int) {
	w.registryKeys += delta
	switch {
	case w.endpoints != nil:
		if w.endpoints[at] += delta; w.endpoints[at] <= 0 {
			delete(w.endpoints, at)
		}
	case delta > 0 && w.registryKeys > 1 && w.endpoint != at:
		w.endpoints = map[fleet.Endpoint]int{w.endpoint: w.registryKeys - 1, at: 1}
	case delta > 0:
		w.endpoint = at
	}
}

// settle chooses the endpoint: the one that names most, of equals the first.
func (w *zmqSource) chooseEndpoint() {
	first := true
	for e := range w.endpoints {
		if first || moreSpecific(e, w.endpoint) {
			w.endpoint, first = e, false
		}
	}
	if len(w.endpoints) == 1 {
		w.endpoints = nil
	}
}

func moreSpecific(a, b fleet.Endpoint) bool {
	named := func(s string) int { return min(len(s), 1) }
	return cmp.Or(
		cmp.Compare(named(b.Name), named(a.Name)), cmp.Compare(named(b.Component), named(a.Component)),
		cmp.Compare(a.Component, b.Component), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace),
	) < 0
}

// channel is the source as it is shown.
func (w *zmqSource) channel(topic string) fleet.Channel {
	if w.broker {
		return fleet.Channel{Plane: fleet.BrokerPlane, Address: w.address}
	}
	return fleet.Channel{Endpoint: w.endpoint, Topic: topic, Publisher: w.publisher, Plane: fleet.ZMQPlane, Address: w.address}
}
