package fleet

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

func TestChannelsSignalEveryChange(t *testing.T) {
	f := newFleet(everything, 2)
	zmq := Channel{Endpoint: generate, Topic: "kv_metrics", Publisher: 1, Plane: ZMQPlane, Address: "tcp://h:1"}
	changes := func(want bool, do func()) {
		t.Helper()
		_, changed := f.Channels()
		do()
		select {
		case <-changed:
			testutil.Equal(t, "changed", true, want)
		default:
			testutil.Equal(t, "changed", false, want)
		}
	}
	changes(true, func() { f.AddChannel("a", zmq) })
	changes(false, func() { f.AddChannel("a", zmq) })
	moved := zmq
	moved.Address = "tcp://h:2"
	changes(true, func() { f.AddChannel("a", moved) })
	all, _ := f.Channels()
	testutil.Equal(t, "channels", all, map[string]Channel{"a": moved})
	changes(false, func() { f.RemoveChannel("b") })
	changes(true, func() { f.Sync(Listing{Channels: map[string]Channel{"a": zmq, "b": zmq}}) })
	changes(false, func() { f.Sync(Listing{Channels: map[string]Channel{"a": zmq, "b": zmq}}) })
	changes(true, func() { f.RemoveChannel("b") })
	changes(true, func() { f.Sync(Listing{}) })
	all, _ = f.Channels()
	testutil.Equal(t, "channels", len(all), 0)
}

// checkChannels recounts everything that is counted, from the channels.
func checkChannels(t *testing.T, f *Fleet) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	cs := &f.channels
	bytes, onNATS := 0, 0
	scopes, publishers := make(map[scope]int), make(map[uint64]int)
	for key, c := range cs.byKey {
		bytes += 112 + len(key) + len(c.address)
		of := *c.scope
		of.refs = 0
		if scopes[of]++; scopes[of] == 1 {
			bytes += 192 + len(of.Namespace) + len(of.Component) + len(of.Name) + len(of.topic)
		}
		publishers[c.publisher]++
		if c.plane == NATSPlane {
			onNATS++
		}
	}
	testutil.Equal(t, "bytes", cs.bytes, bytes)
	testutil.Equal(t, "on NATS", cs.onNATS, onNATS)
	testutil.Equal(t, "scopes", len(cs.scopes), len(scopes))
	for of, n := range scopes {
		testutil.Equal(t, "channels of a scope", cs.scopes[of].refs, n)
	}
	testutil.Equal(t, "publishers", len(cs.byPublisher), len(publishers))
	for id, n := range publishers {
		linked := 0
		for c := cs.byPublisher[id]; c != nil; c = c.older {
			linked++
			if c.publisher != id || c.newer == nil != (c == cs.byPublisher[id]) {
				t.Errorf("the list of the channels of publisher %d is broken", id)
			}
		}
		testutil.Equal(t, "channels of a publisher", linked, n)
	}
	if len(cs.log) > 4096 {
		t.Errorf("%d changes are kept, want at most 4096", len(cs.log))
	}
}

// mirror applies all changes of a ChannelWatch. It counts how often it has each channel.
type mirror struct {
	*ChannelWatch
	channels map[Channel]int
	resyncs  int // number of calls that returned all channels
}

func (m *mirror) read() {
	changes, all, _ := m.Changes()
	if all {
		m.channels = make(map[Channel]int)
		m.resyncs++
	}
	for _, c := range changes {
		if c.Old.OK {
			if m.channels[c.Old.V]--; m.channels[c.Old.V] == 0 {
				delete(m.channels, c.Old.V)
			}
		}
		if c.New.OK {
			m.channels[c.New.V]++
		}
	}
}

// channelHistory makes random changes of channels, and has the model of their effects.
type channelHistory struct {
	rand  *rand.Rand
	fleet *Fleet
	keys  map[string]Channel
}

// channel returns a random channel.
func (h *channelHistory) channel() Channel {
	c := Channel{
		Endpoint: []Endpoint{{}, {Component: "backend"}, generate, prefill}[h.rand.IntN(4)], Topic: []string{"kv_metrics", "kv-events"}[h.rand.IntN(2)],
		Publisher: h.rand.Uint64N(20), Plane: EventPlane(h.rand.IntN(4)),
	}
	if c.Plane == NATSPlane {
		c.SubjectPrefix = "namespace.dynamo"
	} else {
		c.Address = fmt.Sprintf("tcp://h:%d", 1+h.rand.IntN(3))
	}
	return c
}

// change makes one random change.
func (h *channelHistory) change() {
	key := fmt.Sprint(h.rand.IntN(60))
	switch n := h.rand.IntN(1000); {
	case n == 0:
		all := make(map[string]Channel)
		for range h.rand.IntN(100) {
			all[fmt.Sprint(h.rand.IntN(100))] = h.channel()
		}
		h.fleet.Sync(Listing{Channels: all})
		h.keys = all
	case n < 600:
		h.keys[key] = h.channel()
		h.fleet.AddChannel(key, h.keys[key])
	default:
		delete(h.keys, key)
		h.fleet.RemoveChannel(key)
	}
}

