package fleet

import (
	"strings"

	"dynamo-metrics/internal/stats"
)

// Channel is where one publisher's events of one topic come out (0.9 to 1.6).
type Channel struct {
	// Endpoint is the publisher's. It has no name where the channel is of a component
	// (forward passes, 1.1 to 1.3), and is empty where it is of the whole namespace
	// (load to 1.3, hit rate to 0.9).
	Endpoint  Endpoint
	Topic     string
	Publisher uint64 // as in its envelopes

	Plane         EventPlane
	Address       string // of ZMQ: tcp://host:port; of a broker: those of its readers' side, with ";" between
	SubjectPrefix string // of NATS: the start of its subject, without the topic
}

// Plane is by what a channel's events travel.
type EventPlane int

// The planes.
const (
	OtherPlane EventPlane = iota // one we do not know
	NATSPlane
	ZMQPlane    // the publisher's own socket
	BrokerPlane // a ZMQ broker that publishers were told to find by itself

	PlaneCount int = iota // how many there are
)

// String is the name that operators know.
func (p EventPlane) String() string {
	return [...]string{"another plane", "NATS", "ZMQ", "a ZMQ broker"}[p]
}

// What is kept of channels takes so many bytes for each worker that may be tracked, and at
// least so many in all: ten thousand workers of eight ranks that publish three topics each
// find room where 65,536 may be tracked.
const (
	channelBytesPerWorker = 1 << 10
	minChannelBytes       = 1 << 20

	channelBytes = 112 // what one takes beside its key and its address
	scopeBytes   = 192 // what the endpoint and topic of one or several take beside their names
)

// channels are the event channels by their keys.
type channels struct {
	byKey       map[string]*channel
	byPublisher map[uint64]*channel // the one that was announced last
	scopes      map[scope]*scope
	bytes       int
	onNATS      int // of them

	smallestRefused int // bytes of the smallest that was turned away since the registry was last listed; 0: none was

	log     []ChannelChange // the last ones, in a ring
	logged  uint64          // changes so far
	changed chan struct{}   // closed with the next change; nil: no reader waits for it
}

// channel is one as it is kept.
type channel struct {
	*scope
	publisher    uint64
	address      string // its address; of one on NATS the prefix of its subject
	plane        EventPlane
	older, newer *channel // of the same publisher
}

// scope is what many channels have in common.
type scope struct {
	Endpoint
	topic string
	refs  int // 0 in a map's key
}

func (s scope) bytes() int {
	return scopeBytes + len(s.Namespace) + len(s.Component) + len(s.Name) + len(s.topic)
}

// clone is a copy whose names are parts of nothing larger.
func (s scope) clone() *scope {
	return &scope{Endpoint{Namespace: strings.Clone(s.Namespace), Component: strings.Clone(s.Component), Name: strings.Clone(s.Name)}, strings.Clone(s.topic), 0}
}

func newChannels() channels {
	return channels{byKey: make(map[string]*channel), byPublisher: make(map[uint64]*channel), scopes: make(map[scope]*scope)}
}

func (c *channel) export() Channel {
	all := Channel{Endpoint: c.Endpoint, Topic: c.topic, Publisher: c.publisher, Plane: c.plane, Address: c.address}
	if c.plane == NATSPlane {
		all.Address, all.SubjectPrefix = "", c.address
	}
	return all
}

// Announce notes a channel by its key.
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

// Withdraw notes that a channel's key is gone.
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

// add keeps a channel whose key is not known. It reports false if there is no room.
func (cs *channels) add(key string, c Channel, most int) bool {
	at := c.Address
	if c.Plane == NATSPlane {
		at = c.SubjectPrefix
	}
	of := scope{Endpoint: c.Endpoint, topic: c.Topic}
	shared := cs.scopes[of]
	bytes := channelBytes + len(key) + len(at)
	if shared == nil {
		bytes += of.bytes()
	}
	if cs.bytes+bytes > most {
		if cs.smallestRefused == 0 || bytes < cs.smallestRefused {
			cs.smallestRefused = bytes
		}
		return false
	}
	cs.bytes += bytes
	if shared == nil {
		shared = of.clone()
		cs.scopes[*shared] = shared
	}
	shared.refs++
	kept := &channel{scope: shared, publisher: c.Publisher, address: at, plane: c.Plane, older: cs.byPublisher[c.Publisher]}
	if kept.older != nil {
		kept.older.newer = kept
	}
	cs.byPublisher[c.Publisher], cs.byKey[key] = kept, kept
	if c.Plane == NATSPlane {
		cs.onNATS++
	}
	return true
}

func (cs *channels) remove(key string, c *channel) {
	cs.bytes -= channelBytes + len(key) + len(c.address)
	c.refs--
	if of := *c.scope; of.refs == 0 {
		cs.bytes -= of.bytes()
		delete(cs.scopes, of)
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

// Channels is a copy of all channels by their keys, and a Go channel that is closed
// when it is no longer true. Who follows them reads their changes alone: see ChannelReader.
func (f *Fleet) Channels() (all map[string]Channel, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all = make(map[string]Channel, len(f.channels.byKey))
	for key, c := range f.channels.byKey {
		all[key] = c.export()
	}
	return all, f.channels.nextChange()
}

// ChannelOf is a channel of this publisher.
func (f *Fleet) ChannelOf(publisher uint64) (Channel, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.channels.byPublisher[publisher]
	if c == nil {
		return Channel{}, false
	}
	return c.export(), true
}

// syncChannels takes all channels at one moment.
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

// wantsChannels reports whether there is room for a channel that was turned away.
func (f *Fleet) hasRoomForRefusedChannel() bool {
	cs := &f.channels
	return cs.smallestRefused > 0 && cs.bytes+cs.smallestRefused <= max(minChannelBytes, f.workerLimit*channelBytesPerWorker)
}

// UsesNATS reports whether what is known of the namespace comes over NATS: workers
// that are polled or take requests there, channels there, or workers that publish
// without saying where, which is on NATS (0.6 to 0.8) unless there is a ZMQ broker or NATS
// is turned off. Where nobody registers it is true.
func (f *Fleet) UsesNATS() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	unsaid := len(f.channels.byKey) == 0 && !f.Stats.ZMQ.Used() && !f.Stats.NATS.Disabled()
	return !f.registry || f.channels.onNATS > 0 || f.registeredOnNATS > 0 || unsaid && f.registeredCount > 0
}
