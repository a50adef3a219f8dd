package fleet

import (
	"strings"

	"dynamo-metrics/internal/stats"
)

// Channel is an event channel: it says where one publisher publishes its events of one topic
// (0.9 to 1.6).
type Channel struct {
	// Endpoint is the publisher's endpoint. It lacks the name if the channel belongs to a
	// component (forward passes, 1.1 to 1.3), and is empty if the channel belongs to the whole
	// namespace (load events up to 1.3, hit-rate events up to 0.9).
	Endpoint  Endpoint
	Topic     string
	Publisher uint64 // publisher id in the event envelopes

	Plane         EventPlane
	Address       string // ZMQ: tcp://host:port; broker: its addresses for subscribers, separated by ";"
	SubjectPrefix string // NATS: the subject without the topic
}

// EventPlane is the transport of a channel's events.
type EventPlane int

// The values of EventPlane.
const (
	OtherPlane EventPlane = iota // a transport that this program does not know
	NATSPlane
	ZMQPlane    // a socket of the publisher
	BrokerPlane // a ZMQ broker, which publishers find by configuration

	PlaneCount int = iota // number of values
)

// String returns the name for operators.
func (p EventPlane) String() string {
	return [...]string{"another plane", "NATS", "ZMQ", "a ZMQ broker"}[p]
}

// The memory for channels is limited in proportion to the limit of workers, and never below
// minChannelBytes. With a limit of 65,536 workers there is room for 10,000 workers of eight
// ranks that publish three topics each.
const (
	channelBytesPerWorker = 1 << 10
	minChannelBytes       = 1 << 20

	channelBytes = 112 // for a channel, in addition to its key and address
	scopeBytes   = 192 // for a scope, in addition to its names
)

// channels has the event channels.
type channels struct {
	byKey       map[string]*channel
	byPublisher map[uint64]*channel // the channel that was added last
	scopes      map[scope]*scope
	bytes       int
	onNATS      int // number of channels on NATS

	smallestRefused int // bytes of the smallest channel refused since the last Sync; 0 if none was

	log     []ChannelChange // the last changes, as a ring buffer
	logged  uint64          // number of changes so far
	changed chan struct{}   // closed at the next change; nil if no watcher waits
}

// channel is a Channel in a compact form.
type channel struct {
	*scope
	publisher    uint64
	address      string // Channel.Address, or on NATS Channel.SubjectPrefix
	plane        EventPlane
	older, newer *channel // channels of the same publisher
}

// scope has the names that many channels share.
type scope struct {
	Endpoint
	topic string
	refs  int // number of channels; 0 in the key of a map
}

func (s scope) bytes() int {
	return scopeBytes + len(s.Namespace) + len(s.Component) + len(s.Name) + len(s.topic)
}

// clone returns a copy whose names do not keep larger strings in memory.
func (s scope) clone() *scope {
	return &scope{Endpoint{Namespace: strings.Clone(s.Namespace), Component: strings.Clone(s.Component), Name: strings.Clone(s.Name)}, strings.Clone(s.topic), 0}
}

func newChannels() channels {
	return channels{byKey: make(map[string]*channel), byPublisher: make(map[uint64]*channel), scopes: make(map[scope]*scope)}
}

// export returns the Channel that c holds.
func (c *channel) export() Channel {
	all := Channel{Endpoint: c.Endpoint, Topic: c.topic, Publisher: c.publisher, Plane: c.plane, Address: c.address}
	if c.plane == NATSPlane {
		all.Address, all.SubjectPrefix = "", c.address
	}
	return all
}

// AddChannel records the channel that a key of the registry holds.
func (f *Fleet) AddChannel(key string, c Channel) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addChannel(key, c)
}

func (f *Fleet) addChannel(key string, c Channel) {
	change := ChannelChange{New: Some(c)}
	if old, known := f.channels.byKey[key]; known {
		change.Old = Some(old.export())
		if change.Old.V == c {
			return
		}
		f.channels.remove(key, old)
	}
	if !f.channels.add(key, c, max(minChannelBytes, f.workerLimit*channelBytesPerWorker)) {
		f.Stats.CountRefused(stats.ChannelLimit)
		change.New = Opt[Channel]{}
	}
	if change.Old.OK || change.New.OK {
		f.channels.logChange(change)
	}
}

