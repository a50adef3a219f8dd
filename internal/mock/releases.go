package mock

import (
	"slices"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// Latest is the release that is imitated if none is named.
const Latest = "0.5.1"

// The event planes: what events travel on.
const (
	NATS = "nats"
	ZMQ  = "zmq" // a PUB socket for each worker and topic
)

// release is how the workers of a release speak.
type release struct {
	name        string
	era         wire.Era
	layout      wire.Layout
	statsData   func(fleet.Load) any // what they put into "data" of a stats reply; nil: they answer no polls
	eventPlanes []string             // their event planes, the default first
	version     string               // of their NATS service; "" is 0.0.1
	ttl         int64                // seconds, of their leases
	events      *eventFormat         // nil to 0.5: they report when asked only
}

// voice is how workers speak for themselves, from 0.6 on.
type eventFormat struct {
	value       func(namespace string, in fleet.Instance, host string) []byte // of their registration
	wrapsCard   bool                                                          // their model card is in a value of type Model
	channel     func(namespace string, c channel) (key string, value []byte)  // nil: they announce none, and their events have no envelope
	scope       func(namespace string, e fleet.Endpoint) string               // what the subjects of their events begin with
	publisherID func(worker uint64) uint64                                    // of a publisher

	load             func(worker uint64, l fleet.Load) (event []byte, known bool)
	hasForwardPasses bool // they report passes of their model
	hit              func(h hit) []byte
	hitsAreTraces    bool // hits are for TraceSubject, where frontends publish them
}

// How long leases last without being renewed, in seconds.
const (
	shortLease = 10
	longLease  = 30
)

var (
	natsOnly  = []string{NATS}
	natsFirst = []string{NATS, ZMQ}
	zmqFirst  = []string{ZMQ, NATS}
)

var releases = []release{
	{name: "0.1.0", era: wire.EraSeed, layout: wire.LayoutComponents, statsData: flatData, eventPlanes: natsOnly, ttl: shortLease},
	{name: "0.1.1", era: wire.EraHashed, layout: wire.LayoutComponents, statsData: flatData, eventPlanes: natsOnly, ttl: shortLease},
	{name: "0.2.1", era: wire.EraPlain, layout: wire.LayoutComponents, statsData: flatData, eventPlanes: natsOnly, ttl: shortLease},
	{name: "0.3.0", era: wire.EraPlain, layout: wire.LayoutInstances, statsData: flatDataWithRank, eventPlanes: natsOnly, ttl: shortLease},
	{name: "0.5.1", era: wire.EraPlain, layout: wire.LayoutInstances, statsData: nestedData, eventPlanes: natsOnly, ttl: shortLease},
	{name: "0.6.1", era: wire.EraPlain, layout: wire.LayoutV1, statsData: noData, eventPlanes: natsOnly, version: "0.6.1", ttl: shortLease, events: &eventFormat{
		value: endpointValue06, scope: namespaceScope, load: encodeLoad06, hit: encodeHit06,
	}},
	{name: "0.9.1", era: wire.EraPlain, layout: wire.LayoutV1, eventPlanes: natsFirst, ttl: shortLease, events: &eventFormat{
		value: endpointValue09, wrapsCard: true, channel: channelEntry09, scope: namespaceScope, publisherID: sameAsWorker, load: encodeLoad09, hit: encodeHit09,
	}},
	{name: "1.6.1", era: wire.EraPlain, layout: wire.LayoutV1, eventPlanes: zmqFirst, ttl: longLease, events: &eventFormat{
		value: endpointValue16, wrapsCard: true, channel: channelEntry16, scope: endpointScope, publisherID: randomID, load: encodeLoad16, hasForwardPasses: true, hit: encodeTrace, hitsAreTraces: true,
	}},
}

// Releases lists the releases that can be imitated, oldest first.
func Releases() []string {
	names := make([]string, len(releases))
	for i, r := range releases {
		names[i] = r.name
	}
	return names
}

// Mixed spreads c's workers over every release and every event plane of it, at least
// one each: a Config for each pair.
func Mixed(c Config) []Config {
	var all []Config
	for _, r := range releases {
		for _, plane := range slices.Sorted(slices.Values(r.eventPlanes)) {
			one := c
			one.Release, one.EventPlane, one.Workers = r.name, plane, 0
			if c.Seed != 0 {
				one.Seed += uint64(len(all)) // or their loads would be the same
			}
			all = append(all, one)
		}
	}
	for n := range max(c.Workers, len(all)) {
		all[n%len(all)].Workers++
	}
	return all
}
