package collect

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

const (
	// gatherTime is how long changes of the channels are gathered before they are applied.
	gatherTime = 20 * time.Millisecond

	// warnUnreachableAfter is how long a registered publisher may be unreachable before a
	// warning is logged. The key of a publisher that was killed stays until its lease expires.
	warnUnreachableAfter = 45 * time.Second

	// yieldSlotAfter is how long a publisher may be unreachable before it loses its slot to a
	// publisher that waits.
	yieldSlotAfter = 10 * time.Second

	// maxEvent bounds an event in bytes. The events that the program reads have a few hundred.
	maxEvent = 64 << 10

	// A publisher may send burstSize events in each burstPeriod. Further events wait in its
	// connection, and if that overflows, they show as a gap. A hundred engines make fewer
	// forward passes than that.
	burstSize   = 2000
	burstPeriod = 200 * time.Millisecond
)

// ZMQ subscribes, until ctx ends, to every ZeroMQ publisher that a channel in the Fleet
// announces, and to every broker, both those of the channels and those in brokers. At most slots
// of them have a subscription at the same time; the others wait.
func (e *Events) ZMQ(ctx context.Context, brokers []string, slots int) error {
	z := newSubscribers(e, slots)
	defer z.stopAll()
	for _, address := range brokers {
		if src := z.sourceFor(sourceKey{address: address, broker: true}); src != nil {
			src.configured = true
		}
	}
	channels := e.fleet.WatchChannels()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		changes, all, more := channels.Changes()
		z.applyChanges(ctx, changes, all)
		select {
		case <-more:
			backoff.Wait(ctx, gatherTime)
		case <-tick.C:
			e.openGaps.expire(time.Now())
			z.rotate()
			if z.hasRoomAgain() {
				channels = e.fleet.WatchChannels() // all of them again
			}
		case <-ctx.Done():
		}
	}
	return nil
}

// subscribers holds the sources, both those with a subscription and those that wait. One
// goroutine uses it, apart from what mu guards.
type subscribers struct {
	events      *Events
	sources     map[sourceKey]*zmqSource
	changed     map[*zmqSource]struct{} // since waiting sources were last started
	limiter     *slotLimiter
	gates       map[string]*dialGate // of addresses with a subscription
	maxSources  int
	overflowed  bool // a source was not added because there were too many
	brokerCount int
	deduper     deduper // of the brokers' events
	logFull     sync.Once

	mu        sync.Mutex
	connected int // subscriptions that are up
}

func newSubscribers(e *Events, slots int) *subscribers {
	return &subscribers{
		events: e, sources: make(map[sourceKey]*zmqSource), changed: make(map[*zmqSource]struct{}),
		limiter: newSlotLimiter(slots), gates: make(map[string]*dialGate), maxSources: max(minSources, sourcesPerSlot*slots),
	}
}

// The number of sources is bounded to sourcesPerSlot for each slot, or to minSources where there
// are few slots.
const (
	sourcesPerSlot = 4
	minSources     = 4096
)

// hasRoomAgain reports, once, whether there is room now for sources that were not added before.
func (z *subscribers) hasRoomAgain() bool {
	if !z.overflowed || len(z.sources) > z.maxSources*7/8 {
		return false
	}
	z.overflowed = false
	return true
}

// applyChanges applies changes of the channels, or replaces all of them, and starts and stops
// subscriptions accordingly.
func (z *subscribers) applyChanges(ctx context.Context, changes []fleet.ChannelChange, all bool) {
	if all {
		for _, src := range z.sources {
			src.registryKeys, src.endpoint, src.endpoints = 0, fleet.Endpoint{}, nil
			z.changed[src] = struct{}{}
		}
	}
	for _, c := range changes {
		z.applyChange(c.Old, -1)
		z.applyChange(c.New, 1)
	}
	var gone []*subscriber
	for src := range z.changed {
		src.chooseEndpoint()
		switch {
		case src.registryKeys == 0 && !src.configured:
			gone = append(gone, z.remove(src)...)
		case src.subscriber != nil:
			src.subscriber.setChannel(src.channel(src.topic()))
		}
	}
	z.awaitStopped(gone)
	z.startWaiting(ctx)
	clear(z.changed)
}

