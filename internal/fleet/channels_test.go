package fleet

import (
	"fmt"
	"testing"
)

func TestChannelsAreAnnouncedAndWithdrawn(t *testing.T) {
	f := fleetAt(everything, 2)
	zmq := Channel{Endpoint: generate, Topic: "kv_metrics", Publisher: 1, Plane: ZMQPlane, Address: "tcp://h:1"}
	changes := func(want bool, do func()) {
		t.Helper()
		_, changed := f.Channels()
		do()
		select {
		case <-changed:
			equal(t, "changed", true, want)
		default:
			equal(t, "changed", false, want)
		}
	}
	changes(true, func() { f.Announce("a", zmq) })
	changes(false, func() { f.Announce("a", zmq) })
	moved := zmq
	moved.Address = "tcp://h:2"
	changes(true, func() { f.Announce("a", moved) })
	all, _ := f.Channels()
	equal(t, "channels", all, map[string]Channel{"a": moved})
	changes(false, func() { f.Withdraw("b") })
	changes(true, func() { f.Sync(Listing{Channels: map[string]Channel{"a": zmq, "b": zmq}}) })
	changes(false, func() { f.Sync(Listing{Channels: map[string]Channel{"a": zmq, "b": zmq}}) })
	changes(true, func() { f.Withdraw("b") })
	changes(true, func() { f.Sync(Listing{}) })
	all, _ = f.Channels()
	equal(t, "channels", len(all), 0)
	for i := range 2*channelsPerWorker + 3 {
		f.Announce(fmt.Sprint(i), zmq)
	}
	equal(t, "over the limit", f.Tally.OverLimit(), uint64(3))
}

func TestNATSIsUsedWhereSomethingComesOverIt(t *testing.T) {
	zmq, bus := Channel{Plane: ZMQPlane}, Channel{Plane: NATSPlane}
	for name, c := range map[string]struct {
		do   func(*Fleet)
		want bool
	}{
		"nobody is there":                        {func(*Fleet) {}, false},
		"workers are polled":                     {func(f *Fleet) { register(f, generate, 1) }, true},
		"workers say not where":                  {func(f *Fleet) { publishing(f, generate, 1) }, true},
		"workers say not where, and NATS is off": {func(f *Fleet) { publishing(f, generate, 1); f.Tally.NATS.TurnOff() }, false},
		"workers publish to a broker":            {func(f *Fleet) { publishing(f, generate, 1); f.Tally.ZMQ.Use() }, false},
		"workers publish on ZMQ":                 {func(f *Fleet) { publishing(f, generate, 1); f.Announce("a", zmq) }, false},
		"workers publish on NATS":                {func(f *Fleet) { publishing(f, generate, 1); f.Announce("a", bus) }, true},
		"one of them does": {func(f *Fleet) {
			publishing(f, generate, 1)
			f.Announce("a", zmq)
			f.Register(keyOf(Instance{Endpoint: generate, ID: 2}), Instance{Endpoint: generate, ID: 2}, Registration{Publishes: true, NATS: true})
		}, true},
	} {
		f := fleetAt(everything, plenty)
		c.do(f)
		equal(t, name, f.UsesNATS(), c.want)
	}
	equal(t, "nobody registers", New(backend, plenty, false).UsesNATS(), true)
}
