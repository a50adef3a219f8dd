package collect

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
	"dynamo-metrics/internal/zmtp"
)

const (
	// settle is how long changes of the channels are gathered before they are followed.
	settle = 20 * time.Millisecond

	// warnAfter is how long an announced publisher may be out of reach before the log
	// says so: the channel of one that was killed stands for as long as its lease.
	warnAfter = 45 * time.Second

	// maxEvent bounds an event in bytes; those that are read have some hundreds.
	maxEvent = 64 << 10

	// A publisher may send burst events in each period; one that sends more waits in
	// its own connection, and what overflows there shows as a gap. A hundred engines
	// do not make so many passes.
	burst  = 2000
	period = 200 * time.Millisecond
)

// ZMQ keeps a subscription at every ZMQ publisher that the Fleet's channels announce,
// and at every broker, theirs or one of these addresses, until ctx ends.
func (e *Events) ZMQ(ctx context.Context, brokers []string) error {
	z := &subscribers{events: e, running: make(map[string]*subscriber)}
	defer z.stopAll()
	for ctx.Err() == nil {
		channels, changed := e.fleet.Channels()
		z.follow(ctx, z.wanted(channels, brokers))
		select {
		case <-changed:
			connect.Wait(ctx, settle)
		case <-ctx.Done():
		}
	}
	return nil
}

// subscribers are the subscriptions that run.
type subscribers struct {
	events  *Events
	running map[string]*subscriber // by the channel's key, or the broker's address
	copies  copies                 // of what comes by brokers
}

type subscriber struct {
	channel fleet.Channel // its Topic is empty at a broker
	stop    context.CancelFunc
	ended   sync.WaitGroup
	up      bool
}

// wanted are the subscriptions that there should be.
func (z *subscribers) wanted(channels map[string]fleet.Channel, brokers []string) map[string]fleet.Channel {
	all := make(map[string]fleet.Channel)
	at := func(addresses []string) {
		for _, address := range addresses {
			all[address] = fleet.Channel{Plane: fleet.BrokerPlane, Address: address}
		}
	}
	at(brokers)
	for key, c := range channels {
		if _, read := kinds[c.Topic]; !read {
			continue
		}
		switch c.Plane {
		case fleet.ZMQPlane:
			if t := z.events.fleet.Target(); t.CoversComponent(c.Endpoint.Component) || c.Endpoint.Component == "" {
				all[key] = c
			}
		case fleet.BrokerPlane:
			at(strings.Split(c.Address, ";"))
		}
	}
	return all
}

// follow starts and stops subscriptions until those that run are those wanted.
func (z *subscribers) follow(ctx context.Context, wanted map[string]fleet.Channel) {
	for key, s := range z.running {
		if wanted[key] != s.channel {
			s.stop()
		}
	}
	for key, s := range z.running {
		if wanted[key] != s.channel {
			s.ended.Wait()
			delete(z.running, key)
		}
	}
	z.count(wanted)
	for key, c := range wanted {
		if z.running[key] == nil {
			z.running[key] = z.start(ctx, c)
		}
	}
	z.events.zmqUp()
}

// count says how many publishers there are, and whether there are several brokers.
func (z *subscribers) count(wanted map[string]fleet.Channel) {
	brokers := 0
	for _, c := range wanted {
		if c.Plane == fleet.BrokerPlane {
			brokers++
		}
	}
	z.copies.mu.Lock()
	z.copies.several = brokers > 1
	z.copies.mu.Unlock()
	t := &z.events.fleet.Tally
	t.Publishers.Store(int64(len(wanted)))
	if len(wanted) > 0 {
		t.ZMQ.Use()
	}
}

func (z *subscribers) stopAll() {
	for _, s := range z.running {
		s.stop()
	}
	for _, s := range z.running {
		s.ended.Wait()
	}
}

// zmqUp says whether ZMQ is connected: to one publisher at least, if there are any.
// Single ones that are away are on their own gauge.
func (e *Events) zmqUp() {
	t := &e.fleet.Tally
	t.ZMQ.Set(t.PublishersUp.Load() > 0 || t.Publishers.Load() == 0)
}