// applyChange adds a channel to its sources (delta 1), or removes it from them (delta -1).
func (z *subscribers) applyChange(c fleet.Opt[fleet.Channel], delta int) {
	if !c.OK {
		return
	}
	for _, key := range z.keysOf(c.V) {
		if delta < 0 && z.sources[key] == nil {
			continue
		}
		if src := z.sourceFor(key); src != nil {
			src.addKey(c.V.Endpoint, delta)
		}
	}
}

// sourceFor returns the source with a key, which it adds if there is none. It returns nil if
// there are too many.
func (z *subscribers) sourceFor(key sourceKey) *zmqSource {
	src := z.sources[key]
	if src == nil && len(z.sources) >= z.maxSources {
		z.overflowed = true
		z.events.fleet.Stats.CountRefused(stats.SubscriptionLimit)
		return nil
	}
	if src == nil {
		src = newZMQSource(key)
		z.sources[key] = src
		z.limiter.enqueue(src)
		if key.broker {
			z.changeBrokerCount(1)
		}
	}
	z.changed[src] = struct{}{}
	return src
}

// keysOf returns the keys of the sources that deliver the events of a channel, if the program
// reads them.
func (z *subscribers) keysOf(c fleet.Channel) (all []sourceKey) {
	kind, read := kindOfTopic[c.Topic]
	if !read {
		return nil
	}
	switch c.Plane {
	case fleet.ZMQPlane:
		if t := z.events.fleet.Target(); t.CoversComponent(c.Endpoint.Component) || c.Endpoint.Component == "" {
			all = append(all, sourceKey{address: c.Address, publisher: c.Publisher, kind: kind})
		}
	case fleet.BrokerPlane:
		for address := range strings.SplitSeq(c.Address, ";") {
			all = append(all, sourceKey{address: address, broker: true})
		}
	}
	return all
}

// remove removes a source. It stops the source's subscription, if there is one, and returns it.
func (z *subscribers) remove(src *zmqSource) (stopped []*subscriber) {
	delete(z.sources, src.sourceKey)
	if src.broker {
		z.changeBrokerCount(-1)
	}
	if src.subscriber == nil {
		z.limiter.cancel(src)
		return nil
	}
	src.subscriber.stop()
	return []*subscriber{src.subscriber}
}

// changeBrokerCount adds delta to the number of brokers. Gaps are counted only while there is
// one broker, so it resets them: events over other brokers are not missing.
func (z *subscribers) changeBrokerCount(delta int) {
	z.brokerCount += delta
	z.deduper.mu.Lock()
	defer z.deduper.mu.Unlock()
	z.deduper.multipleBrokers = z.brokerCount > 1
	z.deduper.gaps.reset()
	z.events.openGaps.discard(&z.deduper.gaps)
}

// awaitStopped waits until stopped subscriptions have ended, and frees their slots.
func (z *subscribers) awaitStopped(stopped []*subscriber) {
	for _, s := range stopped {
		s.running.Wait()
		s.subscriber = nil
		if !s.broker {
			z.resetSequence(s.zmqSource)
		}
		z.limiter.release(s.zmqSource)
		if g := z.gates[s.address]; g.removeUser() {
			delete(z.gates, s.address)
		}
	}
}

