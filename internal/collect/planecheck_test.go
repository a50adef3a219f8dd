package collect

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

func TestPlaneCheckFindsMismatches(t *testing.T) {
	const worker, router = "kv-events", "active_sequences_events"
	channel := func(component, topic string, plane fleet.EventPlane) fleet.Channel {
		return fleet.Channel{Endpoint: fleet.Endpoint{Component: component}, Topic: topic, Plane: plane}
	}
	for name, c := range map[string]struct {
		channels []fleet.Channel
		want     map[string]string
	}{
		"no channels":    {nil, nil},
		"workers alone":  {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("c", worker, fleet.NATSPlane)}, nil},
		"a router alone": {[]fleet.Channel{channel("c", router, fleet.ZMQPlane)}, nil},
		"the same":       {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("c", router, fleet.ZMQPlane)}, nil},
		"different": {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("c", router, fleet.NATSPlane)},
			map[string]string{"c": "workers on ZMQ, routers on NATS"}},
		"one worker left behind": {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("c", worker, fleet.NATSPlane), channel("c", router, fleet.ZMQPlane)},
			map[string]string{"c": "workers on NATS and ZMQ, routers on ZMQ"}},
		"routers on both":      {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("c", router, fleet.NATSPlane), channel("c", router, fleet.ZMQPlane)}, nil},
		"different components": {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("d", router, fleet.NATSPlane)}, nil},
		"a router of the namespace": {[]fleet.Channel{channel("c", worker, fleet.ZMQPlane), channel("", "kv-hit-rate", fleet.NATSPlane)},
			map[string]string{"c": "workers on ZMQ, routers on NATS"}},
		"a router of another namespace": {[]fleet.Channel{
			{Endpoint: fleet.Endpoint{Namespace: "n", Component: "c"}, Topic: worker, Plane: fleet.ZMQPlane},
			{Endpoint: fleet.Endpoint{Namespace: "m", Component: "c"}, Topic: router, Plane: fleet.NATSPlane}}, nil},
		"a router of one of several namespaces": {[]fleet.Channel{
			{Endpoint: fleet.Endpoint{Namespace: "n", Component: "c"}, Topic: worker, Plane: fleet.ZMQPlane},
			{Endpoint: fleet.Endpoint{Namespace: "n"}, Topic: "kv-hit-rate", Plane: fleet.NATSPlane}},
			map[string]string{"n/c": "workers on ZMQ, routers on NATS"}},
		"an unknown event plane": {[]fleet.Channel{channel("c", worker, fleet.OtherPlane), channel("c", router, fleet.NATSPlane)}, nil},
	} {
		known := make(planeCheck)
		other := fleet.Some(channel("c", worker, fleet.BrokerPlane))
		known.apply([]fleet.ChannelChange{{New: other}})
		for _, ch := range c.channels {
			known.apply([]fleet.ChannelChange{{New: fleet.Some(ch)}})
		}
		known.apply([]fleet.ChannelChange{{Old: other}})
		if got := known.mismatches(); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		for _, ch := range c.channels {
			known.apply([]fleet.ChannelChange{{Old: fleet.Some(ch)}})
		}
		if len(known) > 0 {
			t.Errorf("%s: %d components are left after all channels were removed", name, len(known))
		}
	}
}

// TestPlaneCheckBoundsLogAndMismatches adds made-up components. The log names a few of them, and
// components that are gone are forgotten.
func TestPlaneCheckBoundsLogAndMismatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target{}, 65_536, true)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		log, journal := testutil.NewLog()
		go WatchEventPlane(ctx, f, log)
		put := func(i int) {
			endpoint := fleet.Endpoint{Component: fmt.Sprintf("made-up-%04d", i)}
			f.AddChannel(fmt.Sprint("worker", i), fleet.Channel{Endpoint: endpoint, Topic: "kv-events", Plane: fleet.ZMQPlane})
			f.AddChannel(fmt.Sprint("router", i), fleet.Channel{Endpoint: endpoint, Topic: "active_sequences_events", Plane: fleet.NATSPlane})
		}
		checkMismatches := func(want int) {
			t.Helper()
			time.Sleep(3 * planeCheckInterval)
			if got := f.Diagnostics.PlaneMismatches(); len(got) != want {
				t.Errorf("%d mismatches, want %d", len(got), want)
			}
		}
		put(0)
		time.Sleep(9 * time.Second)
		if n := len(f.Diagnostics.PlaneMismatches()); n != 0 {
			t.Errorf("%d mismatches before the check interval has passed", n)
		}
		time.Sleep(2 * time.Second)
		if n := len(f.Diagnostics.PlaneMismatches()); n != 1 {
			t.Errorf("%d mismatches after 11 s, want one", n)
		}
		for i := range 5000 {
			put(i)
		}
		checkMismatches(100)
		for i := range 5000 {
			f.RemoveChannel(fmt.Sprint("router", i))
		}
		checkMismatches(0)
		for i := range 5000 { // the same again
			put(i)
		}
		checkMismatches(100)
		if n := journal.Count("\n"); n != 21 {
			t.Errorf("%d lines are logged, want 20 components and one line about the others:\n%s", n, journal)
		}
	})
}
