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
	// settle is how long changes of the channels are gathered before they are followed.
	gatherTime = 20 * time.Millisecond

	// warnAfter is how long an announced publisher may be out of reach before the log
	// says so: the channel of one that was killed stands for as long as its lease.
	warnUnreachableAfter = 45 * time.Second

	// inVain is for how long a publisher may be out of reach until another that waits for a
	// place gets its.
	yieldSlotAfter = 10 * time.Second

	// maxEvent bounds an event in bytes; those that are read have some hundreds.
	maxEvent = 64 << 10

	// A publisher may send burst events in each period; one that sends more waits in
	// its own connection, and what overflows there shows as a gap. A hundred engines
	// do not make so many passes.
	burstSize   = 2000
	burstPeriod = 200 * time.Millisecond
)

// ZMQ keeps a subscription at every ZMQ publisher that the Fleet's channels announce,
// and at every broker, theirs or one of these addresses, until ctx ends: at so many of them
// at once. The others wait.
func (e *Events) ZMQ(ctx context.Context, brokers []string, places int) error {
	z := newSubscribers(e, places)
	defer z.stopAll()
	for _, address := range brokers {
		if w := z.sourceFor(sourceKey{address: address, broker: true}); w != nil {
			w.configured = true
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
				channels = e.fleet.WatchChannels() // from the beginning
			}
		case <-ctx.Done():
		}
	}
	return nil
}

// subscribers are the subscriptions that run, and those that wait. But for what is under
// the lock all belongs to one goroutine.
type subscribers struct {
	events      *Events
	sources     map[sourceKey]*zmqSource
	changed     map[*zmqSource]struct{} // since places were last handed out
	limiter     *slotLimiter
	gates       map[string]*dialGate // of the addresses where a subscription runs
	maxSources  int                  // wants
	overflowed  bool                 // there were more
	brokerCount int
	deduper     deduper   // of what comes by brokers
	logFull     sync.Once // says that some wait

	mu        sync.Mutex
	connected int // subscriptions that are set
}

func newSubscribers(e *Events, most int) *subscribers {
	return &subscribers{
		events: e, sources: make(map[sourceKey]*zmqSource), changed: make(map[*zmqSource]struct{}),
		limiter: newSlotLimiter(most), gates: make(map[string]*dialGate), maxSources: max(minSources, sourcesPerSlot*most),
	}
}

// The publishers and brokers that are remembered, whether they have a place or not, are
// wantsPerPlace for each place at most, and leastWants however few places there are.
const (
	sourcesPerSlot = 4
	minSources     = 4096
)

// wantsMore reports, once, whether there is room for some that were not remembered.
func (z *subscribers) hasRoomAgain() bool {
	if !z.overflowed || len(z.sources) > z.maxSources*7/8 {
		return false
	}
	z.overflowed = false
	return true
}

// follow takes over changes of the channels, or all of them anew, and starts and stops
// subscriptions until those that run are those wanted.
func (z *subscribers) applyChanges(ctx context.Context, changes []fleet.ChannelChange, all bool) {
	if all {
		for _, w := range z.sources {
			w.registryKeys, w.endpoint, w.endpoints = 0, fleet.Endpoint{}, nil
			z.changed[w] = struct{}{}
		}
	}
	for _, c := range changes {
		z.applyChange(c.Old, -1)
		z.applyChange(c.New, 1)
	}
	var gone []*subscriber
	for w := range z.changed {
		w.chooseEndpoint()
		switch {
		case w.registryKeys == 0 && !w.configured:
			gone = append(gone, z.remove(w)...)
		case w.subscriber != nil:
			w.subscriber.setChannel(w.channel(w.topic()))
		}
	}
	z.awaitStopped(gone)
	z.startWaiting(ctx)
	clear(z.changed)
}

// note takes over that a channel was announced once more, or once less.
func (z *subscribers) applyChange(c fleet.Opt[fleet.Channel], delta int) {
	if !c.OK {
		return
	}
	for _, s := range z.keysOf(c.V) {
		if delta < 0 && z.sources[s] == nil {
			continue
		}
		if w := z.sourceFor(s); w != nil {
			w.addKey(c.V.Endpoint, delta)
		}
	}
}

// of is the want of a source, which is new if there was none; nil if there is no room.
func (z *subscribers) sourceFor(s sourceKey) *zmqSource {
	w := z.sources[s]
	if w == nil && len(z.sources) >= z.maxSources {
		z.overflowed = true
		z.events.fleet.Stats.CountRefused(stats.SubscriptionLimit)
		return nil
	}
	if w == nil {
		w = newZMQSource(s)
		z.sources[s] = w
		z.limiter.enqueue(w)
		if s.broker {
			z.changeBrokerCount(1)
		}
	}
	z.changed[w] = struct{}{}
	return w
}

// sources are where the events of a channel come out, if it is read.
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

// drop wants a source no more. It has a subscription that is stopped, but may not have ended.
func (z *subscribers) remove(w *zmqSource) (stopped []*subscriber) {
	delete(z.sources, w.sourceKey)
	if w.broker {
		z.changeBrokerCount(-1)
	}
	if w.subscriber == nil {
		z.limiter.cancel(w)
		return nil
	}
	w.subscriber.stop()
	return []*subscriber{w.subscriber}
}

