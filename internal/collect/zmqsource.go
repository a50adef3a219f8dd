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
type source struct {
	address   string
	publisher uint64
	kind      stats.Kind
	broker    bool // publisher and kind are not set
}

// want is a source that there should be a subscription at.
type want struct {
	source
	host string

	keys      int                    // that announce it
	endpoint  fleet.Endpoint         // of the key that names most
	endpoints map[fleet.Endpoint]int // of all of them, if they differ
	flagged   bool                   // it is wanted without a key

	waiting  *list.Element // for a place; nil: it has one
	running  *subscriber   // nil: it has none
	turned   bool          // that it has to wait was counted
	sequence sequence      // of what the publisher sends
}

func newWant(s source) *want {
	host, _, _ := net.SplitHostPort(strings.TrimPrefix(s.address, "tcp://"))
	return &want{source: s, host: host}
}

// announce notes one more key, or one less.
func (w *want) announce(at fleet.Endpoint, once int) {
	w.keys += once
	switch {
	case w.endpoints != nil:
		if w.endpoints[at] += once; w.endpoints[at] <= 0 {
			delete(w.endpoints, at)
		}
	case once > 0 && w.keys > 1 && w.endpoint != at:
		w.endpoints = map[fleet.Endpoint]int{w.endpoint: w.keys - 1, at: 1}
	case once > 0:
		w.endpoint = at
	}
}

// settle chooses the endpoint: the one that names most, of equals the first.
func (w *want) settle() {
	first := true
	for e := range w.endpoints {
		if first || namesMore(e, w.endpoint) {
			w.endpoint, first = e, false
		}
	}
	if len(w.endpoints) == 1 {
		w.endpoints = nil
	}
}

func namesMore(a, b fleet.Endpoint) bool {
	named := func(s string) int { return min(len(s), 1) }
	return cmp.Or(
		cmp.Compare(named(b.Name), named(a.Name)), cmp.Compare(named(b.Component), named(a.Component)),
		cmp.Compare(a.Component, b.Component), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace),
	) < 0
}

// channel is the source as it is shown.
func (w *want) channel(topic string) fleet.Channel {
	if w.broker {
		return fleet.Channel{Plane: fleet.BrokerPlane, Address: w.address}
	}
	return fleet.Channel{Endpoint: w.endpoint, Topic: topic, Publisher: w.publisher, Plane: fleet.ZMQPlane, Address: w.address}
}
