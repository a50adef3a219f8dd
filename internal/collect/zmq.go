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
	settle = 20 * time.Millisecond

	// warnAfter is how long an announced publisher may be out of reach before the log
	// says so: the channel of one that was killed stands for as long as its lease.
	warnAfter = 45 * time.Second

	// inVain is for how long a publisher may be out of reach until another that waits for a
	// place gets its.
	inVain = 10 * time.Second

	// maxEvent bounds an event in bytes; those that are read have some hundreds.
	maxEvent = 64 << 10

	// A publisher may send burst events in each period; one that sends more waits in
	// its own connection, and what overflows there shows as a gap. A hundred engines
	// do not make so many passes.
	burst  = 2000
	period = 200 * time.Millisecond
)

// ZMQ keeps a subscription at every ZMQ publisher that the Fleet's channels announce,
// and at every broker, theirs or one of these addresses, until ctx ends: at so many of them
// at once. The others wait.
func (e *Events) ZMQ(ctx context.Context, brokers []string, places int) error {
	z := newSubscribers(e, places)
	defer z.stopAll()
	for _, address := range brokers {
		if w := z.of(source{address: address, broker: true}); w != nil {
			w.flagged = true
		}
	}
	channels := e.fleet.WatchChannels()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		changes, all, more := channels.Changes()
		z.follow(ctx, changes, all)
		select {
		case <-more:
			backoff.Wait(ctx, settle)
		case <-tick.C:
			e.gaps.expire(time.Now())
			z.takeTurns()
			if z.wantsMore() {
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
	events  *Events
	wants   map[source]*want
	changed map[*want]struct{} // since places were last handed out
	places  *places
	gates   map[string]*gate // of the addresses where a subscription runs
	most    int              // wants
	over    bool             // there were more
	brokers int
	copies  copies    // of what comes by brokers
	full    sync.Once // says that some wait

	mu sync.Mutex
	up int // subscriptions that are set
}

func newSubscribers(e *Events, most int) *subscribers {
	return &subscribers{
		events: e, wants: make(map[source]*want), changed: make(map[*want]struct{}),
		places: newPlaces(most), gates: make(map[string]*gate), most: max(leastWants, wantsPerPlace*most),
	}
}

// The publishers and brokers that are remembered, whether they have a place or not, are
// wantsPerPlace for each place at most, and leastWants however few places there are.
const (
	wantsPerPlace = 4
	leastWants    = 4096
)

// wantsMore reports, once, whether there is room for some that were not remembered.
func (z *subscribers) wantsMore() bool {
	if !z.over || len(z.wants) > z.most*7/8 {
		return false
	}
	z.over = false
	return true
}

// follow takes over changes of the channels, or all of them anew, and starts and stops
// subscriptions until those that run are those wanted.
func (z *subscribers) follow(ctx context.Context, changes []fleet.ChannelChange, all bool) {
	if all {
		for _, w := range z.wants {
			w.keys, w.endpoint, w.endpoints = 0, fleet.Endpoint{}, nil
			z.changed[w] = struct{}{}
		}
	}
	for _, c := range changes {
		z.note(c.Old, -1)
		z.note(c.New, 1)
	}
	var gone []*subscriber
	for w := range z.changed {
		w.settle()
		switch {
		case w.keys == 0 && !w.flagged:
			gone = append(gone, z.drop(w)...)
		case w.running != nil:
			w.running.move(w.channel(w.topic()))
		}
	}
	z.end(gone)
	z.handOut(ctx)
	clear(z.changed)
}

// note takes over that a channel was announced once more, or once less.
func (z *subscribers) note(c fleet.Opt[fleet.Channel], once int) {
	if !c.OK {
		return
	}
	for _, s := range z.sources(c.V) {
		if once < 0 && z.wants[s] == nil {
			continue
		}
		if w := z.of(s); w != nil {
			w.announce(c.V.Endpoint, once)
		}
	}
}

// of is the want of a source, which is new if there was none; nil if there is no room.
func (z *subscribers) of(s source) *want {
	w := z.wants[s]
	if w == nil && len(z.wants) >= z.most {
		z.over = true
		z.events.fleet.Stats.CountRefused(stats.SubscriptionLimit)
		return nil
	}
	if w == nil {
		w = newWant(s)
		z.wants[s] = w
		z.places.ask(w)
		if s.broker {
			z.brokersChange(1)
		}
	}
	z.changed[w] = struct{}{}
	return w
}

// sources are where the events of a channel come out, if it is read.
func (z *subscribers) sources(c fleet.Channel) (all []source) {
	kind, read := kinds[c.Topic]
	if !read {
		return nil
	}
	switch c.Plane {
	case fleet.ZMQPlane:
		if t := z.events.fleet.Target(); t.CoversComponent(c.Endpoint.Component) || c.Endpoint.Component == "" {
			all = append(all, source{address: c.Address, publisher: c.Publisher, kind: kind})
		}
	case fleet.BrokerPlane:
		for address := range strings.SplitSeq(c.Address, ";") {
			all = append(all, source{address: address, broker: true})
		}
	}
	return all
}

// drop wants a source no more. It has a subscription that is stopped, but may not have ended.
func (z *subscribers) drop(w *want) (stopped []*subscriber) {
	delete(z.wants, w.source)
	if w.broker {
		z.brokersChange(-1)
	}
	if w.running == nil {
		z.places.withdraw(w)
		return nil
	}
	w.running.stop()
	return []*subscriber{w.running}
}

// brokersChange notes that there is one more broker, or one less. Where a publisher stands is
// known by what came by one alone: what came by others, or could not come, is not missing.
func (z *subscribers) brokersChange(once int) {
	z.brokers += once
	z.copies.mu.Lock()
	defer z.copies.mu.Unlock()
	z.copies.several = z.brokers > 1
	z.copies.sequences.forget()
	z.events.gaps.forget(&z.copies.sequences)
}

// end waits for subscriptions that were stopped, and takes back their places.
func (z *subscribers) end(stopped []*subscriber) {
	for _, s := range stopped {
		s.ended.Wait()
		s.running = nil
		if !s.broker {
			z.letGo(s.want)
		}
		z.places.leave(s.want)
		if g := z.gates[s.address]; g.leave() {
			delete(z.gates, s.address)
		}
	}
}

// handOut starts subscriptions as long as there are places, and says how many there are.
func (z *subscribers) handOut(ctx context.Context) {
	for w := z.places.next(); w != nil; w = z.places.next() {
		z.start(ctx, w)
	}
	t := &z.events.fleet.Stats
	for w := range z.changed {
		if w.waiting != nil && !w.turned {
			w.turned = true
			t.CountRefused(stats.SubscriptionLimit)
			z.full.Do(func() {
				z.events.log.Warn("There is no room for more ZMQ publishers, and the events of the others are lost: raise the limit on open files (ulimit -n), or --max-workers",
					"subscriptions", z.places.most, "of_one_host", z.places.perHost, "announced", len(z.wants))
			})
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	t.Publishers.Store(int64(len(z.wants)))
	t.PublishersWaiting.Store(int64(z.places.waiting))
	if len(z.wants) > 0 {
		t.ZMQ.MarkUsed()
	}
	z.say()
}

// takeTurns lets those that wait have the places of those that are out of reach.
func (z *subscribers) takeTurns() {
	var stopped []*subscriber
	for _, w := range z.wants {
		if len(stopped) == z.places.waiting {
			break
		}
		if s := w.running; s != nil && !w.flagged && s.awayFor() >= inVain {
			s.stop()
			stopped = append(stopped, s)
		}
	}
	z.end(stopped)
	for _, s := range stopped {
		z.places.ask(s.want)
	}
}

// letGo forgets where a publisher stands whose subscription we have ended: what it sends
// until there is another one is not missing.
func (z *subscribers) letGo(w *want) {
	w.sequence = sequence{}
	z.events.gaps.forget(&w.sequence)
}

func (z *subscribers) stopAll() {
	var all []*subscriber
	for _, w := range z.wants {
		if w.running != nil {
			w.running.stop()
			all = append(all, w.running)
		}
	}
	z.end(all)
}

// set notes that a subscription is set, or is no more.
func (z *subscribers) set(once int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.up += once
	z.say()
}

// say says whether ZMQ is connected: to one publisher at least, if there are any. Single
// ones that are away are on their own gauge.
func (z *subscribers) say() {
	t := &z.events.fleet.Stats
	t.PublishersUp.Store(int64(z.up))
	if t.Publishers.Load() == 0 {
		t.ZMQ.SetIdle()
		return
	}
	t.ZMQ.SetConnected(z.up > 0)
}

// direct books what a publisher of its own sent. A subscription is by prefix, so that
// other topics may come with it.
func (e *Events) direct(c *fleet.Channel, numbers counted, frames [][]byte) {
	if len(frames) > 0 && string(frames[0]) != c.Topic {
		return
	}
	kind := kinds[c.Topic]
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
	e.envelope(c.Endpoint, c.Topic, envelope, numbers, nil)
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
	e.fleet.Stats.CountMessage(kind)
	_, envelope, err := wire.ParseFrames(frames)
	if err != nil {
		e.reject(kind, stats.BadFrames, err)
		return
	}
	by.mu.Lock()
	defer by.mu.Unlock()
	var numbers counted
	if !by.several { // what one broker lost another may bring
		numbers = &by.sequences
	}
	e.envelope(at, topic, envelope, numbers, by)
}

// ofReadTopic reports, at the least expense, whether a subject may be of a topic that is read.
func ofReadTopic(subject []byte) bool {
	_, read := kinds[string(subject[bytes.LastIndexByte(subject, '.')+1:])]
	return read
}
