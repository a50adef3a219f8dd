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
	name    string
	era     wire.Era
	layout  wire.Layout
	data    func(fleet.Load) any // what they put into "data" of a stats reply; nil: they answer no polls
	planes  []string             // their event planes, the default first
	version string               // of their NATS service; "" is 0.0.1
	ttl     int64                // seconds, of their leases
	voice   *voice               // nil to 0.5: they report when asked only
}

// voice is how workers speak for themselves, from 0.6 on.
type voice struct {
	value   func(namespace string, in fleet.Instance, host string) []byte // of their registration
	wrapped bool                                                          // their model card is in a value of type Model
	channel func(namespace string, c channel) (key string, value []byte)  // nil: they announce none, and their events have no envelope
	scope   func(namespace string, e fleet.Endpoint) string               // what the subjects of their events begin with
	id      func(worker uint64) uint64                                    // of a publisher

	load   func(worker uint64, l fleet.Load) (event []byte, known bool)
	passes bool // they report passes of their model
	hit    func(h hit) []byte
	traces bool // hits are for TraceSubject, where frontends publish them
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
	{name: "0.1.0", era: wire.EraSeed, layout: wire.LayoutComponents, data: flat, planes: natsOnly, ttl: shortLease},
	{name: "0.1.1", era: wire.EraHashed, layout: wire.LayoutComponents, data: flat, planes: natsOnly, ttl: shortLease},
	{name: "0.2.1", era: wire.EraPlain, layout: wire.LayoutComponents, data: flat, planes: natsOnly, ttl: shortLease},
	{name: "0.3.0", era: wire.EraPlain, layout: wire.LayoutInstances, data: flatWithRank, planes: natsOnly, ttl: shortLease},
	{name: "0.5.1", era: wire.EraPlain, layout: wire.LayoutInstances, data: nested, planes: natsOnly, ttl: shortLease},
	{name: "0.6.1", era: wire.EraPlain, layout: wire.LayoutV1, data: nothing, planes: natsOnly, version: "0.6.1", ttl: shortLease, voice: &voice{
		value: valueOf06, scope: namespaceScope, load: loadOf06, hit: hitOf06,
	}},
	{name: "0.9.1", era: wire.EraPlain, layout: wire.LayoutV1, planes: natsFirst, ttl: shortLease, voice: &voice{
		value: valueOf09, wrapped: true, channel: channelOf09, scope: namespaceScope, id: workersOwn, load: loadOf09, hit: packHit,
	}},
	{name: "1.6.1", era: wire.EraPlain, layout: wire.LayoutV1, planes: zmqFirst, ttl: longLease, voice: &voice{
		value: valueOf16, wrapped: true, channel: channelOf16, scope: endpointScope, id: random, load: loadOf16, passes: true, hit: traceOf, traces: true,
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
		for _, plane := range slices.Sorted(slices.Values(r.planes)) {
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