// RemoveChannel records that the key of a channel is deleted.
func (f *Fleet) RemoveChannel(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeChannel(key)
}

func (f *Fleet) removeChannel(key string) {
	if old, known := f.channels.byKey[key]; known {
		f.channels.remove(key, old)
		f.channels.logChange(ChannelChange{Old: Some(old.export())})
	}
}

// add adds a channel with a new key. It returns false if the channels would take more than
// limit bytes.
func (cs *channels) add(key string, c Channel, limit int) bool {
	address := c.Address
	if c.Plane == NATSPlane {
		address = c.SubjectPrefix
	}
	names := scope{Endpoint: c.Endpoint, topic: c.Topic}
	shared := cs.scopes[names]
	bytes := channelBytes + len(key) + len(address)
	if shared == nil {
		bytes += names.bytes()
	}
	if cs.bytes+bytes > limit {
		if cs.smallestRefused == 0 || bytes < cs.smallestRefused {
			cs.smallestRefused = bytes
		}
		return false
	}
	cs.bytes += bytes
	if shared == nil {
		shared = names.clone()
		cs.scopes[*shared] = shared
	}
	shared.refs++
	kept := &channel{scope: shared, publisher: c.Publisher, address: address, plane: c.Plane, older: cs.byPublisher[c.Publisher]}
	if kept.older != nil {
		kept.older.newer = kept
	}
	cs.byPublisher[c.Publisher], cs.byKey[key] = kept, kept
	if c.Plane == NATSPlane {
		cs.onNATS++
	}
	return true
}

// remove removes the channel with a key.
func (cs *channels) remove(key string, c *channel) {
	cs.bytes -= channelBytes + len(key) + len(c.address)
	c.refs--
	if names := *c.scope; names.refs == 0 {
		cs.bytes -= names.bytes()
		delete(cs.scopes, names)
	}
	if c.older != nil {
		c.older.newer = c.newer
	}
	switch {
	case c.newer != nil:
		c.newer.older = c.older
	case c.older != nil:
		cs.byPublisher[c.publisher] = c.older
	default:
		delete(cs.byPublisher, c.publisher)
	}
	delete(cs.byKey, key)
	if c.plane == NATSPlane {
		cs.onNATS--
	}
}

// Channels returns a copy of all channels by key, and a Go channel that is closed at the next
// change. WatchChannels is cheaper for a caller that needs every change.
func (f *Fleet) Channels() (all map[string]Channel, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all = make(map[string]Channel, len(f.channels.byKey))
	for key, c := range f.channels.byKey {
		all[key] = c.export()
	}
	return all, f.channels.nextChange()
}

// ChannelOf returns a channel of this publisher.
func (f *Fleet) ChannelOf(publisher uint64) (Channel, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.channels.byPublisher[publisher]
	if c == nil {
		return Channel{}, false
	}
	return c.export(), true
}

// syncChannels replaces all channels.
func (f *Fleet) syncChannels(all map[string]Channel) {
	for key := range f.channels.byKey {
		if _, keeps := all[key]; !keeps {
			f.removeChannel(key)
		}
	}
	f.channels.smallestRefused = 0
	for key, c := range all {
		f.addChannel(key, c)
	}
}

// hasRoomForRefusedChannel reports whether there is room now for a channel that was refused.
func (f *Fleet) hasRoomForRefusedChannel() bool {
	cs := &f.channels
	return cs.smallestRefused > 0 && cs.bytes+cs.smallestRefused <= max(minChannelBytes, f.workerLimit*channelBytesPerWorker)
}

// UsesNATS reports whether the namespace uses NATS. It does if a worker receives requests over
// NATS, or if an event channel is on NATS. Workers that register without any event channel
// (0.6 to 0.8) publish on NATS, unless a ZMQ broker is configured or NATS is disabled. Without
// a registry the result is true.
func (f *Fleet) UsesNATS() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	impliedNATS := len(f.channels.byKey) == 0 && !f.Stats.ZMQ.Used() && !f.Stats.NATS.Disabled()
	return !f.registry || f.channels.onNATS > 0 || f.registeredOnNATS > 0 || impliedNATS && f.registeredCount > 0
}