// brokersChange notes that there is one more broker, or one less. Where a publisher stands is
// known by what came by one alone: what came by others, or could not come, is not missing.
func (z *subscribers) changeBrokerCount(delta int) {
	z.brokerCount += delta
	z.deduper.mu.Lock()
	defer z.deduper.mu.Unlock()
	z.deduper.multipleBrokers = z.brokerCount > 1
	z.deduper.gaps.reset()
	z.events.openGaps.discard(&z.deduper.gaps)
}

// end waits for subscriptions that were stopped, and takes back their places.
func (z *subscribers) awaitStopped(stopped []*subscriber) {
	for _, s := range stopped {
		s.running.Wait()
		s.subscriber = nil
		if !s.broker {
			z.resetSequence(s.zmqSource)
		}
		z.limiter.release(s.zmqSource)
		if g := z.gates[s.address]; g.release() {
			delete(z.gates, s.address)
		}
	}
}

// handOut starts subscriptions as long as there are places, and says how many there are.
func (z *subscribers) startWaiting(ctx context.Context) {
	for w := z.limiter.next(); w != nil; w = z.limiter.next() {
		z.start(ctx, w)
	}
	t := &z.events.fleet.Stats
	for w := range z.changed {
		if w.queued != nil && !w.waitCounted {
			w.waitCounted = true
			t.CountRefused(stats.SubscriptionLimit)
			z.logFull.Do(func() {
				z.events.log.Warn("There is no room for more ZMQ publishers, and the events of the others are lost: raise the limit on open files (ulimit -n), or --max-workers",
					"subscriptions", z.limiter.max, "of_one_host", z.limiter.perHost, "announced", len(z.sources))
			})
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	t.Publishers.Store(int64(len(z.sources)))
	t.PublishersWaiting.Store(int64(z.limiter.waiting))
	if len(z.sources) > 0 {
		t.ZMQ.MarkUsed()
	}
	z.updateStats()
}

// takeTurns lets those that wait have the places of those that are out of reach.
func (z *subscribers) rotate() {
	var stopped []*subscriber
	for _, w := range z.sources {
		if len(stopped) == z.limiter.waiting {
			break
		}
		if s := w.subscriber; s != nil && !w.configured && s.downtime() >= yieldSlotAfter {
			s.stop()
			stopped = append(stopped, s)
		}
	}
	z.awaitStopped(stopped)
	for _, s := range stopped {
		z.limiter.enqueue(s.zmqSource)
	}
}

// letGo forgets where a publisher stands whose subscription we have ended: what it sends
// until there is another one is not missing.
func (z *subscribers) resetSequence(w *zmqSource) {
	w.sequence = sequence{}
	z.events.openGaps.discard(&w.sequence)
}

func (z *subscribers) stopAll() {
	var all []*subscriber
	for _, w := range z.sources {
		if w.subscriber != nil {
			w.subscriber.stop()
			all = append(all, w.subscriber)
		}
	}
	z.awaitStopped(all)
}

// set notes that a subscription is set, or is no more.
func (z *subscribers) changeConnected(delta int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.connected += delta
	z.updateStats()
}

// say says whether ZMQ is connected: to one publisher at least, if there are any. Single
// ones that are away are on their own gauge.
func (z *subscribers) updateStats() {
	t := &z.events.fleet.Stats
	t.PublishersUp.Store(int64(z.connected))
	if t.Publishers.Load() == 0 {
		t.ZMQ.SetIdle()
		return
	}
	t.ZMQ.SetConnected(z.connected > 0)
}

// direct books what a publisher of its own sent. A subscription is by prefix, so that
// other topics may come with it.
func (e *Events) handleDirect(c *fleet.Channel, numbers sequenceTracker, frames [][]byte) {
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
		// Its address is another's now: what that one says is heard under its own key.
		e.reject(kind, stats.BadID, errOtherPublisher)
		return
	}
	e.handleEnvelope(c.Endpoint, c.Topic, envelope, numbers, nil)
}

// brokered books what came by a broker, whose first frame is the whole subject.
func (e *Events) handleBrokered(by *deduper, frames [][]byte) {
	if len(frames) == 0 || !isReadTopic(frames[0]) {
		return
	}
	subject := string(frames[0])
	if !slices.ContainsFunc(e.topicPrefixes, func(prefix string) bool { return strings.HasPrefix(subject, prefix) }) {
		return // some brokers send what nobody asked for
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
	by.mu.Lock()
	defer by.mu.Unlock()
	var numbers sequenceTracker
	if !by.multipleBrokers { // what one broker lost another may bring
		numbers = &by.gaps
	}
	e.handleEnvelope(at, topic, envelope, numbers, by)
}

// ofReadTopic reports, at the least expense, whether a subject may be of a topic that is read.
func isReadTopic(subject []byte) bool {
	_, read := kindOfTopic[string(subject[bytes.LastIndexByte(subject, '.')+1:])]
	return read
}