// start subscribes at one publisher or broker.
func (z *subscribers) start(ctx context.Context, c fleet.Channel) *subscriber {
	ctx, cancel := context.WithCancel(ctx)
	s := &subscriber{channel: c, stop: cancel}
	e := z.events
	sub := zmtp.Sub{Address: c.Address, Topics: []string{c.Topic}, MaxMessage: maxEvent}
	deliver := throttled(ctx, func(frames [][]byte) { e.direct(c, frames) })
	if c.Plane == fleet.BrokerPlane {
		sub.Topics, sub.MaxMessage = e.ours, 0 // what workers tell routers, which comes too, is larger
		deliver = func(frames [][]byte) { e.brokered(&z.copies, frames) }
	}
	e.fleet.Notes.Away(c, time.Now())
	s.ended.Go(func() {
		defer e.fleet.Notes.Back(c)
		away := time.AfterFunc(warnAfter, func() { e.warnAway(c) })
		defer away.Stop()
		if err := sub.Keep(ctx, deliver, func(err error) { e.status(s, away, err) }); err != nil {
			e.log.Warn("A ZMQ publisher cannot be subscribed to", "error", err)
		}
		e.status(s, away, context.Canceled)
		away.Stop()
	})
	return s
}

// status hears whether a subscription is set, from its own goroutine alone.
func (e *Events) status(s *subscriber, away *time.Timer, err error) {
	if up := err == nil; up != s.up {
		s.up = up
		if up {
			e.fleet.Tally.PublishersUp.Add(1)
			e.fleet.Notes.Back(s.channel)
			away.Stop()
			e.heard.Do(func() {
				e.log.Info("Subscribing to events over ZMQ, at the first of its publishers", "address", s.channel.Address)
			})
		} else {
			e.fleet.Tally.PublishersUp.Add(-1)
			e.fleet.Notes.Away(s.channel, time.Now())
			away.Reset(warnAfter)
		}
		e.zmqUp()
	}
	e.log.Debug("ZMQ publisher", "address", s.channel.Address, "endpoint", s.channel.Endpoint, "topic", s.channel.Topic, "connected", s.up, "error", err)
}

func (e *Events) warnAway(c fleet.Channel) {
	if c.Plane == fleet.BrokerPlane {
		e.log.Warn("A ZMQ broker cannot be reached: the events that go through it are lost; connecting goes on", "address", c.Address)
		return
	}
	e.log.Warn("A ZMQ publisher is announced and cannot be reached: its events are lost; connecting goes on",
		"address", c.Address, "endpoint", c.Endpoint, "topic", c.Topic)
}

// direct books what a publisher of its own sent. A subscription is by prefix, so that
// other topics may come with it.
func (e *Events) direct(c fleet.Channel, frames [][]byte) {
	if len(frames) > 0 && string(frames[0]) != c.Topic {
		return
	}
	kind := kinds[c.Topic]
	e.fleet.Tally.Receive(kind)
	_, envelope, err := wire.ParseFrames(frames)
	if err != nil {
		e.reject(kind, fleet.BadFrames, err)
		return
	}
	if envelope.Publisher != c.Publisher {
		// Its address is another's now: what that one says is heard under its own key.
		e.reject(kind, fleet.BadID, errOtherPublisher)
		return
	}
	e.envelope(c.Endpoint, c.Topic, envelope, nil)
}

// brokered books what came by a broker, whose first frame is the whole subject.
func (e *Events) brokered(by *copies, frames [][]byte) {
	if len(frames) == 0 || !ofReadTopic(frames[0]) {
		return
	}
	subject := string(frames[0])
	if !slices.ContainsFunc(e.ours, func(prefix string) bool { return strings.HasPrefix(subject, prefix) }) {
		return // some brokers send what nobody asked for
	}
	at, topic, ok := e.subject(subject)
	if !ok {
		return
	}
	kind := kinds[topic]
	e.fleet.Tally.Receive(kind)
	_, envelope, err := wire.ParseFrames(frames)
	if err != nil {
		e.reject(kind, fleet.BadFrames, err)
		return
	}
	by.mu.Lock()
	defer by.mu.Unlock()
	e.envelope(at, topic, envelope, by)
}

// ofReadTopic reports, at the least expense, whether a subject may be of a topic that is read.
func ofReadTopic(subject []byte) bool {
	_, read := kinds[string(subject[bytes.LastIndexByte(subject, '.')+1:])]
	return read
}