// startWaiting starts subscriptions while there are slots, and updates the stats.
func (z *subscribers) startWaiting(ctx context.Context) {
	for src := z.limiter.next(); src != nil; src = z.limiter.next() {
		z.start(ctx, src)
	}
	counts := &z.events.fleet.Stats
	for src := range z.changed {
		if src.queued != nil && !src.waitCounted {
			src.waitCounted = true
			counts.CountRefused(stats.SubscriptionLimit)
			z.logFull.Do(func() {
				z.events.log.Warn("There is no room for more ZMQ publishers, and the events of the others are lost: raise the limit on open files (ulimit -n), or --max-workers",
					"subscriptions", z.limiter.max, "of_one_host", z.limiter.perHost, "announced", len(z.sources))
			})
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	counts.Publishers.Store(int64(len(z.sources)))
	counts.PublishersWaiting.Store(int64(z.limiter.waiting))
	if len(z.sources) > 0 {
		counts.ZMQ.MarkUsed()
	}
	z.updateStats()
}

// rotate gives the slots of unreachable sources to waiting ones.
func (z *subscribers) rotate() {
	var stopped []*subscriber
	for _, src := range z.sources {
		if len(stopped) == z.limiter.waiting {
			break
		}
		if s := src.subscriber; s != nil && !src.configured && s.downtime() >= yieldSlotAfter {
			s.stop()
			stopped = append(stopped, s)
		}
	}
	z.awaitStopped(stopped)
	for _, s := range stopped {
		z.limiter.enqueue(s.zmqSource)
	}
}

// resetSequence forgets the sequence number of a publisher whose subscription has ended. Its
// events until the next subscription are not missing.
func (z *subscribers) resetSequence(src *zmqSource) {
	src.sequence = sequence{}
	z.events.openGaps.discard(&src.sequence)
}

func (z *subscribers) stopAll() {
	var all []*subscriber
	for _, src := range z.sources {
		if src.subscriber != nil {
			src.subscriber.stop()
			all = append(all, src.subscriber)
		}
	}
	z.awaitStopped(all)
}

// changeConnected adds delta to the number of subscriptions that are up.
func (z *subscribers) changeConnected(delta int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.connected += delta
	z.updateStats()
}

// updateStats updates whether ZeroMQ counts as connected: at least one source is, if there are
// any. Another gauge counts the unreachable ones.
func (z *subscribers) updateStats() {
	counts := &z.events.fleet.Stats
	counts.PublishersUp.Store(int64(z.connected))
	if counts.Publishers.Load() == 0 {
		counts.ZMQ.SetIdle()
		return
	}
	counts.ZMQ.SetConnected(z.connected > 0)
}

// handleDirect handles a message of a publisher. ZeroMQ subscribes by prefix, so messages of
// other topics may arrive, too.
func (e *Events) handleDirect(c *fleet.Channel, tracker sequenceTracker, frames [][]byte) {
	if len(frames) > 0 && string(frames[0]) != c.Topic {
		return
	}
	kind := kindOfTopic[c.Topic]
	e.fleet.Stats.CountMessage(kind)
	_, envelope, err := wire.ParseFrames(frames)
	if err != nil {
		e.reject(kind, stats.BadFrames, err)
		return
	}
	if envelope.Publisher != c.Publisher {
		// Another publisher has the address now. It has a registry key and a source of its own.
		e.reject(kind, stats.BadID, errOtherPublisher)
		return
	}
	e.handleEnvelope(c.Endpoint, c.Topic, envelope, tracker, nil)
}

// handleBrokered handles a message of a broker, whose first frame is the whole subject.
func (e *Events) handleBrokered(dedup *deduper, frames [][]byte) {
	if len(frames) == 0 || !isReadTopic(frames[0]) {
		return
	}
	subject := string(frames[0])
	if !slices.ContainsFunc(e.topicPrefixes, func(prefix string) bool { return strings.HasPrefix(subject, prefix) }) {
		return // some brokers ignore the subscription
	}
	at, topic, ok := e.parseSubject(subject)
	if !ok {
		return
	}
	kind := kindOfTopic[topic]
	e.fleet.Stats.CountMessage(kind)
	_, envelope, err := wire.ParseFrames(frames)
	if err != nil {
		e.reject(kind, stats.BadFrames, err)
		return
	}
	dedup.mu.Lock()
	defer dedup.mu.Unlock()
	var tracker sequenceTracker
	if !dedup.multipleBrokers { // an event that one broker lost may arrive from another
		tracker = &dedup.gaps
	}
	e.handleEnvelope(at, topic, envelope, tracker, dedup)
}

// isReadTopic reports, at the least cost, whether a subject may have a topic that the program
// reads.
func isReadTopic(subject []byte) bool {
	_, read := kindOfTopic[string(subject[bytes.LastIndexByte(subject, '.')+1:])]
	return read
}
