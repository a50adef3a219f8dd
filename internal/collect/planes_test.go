package collect

import (
	"maps"
	"testing"

	"dynamo-metrics/internal/fleet"
)

func TestWorkersAndRoutersOnDifferentPlanesAreTold(t *testing.T) {
	const worker, router = "kv-events", "active_sequences_events"
	channel := func(component, topic string, plane fleet.Plane) fleet.Channel {
		return fleet.Channel{Endpoint: fleet.Endpoint{Component: component}, Topic: topic, Plane: plane}
	}
	for name, c := range map[string]struct {
		channels []fleet.Channel
		want     map[string]string
	}{
		"nobody":         {nil, nil},
		"workers alone":  {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("c", worker, fleet.NATSPlane)}, nil},
		"a router alone": {[]fleet.Channel{channel("c", router, fleet.ZMQPlane)}, nil},
		"alike":          {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("c", router, fleet.ZMQPlane)}, nil},
		"not alike": {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("c", router, fleet.NATSPlane)},
			map[string]string{"c": "workers on ZMQ, routers on NATS"}},
		"one worker left behind": {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("c", worker, fleet.NATSPlane), channel("c", router, fleet.ZMQPlane)},
			map[string]string{"c": "workers on NATS and ZMQ, routers on ZMQ"}},
		"routers on both":         {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("c", router, fleet.NATSPlane), channel("c", router, fleet.ZMQPlane)}, nil},
		"of different components": {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("d", router, fleet.NATSPlane)}, nil},
		"a router of the namespace": {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("", "kv-hit-rate", fleet.NATSPlane)},
			map[string]string{"c": "workers on ZMQ, routers on NATS"}},
		"a router of another namespace": {[]fleet.Channel{
			{Endpoint: fleet.Endpoint{Namespace: "n", Component: "c"}, Topic: worker, Plane: fleet.ZMQPlane},
			{Endpoint: fleet.Endpoint{Namespace: "m", Component: "c"}, Topic: router, Plane: fleet.NATSPlane}}, nil},
		"a router of one of several namespaces": {[]fleet.Channel{
			{Endpoint: fleet.Endpoint{Namespace: "n", Component: "c"}, Topic: worker, Plane: fleet.ZMQPlane},
			{Endpoint: fleet.Endpoint{Namespace: "n"}, Topic: "kv-hit-rate", Plane: fleet.NATSPlane}},
			map[string]string{"n/c": "workers on ZMQ, routers on NATS"}},
		"a plane that is not known": {[]fleet.Channel{channel("c", worker, fleet.OtherPlane), channel("c", router, fleet.NATSPlane)}, nil},
	} {
		all := make(map[string]fleet.Channel)
		for i, ch := range c.channels {
			all[string(rune('a'+i))] = ch
		}
		if got := split(all); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
