package fleet

import "maps"

// Channel is where one publisher's events of one topic come out (0.9 to 1.6).
type Channel struct {
	// Endpoint is the publisher's. It has no name where the channel is of a component
	// (forward passes, 1.1 to 1.3), and is empty where it is of the whole namespace
	// (load to 1.3, hit rate to 0.9).
	Endpoint  Endpoint
	Topic     string
	Publisher uint64 // as in its envelopes

	Plane         Plane
	Address       string // of ZMQ: tcp://host:port; of a broker: those of its readers' side, with ";" between
	SubjectPrefix string // of NATS: the start of its subject, without the topic
}

// Plane is by what a channel's events travel.
type Plane int

// The planes.
const (
	OtherPlane Plane = iota // one we do not know
	NATSPlane
	ZMQPlane    // the publisher's own socket
	BrokerPlane // a ZMQ broker that publishers were told to find by itself
)

// String is the name that operators know.
func (p Plane) String() string { return [...]string{"another plane", "NATS", "ZMQ", "a ZMQ broker"}[p] }

// channelsPerWorker bounds the channels that are kept.
const channelsPerWorker = 16

// Announce notes a channel by its key.
func (f *Fleet) Announce(key string, c Channel) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.announce(key, c)
}

func (f *Fleet) announce(key string, c Channel) {
	old, known := f.channels[key]
	if known && old == c {
		return
	}
	if !known && len(f.channels)/channelsPerWorker >= f.limit {
		f.Tally.TurnAway(ChannelLimit)
		return
	}
	f.channels[key] = c
	f.channelsChanged()
}

// Withdraw notes that a channel's key is gone.
func (f *Fleet) Withdraw(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.channels[key]; known {
		delete(f.channels, key)
		f.channelsChanged()
	}
}

func (f *Fleet) channelsChanged() {
	close(f.rechannelled)
	f.rechannelled = make(chan struct{})
}

// Channels is a copy of all channels by their keys, and a Go channel that is closed
// when it is no longer true.
func (f *Fleet) Channels() (all map[string]Channel, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.channels), f.rechannelled
}

// ChannelOf is a channel of this publisher.
func (f *Fleet) ChannelOf(publisher uint64) (Channel, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.channels {
		if c.Publisher == publisher {
			return c, true
		}
	}
	return Channel{}, false
}

// syncChannels takes all channels at one moment.
func (f *Fleet) syncChannels(all map[string]Channel) {
	if maps.Equal(f.channels, all) {
		return
	}
	maps.DeleteFunc(f.channels, func(key string, _ Channel) bool { _, stays := all[key]; return !stays })
	for key, c := range all {
		f.announce(key, c)
	}
	f.channelsChanged()
}

// UsesNATS reports whether what is known of the namespace comes over NATS: workers
// that are polled or take requests there, channels there, or workers that publish
// without saying where, which is on NATS (0.6 to 0.8) unless there is a ZMQ broker or NATS
// is turned off. Where nobody registers it is true.
func (f *Fleet) UsesNATS() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.registry {
		return true
	}
	for _, c := range f.channels {
		if c.Plane == NATSPlane {
			return true
		}
	}
	unsaid := len(f.channels) == 0 && !f.Tally.ZMQ.Used() && !f.Tally.NATS.Off()
	for w := range f.workers.all() {
		for i := range w.seats {
			if s := &w.seats[i]; s.registered && (s.NATS || unsaid) {
				return true
			}
		}
	}
	return false
}
