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

// subscriber is a subscription that runs.
type subscriber struct {
	*want
	of      *subscribers
	channel atomic.Pointer[fleet.Channel] // its Topic is empty at a broker
	stop    context.CancelFunc
	ended   sync.WaitGroup

	mu    sync.Mutex
	up    bool
	since time.Time // when it was last up, or began
}

// topic is the one that is subscribed to; empty at a broker.
func (w *want) topic() string {
	if w.broker {
		return ""
	}
	return topics[w.kind]
}

// topics are those that are read, by the kind of their events.
var topics = func() map[stats.Kind]string {
	all := make(map[stats.Kind]string)
	for topic, kind := range kinds {
		all[kind] = topic
	}
	return all
}()

// start subscribes at one publisher or broker.
func (z *subscribers) start(ctx context.Context, w *want) {
	ctx, cancel := context.WithCancel(ctx)
	s := &subscriber{want: w, of: z, stop: cancel, since: time.Now()}
	c := w.channel(w.topic())
	s.channel.Store(&c)
	w.running = s
	e := z.events
	gate := z.gate(w.address)
	sub := zmtp.Sub{
		Address: w.address, Topics: []string{c.Topic}, MaxMessage: maxEvent, Dial: e.dial,
		BeforeDial: gate.pass, OnFailure: func(error) { e.fleet.Stats.CountFailure(stats.PeerZMQ) },
	}
	deliver := throttled(ctx, func(frames [][]byte) { e.direct(s.channel.Load(), &w.sequence, frames) })
	if w.broker {
		sub.Topics, sub.MaxMessage = e.ours, 0 // what workers tell routers, which comes too, is larger
		deliver = func(frames [][]byte) { e.brokered(&z.copies, frames) }
	}
	e.fleet.Diagnostics.SetUnreachable(c, s.since)
	s.ended.Go(func() {
		away := time.AfterFunc(warnAfter, s.warnAway)
		defer away.Stop()
		if err := sub.RunReconnecting(ctx, deliver, func(err error) { s.status(away, err) }); err != nil {
			e.log.Warn("A ZMQ publisher cannot be subscribed to", "error", err)
		}
		s.status(away, context.Canceled)
		away.Stop()
		e.fleet.Diagnostics.ClearUnreachable(*s.channel.Load())
	})
}

// status hears whether a subscription is set, from its own goroutine alone.
func (s *subscriber) status(away *time.Timer, err error) {
	e := s.of.events
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channel.Load()
	if up := err == nil; up != s.up {
		s.up, s.since = up, time.Now()
		if up {
			s.of.set(1)
			e.fleet.Diagnostics.ClearUnreachable(*c)
			away.Stop()
			e.heard.Do(func() {
				e.log.Info("Subscribing to events over ZMQ, at the first of its publishers", "address", c.Address)
			})
		} else {
			s.of.set(-1)
			e.fleet.Diagnostics.SetUnreachable(*c, s.since)
			away.Reset(warnAfter)
		}
	}
	e.log.Debug("ZMQ publisher", "address", c.Address, "endpoint", c.Endpoint, "topic", c.Topic, "connected", s.up, "error", err)
}

// move has what comes booked at the channel's endpoint.
func (s *subscriber) move(c fleet.Channel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.channel.Load()
	if *before == c {
		return
	}
	s.channel.Store(&c)
	if !s.up {
		s.of.events.fleet.Diagnostics.ClearUnreachable(*before)
		s.of.events.fleet.Diagnostics.SetUnreachable(c, s.since)
	}
}

// awayFor is how long the publisher has been out of reach.
func (s *subscriber) awayFor() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		return 0
	}
	return time.Since(s.since)
}

func (s *subscriber) warnAway() {
	c, log := s.channel.Load(), s.of.events.log
	if s.broker {
		log.Warn("A ZMQ broker cannot be reached: the events that go through it are lost; connecting goes on", "address", c.Address)
		return
	}
	log.Warn("A ZMQ publisher is announced and cannot be reached: its events are lost; connecting goes on",
		"address", c.Address, "endpoint", c.Endpoint, "topic", c.Topic)
}

// atOnce is how many may connect to one address at the same time.
const atOnce = 16

// gate lets no more than that pass at once.
type gate struct {
	open  chan struct{}
	users int // subscriptions at the address
}

// gate is that of an address, for one more subscription.
func (z *subscribers) gate(address string) *gate {
	g := z.gates[address]
	if g == nil {
		g = &gate{open: make(chan struct{}, atOnce)}
		z.gates[address] = g
	}
	g.users++
	return g
}

// leave reports whether the last subscription has left.
func (g *gate) leave() bool {
	g.users--
	return g.users == 0
}

func (g *gate) pass(ctx context.Context) (over func()) {
	select {
	case g.open <- struct{}{}:
		return func() { <-g.open }
	case <-ctx.Done():
		return func() {}
	}
}
