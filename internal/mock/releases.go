package mock

import (
	"slices"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// DefaultRelease is the release that is imitated if none is configured.
const DefaultRelease = "0.5.1"

// Event planes are the transports of events.
const (
	NATS = "nats"
	ZMQ  = "zmq" // a PUB socket for each worker and topic
)

// release describes how the workers of a release register and report.
type release struct {
	name        string
	era         wire.Era
	layout      wire.Layout
	statsData   func(fleet.Load) any // the field "data" of stats replies; nil if there are no stats polls
	eventPlanes []string             // the default first
	version     string               // of the NATS service; "" means 0.0.1
	ttl         int64                // of leases, in seconds
	events      *eventFormat         // nil up to 0.5.1, whose mock workers report their load in replies to polls only
}

// eventFormat describes the registration and the events of workers that publish their load,
// from 0.6 on.
type eventFormat struct {
	value       func(namespace string, in fleet.Instance, host string) []byte // of the endpoint's key
	wrapsCard   bool                                                          // the model card is in a value of type Model
	channel     func(namespace string, c channel) (key string, value []byte)  // nil if there are no channels; events then have no envelope
	scope       func(namespace string, e fleet.Endpoint) string               // prefix of the subjects of events
	publisherID func(worker uint64) uint64

	load             func(worker uint64, l fleet.Load) (event []byte, known bool)
	hasForwardPasses bool // workers report the forward passes of their model
	hit              func(h hit) []byte
	hitsAreTraces    bool // hits are request traces on TraceSubject, as frontends publish them
}

// Times to live of leases, in seconds.
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

// Mixed distributes c's workers over all pairs of a release and one of its event planes. It
// returns a Config with at least one worker for each pair.
func Mixed(c Config) []Config {
	var all []Config
	for _, r := range releases {
		for _, plane := range slices.Sorted(slices.Values(r.eventPlanes)) {
			one := c
			one.Release, one.EventPlane, one.Workers = r.name, plane, 0
			if c.Seed != 0 {
				one.Seed += uint64(len(all)) // so that their loads differ
			}
			all = append(all, one)
		}
	}
	for n := range max(c.Workers, len(all)) {
		all[n%len(all)].Workers++
	}
	return all
}