// compare compares all queries of channels with the model.
func (h *channelHistory) compare(t *testing.T) {
	t.Helper()
	all, _ := h.fleet.Channels()
	testutil.Equal(t, "channels", all, h.keys)
	count, published, nats := h.counts(), make(map[uint64]bool), false
	for _, c := range h.keys {
		published[c.Publisher] = true
		nats = nats || c.Plane == NATSPlane
	}
	for id := range uint64(20) {
		c, ok := h.fleet.ChannelOf(id)
		if ok != published[id] || ok && (count[c] == 0 || c.Publisher != id) {
			t.Errorf("a channel of publisher %d: %v, %v", id, c, ok)
		}
	}
	testutil.Equal(t, "NATS is used", h.fleet.UsesNATS(), nats)
	checkChannels(t, h.fleet)
}

// counts returns how many keys each channel has.
func (h *channelHistory) counts() map[Channel]int {
	n := make(map[Channel]int)
	for _, c := range h.keys {
		n[c]++
	}
	return n
}

// TestChannelWatchSeesEveryChange compares mirrors that read often and rarely with the
// channels.
func TestChannelWatchSeesEveryChange(t *testing.T) {
	for seed := range uint64(8) {
		f := newFleet(everything, 1)
		h := &channelHistory{rand: rand.New(rand.NewPCG(seed, 0)), fleet: f, keys: make(map[string]Channel)}
		often, seldom := &mirror{ChannelWatch: f.WatchChannels()}, &mirror{ChannelWatch: f.WatchChannels()}
		for range 10_000 {
			h.change()
			if h.rand.IntN(20) == 0 {
				often.read()
			}
			if h.rand.IntN(3000) == 0 {
				seldom.read()
			}
		}
		often.read()
		seldom.read()
		testutil.Equal(t, "channels of the frequent reader", often.channels, h.counts())
		testutil.Equal(t, "channels of the rare reader", seldom.channels, h.counts())
		testutil.Equal(t, "calls of the frequent reader that returned all channels", often.resyncs, 1)
		h.compare(t)
	}
}

// TestChannelWatchResyncsWhenBehind checks that a watch reads all channels again if it missed
// changes, and not before.
func TestChannelWatchResyncsWhenBehind(t *testing.T) {
	f := newFleet(everything, largeLimit)
	w := f.WatchChannels()
	next := func(changes, want int, all bool) {
		t.Helper()
		for i := range changes {
			f.AddChannel("a", Channel{Topic: "kv_metrics", Publisher: uint64(changes + i)})
		}
		got, whole, _ := w.Changes()
		testutil.Equal(t, fmt.Sprintf("result after %d changes", changes), []any{len(got), whole}, []any{want, all})
	}
	next(0, 0, true)
	next(1, 1, false)
	next(0, 0, false)
	next(4096, 4096, false)
	next(4097, 1, true) // the current state of the one channel
	next(4096, 4096, false)
}

// TestChannelsMemoryIsBounded checks the limit with keys and addresses of several sizes, and
// that a large fleet has room.
func TestChannelsMemoryIsBounded(t *testing.T) {
	announce := func(f *Fleet, i, key, address int) {
		f.AddChannel(fmt.Sprintf("%0*d", key, i), Channel{
			Endpoint: generate, Topic: "forward-pass-metrics", Publisher: uint64(i), Plane: ZMQPlane, Address: fmt.Sprintf("tcp://%0*d:1", address-8, i),
		})
	}
	for _, c := range []struct{ limit, key, address, room int }{
		{1, 112, 32, 4095}, // 1 MiB, of which the endpoint takes 232 bytes
		{1024, 112, 32, 4095},
		{2048, 112, 32, 8191},
		{2048, 1000, 936, 1023},
		{65_536, 112, 32, 262_143},
	} {
		f := newFleet(everything, c.limit)
		for i := range c.room + 5 {
			announce(f, i, c.key, c.address)
		}
		what := fmt.Sprintf("of %d workers, keys of %d bytes and addresses of %d", c.limit, c.key, c.address)
		testutil.Equal(t, "channels "+what, len(f.channels.byKey), c.room)
		testutil.Equal(t, "refused "+what, f.Stats.Refused(stats.ChannelLimit), uint64(5))
		checkChannels(t, f)
	}
	f := newFleet(everything, 65_536)
	for worker := range 10_000 {
		for rank := range 8 {
			for _, topic := range []string{"kv_metrics", "forward-pass-metrics", "kv-events"} {
				id := uint64(worker*8+rank)<<32 + uint64(len(topic))
				f.AddChannel(fmt.Sprintf("v1/event_channels/namespace/dynamo-system-llama/component/VllmDecodeWorker/endpoint/generate/topic/%s/%x", topic, id), Channel{
					Endpoint: Endpoint{Component: "VllmDecodeWorker", Name: "generate"}, Topic: topic, Publisher: id, Plane: ZMQPlane, Address: "tcp://10.100.100.100:40000",
				})
			}
		}
	}
	testutil.Equal(t, "refused channels of 10,000 workers of eight ranks", f.Stats.Refused(stats.ChannelLimit), uint64(0))
}

