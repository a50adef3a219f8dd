package collect

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/zmtp"
)

// subscriber is a running subscription.
type subscriber struct {
	*zmqSource
	set     *subscribers
	channel atomic.Pointer[fleet.Channel] // its Topic is empty for a broker
	stop    context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	up    bool
	since time.Time // when up last changed, or when it started
}

// topic returns the topic that is subscribed to; empty for a broker.
func (src *zmqSource) topic() string {
	if src.broker {
		return ""
	}
	return topicOfKind[src.kind]
}

// topicOfKind is the inverse of kindOfTopic.
var topicOfKind = func() map[stats.Kind]string {
	all := make(map[stats.Kind]string)
	for topic, kind := range kindOfTopic {
		all[kind] = topic
	}
	return all
}()

// start subscribes to a source.
func (z *subscribers) start(ctx context.Context, src *zmqSource) {
	ctx, cancel := context.WithCancel(ctx)
	s := &subscriber{zmqSource: src, set: z, stop: cancel, since: time.Now()}
	c := src.channel(src.topic())
	s.channel.Store(&c)
	src.subscriber = s
	e := z.events
	gate := z.gateFor(src.address)
	sub := zmtp.Sub{
		Address: src.address, Topics: []string{c.Topic}, MaxMessage: maxEvent, Dial: e.dial,
		BeforeDial: gate.acquire, OnFailure: func(error) { e.fleet.Stats.CountFailure(stats.PeerZMQ) },
	}
	deliver := throttle(ctx, func(frames [][]byte) { e.handleDirect(s.channel.Load(), &src.sequence, frames) })
	if src.broker {
		sub.Topics, sub.MaxMessage = e.topicPrefixes, 0 // brokers also deliver the workers' events for routers, which are larger
		deliver = func(frames [][]byte) { e.handleBrokered(&z.deduper, frames) }
	}
	e.fleet.Diagnostics.SetUnreachable(c, s.since)
	s.running.Go(func() {
		warning := time.AfterFunc(warnUnreachableAfter, s.warnUnreachable)
		defer warning.Stop()
		if err := sub.RunReconnecting(ctx, deliver, func(err error) { s.setStatus(warning, err) }); err != nil {
			e.log.Warn("A ZMQ publisher cannot be subscribed to", "error", err)
		}
		s.setStatus(warning, context.Canceled)
		warning.Stop()
		e.fleet.Diagnostics.ClearUnreachable(*s.channel.Load())
	})
}

// setStatus records whether the subscription is up. Only the subscriber's own goroutine calls
// it.
func (s *subscriber) setStatus(warning *time.Timer, err error) {
	e := s.set.events
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channel.Load()
	if up := err == nil; up != s.up {
		s.up, s.since = up, time.Now()
		if up {
			s.set.changeConnected(1)
			e.fleet.Diagnostics.ClearUnreachable(*c)
			warning.Stop()
			e.logFirstZMQ.Do(func() {
				e.log.Info("Subscribing to events over ZMQ, at the first publisher", "address", c.Address)
			})
		} else {
			s.set.changeConnected(-1)
			e.fleet.Diagnostics.SetUnreachable(*c, s.since)
			warning.Reset(warnUnreachableAfter)
		}
	}
	e.log.Debug("ZMQ publisher", "address", c.Address, "endpoint", c.Endpoint, "topic", c.Topic, "connected", s.up, "error", err)
}

// setChannel sets the channel, and with it the endpoint that events are recorded for.
func (s *subscriber) setChannel(c fleet.Channel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.channel.Load()
	if *before == c {
		return
	}
	s.channel.Store(&c)
	if !s.up {
		s.set.events.fleet.Diagnostics.ClearUnreachable(*before)
		s.set.events.fleet.Diagnostics.SetUnreachable(c, s.since)
	}
}

// downtime returns how long the source has been unreachable.
func (s *subscriber) downtime() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		return 0
	}
	return time.Since(s.since)
}

func (s *subscriber) warnUnreachable() {
	c, log := s.channel.Load(), s.set.events.log
	if s.broker {
		log.Warn("A ZMQ broker cannot be reached: its events are lost; retrying", "address", c.Address)
		return
	}
	log.Warn("A ZMQ publisher is registered but cannot be reached: its events are lost; retrying",
		"address", c.Address, "endpoint", c.Endpoint, "topic", c.Topic)
}

// maxDialsPerAddress is how many subscriptions may dial the same address at the same time.
const maxDialsPerAddress = 16

// dialGate bounds the concurrent dials of one address.
type dialGate struct {
	slots chan struct{}
	users int // subscriptions at the address
}

// gateFor returns the gate of an address, for one more subscription.
func (z *subscribers) gateFor(address string) *dialGate {
	g := z.gates[address]
	if g == nil {
		g = &dialGate{slots: make(chan struct{}, maxDialsPerAddress)}
		z.gates[address] = g
	}
	g.users++
	return g
}

// removeUser removes a subscription at the address, and reports whether it was the last.
func (g *dialGate) removeUser() (last bool) {
	g.users--
	return g.users == 0
}

// acquire waits until a subscription may dial. It returns the function to call after the dial.
func (g *dialGate) acquire(ctx context.Context) (release func()) {
	select {
	case g.slots <- struct{}{}:
		return func() { <-g.slots }
	case <-ctx.Done():
		return func() {}
	}
}