// TestChannelsNeedSyncWhenRoomIsFreed checks that the registry is listed again for a refused
// channel.
func TestChannelsNeedSyncWhenRoomIsFreed(t *testing.T) {
	f := newFleet(everything, 1)
	all := make(map[string]Channel)
	for i := range 10 { // each has 104,857 bytes, so that there is room for nine
		all[fmt.Sprintf("%0104000d", i)] = Channel{Topic: "kv_metrics", Publisher: uint64(i)}
	}
	all["larger"+strings.Repeat(" ", 200_000)] = Channel{Topic: "kv_metrics"}
	f.Sync(Listing{Channels: all})
	first, _ := f.Channels()
	if len(first) == len(all) || len(first) < 8 {
		t.Fatalf("there is room for %d channels", len(first))
	}
	testutil.Equal(t, "needs sync while full", f.NeedsSync(), false)
	for key := range first {
		if len(key) < 200_000 {
			f.RemoveChannel(key)
			delete(all, key)
		}
		if f.NeedsSync() {
			break
		}
	}
	testutil.Equal(t, "needs sync with room", f.NeedsSync(), true)
	for key := range all {
		if len(key) > 200_000 {
			delete(all, key)
		}
	}
	f.Sync(Listing{Channels: all})
	second, _ := f.Channels()
	testutil.Equal(t, "all that fit", len(second), len(all))
	testutil.Equal(t, "needs sync after a sync", f.NeedsSync(), false)
}

func TestChannelsUseNATS(t *testing.T) {
	zmq, bus := Channel{Plane: ZMQPlane}, Channel{Plane: NATSPlane}
	for name, c := range map[string]struct {
		do   func(*Fleet)
		want bool
	}{
		"no worker":                {func(*Fleet) {}, false},
		"workers are polled":       {func(f *Fleet) { register(f, generate, 1) }, true},
		"workers have no channels": {func(f *Fleet) { registerPublishing(f, generate, 1) }, true},
		"workers have no channels, and NATS is disabled": {func(f *Fleet) { registerPublishing(f, generate, 1); f.Stats.NATS.Disable() }, false},
		"workers publish to a broker":                    {func(f *Fleet) { registerPublishing(f, generate, 1); f.Stats.ZMQ.MarkUsed() }, false},
		"workers publish on ZMQ":                         {func(f *Fleet) { registerPublishing(f, generate, 1); f.AddChannel("a", zmq) }, false},
		"workers publish on NATS":                        {func(f *Fleet) { registerPublishing(f, generate, 1); f.AddChannel("a", bus) }, true},
		"one of the workers is polled": {func(f *Fleet) {
			registerPublishing(f, generate, 1)
			f.AddChannel("a", zmq)
			f.Register(keyOf(Instance{Endpoint: generate, ID: 2}), Instance{Endpoint: generate, ID: 2}, Registration{Publishes: true, NATS: true})
		}, true},
	} {
		f := newFleet(everything, largeLimit)
		c.do(f)
		testutil.Equal(t, name, f.UsesNATS(), c.want)
	}
	testutil.Equal(t, "no registry", New(backend, largeLimit, false).UsesNATS(), true)
}

// TestChannelsChangeAtConstantCost checks that changes and queries of channels cost the same
// for any number of channels.
func TestChannelsChangeAtConstantCost(t *testing.T) {
	cost := func(channels int) (allocs float64) {
		f := newFleet(everything, 65_536)
		for i := range channels {
			f.AddChannel(fmt.Sprint(i), Channel{Topic: "kv_metrics", Publisher: uint64(i), Plane: ZMQPlane, Address: "tcp://h:1"})
		}
		w := f.WatchChannels()
		w.Changes()
		n := uint64(0)
		return testing.AllocsPerRun(100, func() {
			n++
			f.AddChannel("0", Channel{Topic: "kv_metrics", Publisher: n, Plane: ZMQPlane, Address: "tcp://h:2"})
			if changes, all, _ := w.Changes(); len(changes) != 1 || all {
				t.Errorf("got %d changes, all: %v", len(changes), all)
			}
			f.ChannelOf(n)
			f.UsesNATS()
		})
	}
	if few, many := cost(10), cost(100_000); many > few+1 || many > 20 {
		t.Errorf("%v allocations with 10 channels, %v with 100,000", few, many)
	}
}
