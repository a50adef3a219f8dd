package mock

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// play says what a worker does: its load, until it is changed, and hits, once each.
type play struct {
	mu   sync.Mutex
	load fleet.Load
	seen int // by how many looks
	hits [][2]int
}

func (p *play) Load(int) fleet.Load {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen++
	return p.load
}

func (p *play) Hit(int) (isl, overlap int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.hits) == 0 {
		return 0, 0, false
	}
	h := p.hits[0]
	p.hits = p.hits[1:]
	return h[0], h[1], true
}

// change waits until the load was looked at some times more, and then changes it.
func (p *play) change(t *testing.T, change func(*fleet.Load)) {
	t.Helper()
	p.mu.Lock()
	before := p.seen
	p.mu.Unlock()
	devstacktest.Until(t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.seen < before+2 {
			return fmt.Errorf("looked at %d times only", p.seen-before)
		}
		change(&p.load)
		return nil
	})
}

func (p *play) strike(hits ...[2]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hits = append(p.hits, hits...)
}

// ear hears events on both planes, and decodes them.
type ear struct {
	t         *testing.T
	mu        sync.Mutex
	said      []string // all but passes, without what is random
	passes    []wire.ForwardPass
	sequences map[string][]uint64 // by topic
	publisher map[string]uint64   // by topic
}

func (e *ear) say(format string, args ...any) {
	e.said = append(e.said, fmt.Sprintf(format, args...))
}

func show(o fleet.Opt[uint64]) string {
	if !o.OK {
		return "-"
	}
	return fmt.Sprint(o.V)
}

// message takes one from NATS.
func (e *ear) message(m *nats.Msg) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, topic, ok := wire.ParseEventSubject("dynamo", m.Subject)
	switch {
	case m.Subject == wire.TraceSubject:
		tr, err := wire.ParseTrace(m.Data)
		if err != nil {
			e.t.Error(err)
		}
		e.say("trace of %x: %s/%s", tr.Prefill.V.Worker, show(tr.OverlapBlocks), show(tr.ISLBlocks))
	case !ok:
		e.t.Errorf("strange subject %s", m.Subject)
	case wire.IsEnvelope(m.Data):
		envelope, err := wire.ParseEnvelope(m.Data)
		if err != nil || string(envelope.Topic) != topic {
			e.t.Errorf("on %s: got %+v, %v", m.Subject, envelope, err)
		}
		e.envelope(m.Subject, envelope)
	case topic == wire.TopicLoad:
		l, err := wire.ParseLoadEvent(m.Data)
		if err != nil {
			e.t.Error(err)
		}
		e.say("%s: load of %x: %s/%s slots, %s waiting, %s/%s blocks, %v used, %v hit", m.Subject, l.Worker, show(l.Load.ActiveSlots), show(l.Load.TotalSlots),
			show(l.Load.Waiting), show(l.Load.KVActive), show(l.Load.KVTotal), l.Load.CacheUsage.V, l.Load.HitRate.V)
	default:
		h, err := wire.ParseHitRate(m.Data)
		if err != nil || !strings.Contains(string(m.Data), `"dp_rank":0,`) {
			e.t.Errorf("%s: %v", m.Data, err)
		}
		e.say("%s: hit of %x: %d/%d", m.Subject, h.Worker, h.OverlapBlocks, h.ISLBlocks)
	}
}

// frames takes a message from ZMQ.
func (e *ear) frames(frames [][]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	subject, envelope, err := wire.ParseFrames(frames)
	if err != nil || string(subject) != string(envelope.Topic) {
		e.t.Errorf("got %q, %+v, %v", subject, envelope, err)
	}
	e.envelope("zmq", envelope)
}

func (e *ear) envelope(from string, envelope wire.Envelope) {
	topic := string(envelope.Topic)
	if other, known := e.publisher[topic]; known && other != envelope.Publisher {
		e.t.Errorf("%s: publishers %x and %x, want one", topic, other, envelope.Publisher)
	}
	e.publisher[topic] = envelope.Publisher
	e.sequences[topic] = append(e.sequences[topic], envelope.Sequence)
	if age := time.Since(time.UnixMilli(int64(envelope.PublishedAt))); age < -time.Second || age > devstacktest.Patience {
		e.t.Errorf("published %v ago", age)
	}
	switch topic {
	case wire.TopicLoad:
		l, err := wire.ParseActiveLoad(envelope.Payload)
		if err != nil || l.IsEstimate() || l.DecodeBlocks.OK == l.UsedBlocks.OK {
			e.t.Errorf("got %+v, %v", l, err)
		}
		e.say("%s: load of %x: %s decode, %s used", from, l.Worker, show(l.DecodeBlocks), show(l.UsedBlocks))
	case wire.TopicHitRate:
		h, err := wire.ParseHitRatePack(envelope.Payload)
		if err != nil {
			e.t.Error(err)
		}
		e.say("%s: hit of %x: %d/%d", from, h.Worker, h.OverlapBlocks, h.ISLBlocks)
	case wire.TopicForwardPass:
		p, err := wire.ParseForwardPass(envelope.Payload)
		if err != nil || !p.HasWorker {
			e.t.Errorf("got %+v, %v", p, err)
		}
		e.passes = append(e.passes, p)
	default:
		e.t.Errorf("strange topic %q", topic)
	}
}

// hears waits until exactly this was said.
func (e *ear) hears(want ...string) {
	e.t.Helper()
	devstacktest.Until(e.t, func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if strings.Join(e.said, "\n") != strings.Join(want, "\n") {
			return fmt.Errorf("got\n%s\nwant\n%s", strings.Join(e.said, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
}

func newEar(t *testing.T) *ear {
	return &ear{t: t, sequences: map[string][]uint64{}, publisher: map[string]uint64{}}
}

// onNATS listens to everything that workers publish.
func (e *ear) onNATS(nc *nats.Conn) {
	for _, subject := range []string{"namespace.>", wire.TraceSubject} {
		if _, err := nc.Subscribe(subject, e.message); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		e.t.Fatal(err)
	}
}

// channels are the event channels in etcd, as topic, kind and where.
func channels(t *testing.T, ec *clientv3.Client, lease uint64) (all map[string]string) {
	t.Helper()
	all = map[string]string{}
	got, err := ec.Get(t.Context(), "v1/event_channels/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range got.Kvs {
		c, err := wire.ParseChannel("dynamo", string(kv.Key), kv.Value)
		if err != nil || uint64(kv.Lease) != lease {
			t.Errorf("%s on lease %x: %v", kv.Key, kv.Lease, err)
		}
		all[c.Topic] = c.Address + c.SubjectPrefix
		if (c.Plane == fleet.ZMQPlane) != (c.Address != "") {
			t.Errorf("%s: got %+v", kv.Key, c)
		}
	}
	return all
}

// checkRegistered looks for the instance and the card, both on the lease.
func checkRegistered(t *testing.T, ec *clientv3.Client, id uint64, ttl int64) {
	t.Helper()
	in := backendInstance(id)
	for _, key := range []string{wire.LayoutV1.Key("dynamo", in), wire.CardKey("dynamo", in)} {
		got, err := ec.Get(t.Context(), key)
		if err != nil || got.Count != 1 || uint64(got.Kvs[0].Lease) != id {
			t.Fatalf("%s: got %v, %v", key, got, err)
		}
		if strings.HasPrefix(key, "v1/instances/") {
			if _, err := wire.LayoutV1.ParseValue("dynamo", in, got.Kvs[0].Value); err != nil {
				t.Error(err)
			}
			continue
		}
		card, err := wire.ParseCard(got.Kvs[0].Value)
		if err != nil || card.KVTotal.V != 1000 || card.MaxSeqs.V != 100 {
			t.Errorf("got %+v, %v", card, err)
		}
	}
	if l, err := ec.TimeToLive(t.Context(), clientv3.LeaseID(id)); err != nil || l.GrantedTTL != ttl {
		t.Errorf("got %+v, %v; want a lease of %d s", l, err, ttl)
	}
}

func checkEmpty(t *testing.T, ec *clientv3.Client) {
	t.Helper()
	got, err := ec.Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil || got.Count != 0 {
		t.Errorf("left behind: %v, %v", got, err)
	}
}

func playing() *play { return &play{load: loadOf(11, 100, 4, 42, 1000, 0.25, 0.4)} }

func (p *play) config(release, plane string) Config {
	c := backend(release)
	c.EventPlane, c.Load, c.Hit, c.EventInterval = plane, p.Load, p.Hit, time.Millisecond
	return c
}

func TestWorkerOf06Speaks(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	nc, ec := stack.Conn(t), stack.Client(t)
	e, p := newEar(t), playing()
	e.onNATS(stack.Conn(t))
	p.strike([2]int{25, 0}, [2]int{26, 23})
	r := start(t, nc, ec, p.config("0.6.1", ""))
	id := r.id(t, 0, 0)
	checkRegistered(t, ec, id, 10)
	if got := channels(t, ec, id); len(got) != 0 {
		t.Errorf("got channels %v", got)
	}
	p.change(t, func(l *fleet.Load) { l.Waiting = fleet.Some[uint64](5) })
	e.eventually(
		fmt.Sprintf("namespace.dynamo.kv_metrics: load of %x: 11/100 slots, 4 waiting, 42/1000 blocks, 0.25 used, 0.4000000059604645 hit", id),
		fmt.Sprintf("namespace.dynamo.kv_metrics: load of %x: 11/100 slots, 5 waiting, 42/1000 blocks, 0.25 used, 0.4000000059604645 hit", id),
		fmt.Sprintf("namespace.dynamo.kv-hit-rate: hit of %x: 0/25", id),
		fmt.Sprintf("namespace.dynamo.kv-hit-rate: hit of %x: 23/26", id),
	)
	subject := "dynamo_backend.generate-" + wire.HexID(id)
	reply := poll(t, nc, "dynamo_backend", 1)[0].Data
	if !strings.Contains(string(reply), `"version":"0.6.1"`) || !strings.Contains(string(reply), `"data":null`) || !strings.Contains(string(reply), subject) {
		t.Errorf("got %s", reply)
	}
	r.stop(t, nil)
	checkEmpty(t, ec)
}

// eventually is hears for what comes in no certain order.
func (e *ear) eventually(want ...string) {
	e.t.Helper()
	devstacktest.Until(e.t, func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.said) != len(want) {
			return fmt.Errorf("got\n%s\nwant\n%s", strings.Join(e.said, "\n"), strings.Join(want, "\n"))
		}
		for _, one := range want {
			if !strings.Contains(strings.Join(e.said, "\n")+"\n", one+"\n") {
				return fmt.Errorf("got\n%s\nwithout %s", strings.Join(e.said, "\n"), one)
			}
		}
		return nil
	})
}

func TestWorkersSpeakInEnvelopesOnNATS(t *testing.T) {
	for release, c := range map[string]struct {
		ttl    int64
		scope  string
		topics []string
		want   string // of a load of %d blocks, and of a hit
		hit    string
	}{
		"0.9.1": {10, "namespace.dynamo", []string{wire.TopicLoad, wire.TopicHitRate}, "%d decode, - used", "namespace.dynamo.kv-hit-rate: hit of %x: 23/26"},
		"1.6.1": {30, "namespace.dynamo.component.backend.endpoint.generate", []string{wire.TopicLoad, wire.TopicForwardPass}, "- decode, %d used", "trace of %x: 23/26"},
	} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			stack := devstacktest.Start(t)
			nc, ec := stack.Conn(t), stack.Client(t)
			e, p := newEar(t), playing()
			e.onNATS(stack.Conn(t))
			r := start(t, nc, ec, p.config(release, NATS))
			id := r.id(t, 0, 0)
			checkRegistered(t, ec, id, c.ttl)
			got := channels(t, ec, id)
			for _, topic := range c.topics {
				if got[topic] != c.scope || len(got) != len(c.topics) {
					t.Errorf("got channels %v, want those of %q", got, c.topics)
				}
			}
			if answered(t, nc, "dynamo_backend") {
				t.Error("answers stats polls")
			}
			load := func(blocks int) string {
				return fmt.Sprintf("%s.kv_metrics: load of %x: %s", c.scope, id, fmt.Sprintf(c.want, blocks))
			}
			e.hears(load(42))
			p.change(t, func(l *fleet.Load) { l.KVActive = fleet.Some[uint64](43) })
			e.hears(load(42), load(43))
			p.strike([2]int{26, 23})
			e.hears(load(42), load(43), fmt.Sprintf(c.hit, id))
			checkSequences(t, e, release, id)
			r.stop(t, nil)
			checkEmpty(t, ec)
		})
	}
}

// checkSequences wants each topic to count from 0.
func checkSequences(t *testing.T, e *ear, release string, id uint64) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for topic, sequences := range e.sequences {
		for i, n := range sequences {
			if n != uint64(i) {
				t.Errorf("%s: got sequence %v, want 0, 1, …", topic, sequences)
			}
		}
		if (release == "0.9.1") != (e.publisher[topic] == id) {
			t.Errorf("%s: publisher %x of worker %x", topic, e.publisher[topic], id)
		}
	}
	if release == "1.6.1" && e.publisher[wire.TopicLoad] == e.publisher[wire.TopicForwardPass] {
		t.Error("both topics have one publisher")
	}
}

func TestWorkersSpeakInEnvelopesWithZMQ(t *testing.T) {
	for release, c := range map[string]struct {
		topics []string
		want   string
	}{
		"0.9.1": {[]string{wire.TopicLoad, wire.TopicHitRate}, "43 decode, - used"},
		"1.6.1": {[]string{wire.TopicLoad, wire.TopicForwardPass}, "- decode, 43 used"},
	} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			ec := devstacktest.Start(t).Client(t)
			p := playing()
			r := start(t, nil, ec, p.config(release, ZMQ))
			id := r.id(t, 0, 0)
			checkRegistered(t, ec, id, map[string]int64{"0.9.1": 10, "1.6.1": 30}[release])
			e, second := newEar(t), newEar(t)
			got := channels(t, ec, id)
			for _, topic := range c.topics {
				e.onZMQ(got[topic], topic)
				second.onZMQ(got[topic], topic)
			}
			if len(got) != len(c.topics) {
				t.Errorf("got channels %v, want %q", got, c.topics)
			}
			want := []string{fmt.Sprintf("zmq: load of %x: %s", id, c.want)}
			p.change(t, func(l *fleet.Load) { l.KVActive = fleet.Some[uint64](43) })
			e.hears(want...)
			second.hears(want...)
			p.strike([2]int{26, 23})
			if release == "0.9.1" {
				want = append(want, fmt.Sprintf("zmq: hit of %x: 23/26", id))
			}
			e.hears(want...)
			second.hears(want...)
			r.stop(t, nil)
			checkEmpty(t, ec)
		})
	}
}

// onZMQ subscribes to one topic of a worker.
func (e *ear) onZMQ(address, topic string) {
	e.t.Helper()
	follow(e.t, address, e.frames, topic)
}

func TestPassesOfAModel(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	e, p := newEar(t), playing()
	e.onNATS(stack.Conn(t))
	c := p.config("1.6.1", NATS)
	c.EventInterval = 0
	r := start(t, stack.Conn(t), stack.Client(t), c)
	id := r.id(t, 0, 0)
	e.pass(func(p wire.ForwardPass) bool {
		return p.Worker == id && p.WallTime == 0.0125 && p.Running() == 11 && p.Waiting() == 4 && p.Scheduled.PrefillRequests == 1 && p.Scheduled.PrefillTokens == 128
	})
	p.change(t, func(l *fleet.Load) { l.ActiveSlots, l.Waiting = fleet.Some[uint64](0), fleet.Some[uint64](0) })
	idle := e.pass(func(p wire.ForwardPass) bool {
		return p == wire.ForwardPass{Worker: id, HasWorker: true, Counter: p.Counter}
	})
	e.pass(func(p wire.ForwardPass) bool { return p.WallTime == 0 && p.Counter == idle.Counter+1 })
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, p := range e.passes {
		if p.Counter != uint64(i+1) {
			t.Errorf("pass %d has counter %d", i+1, p.Counter)
		}
	}
}

// pass waits for one that is as wanted.
func (e *ear) pass(wanted func(wire.ForwardPass) bool) (found wire.ForwardPass) {
	e.t.Helper()
	devstacktest.Until(e.t, func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, found = range e.passes {
			if wanted(found) {
				return nil
			}
		}
		return fmt.Errorf("not among %+v", e.passes)
	})
	return found
}

func TestIdlePassesAreASecondApart(t *testing.T) {
	var p passes
	var due []int
	for look := range 12 {
		if got, ok := p.next(fleet.Load{ActiveSlots: fleet.Some[uint64](0)}); ok {
			due = append(due, look)
			if got != (pass{counter: uint64(len(due))}) {
				t.Errorf("got %+v", got)
			}
		}
	}
	if got := fmt.Sprint(due); got != "[3 7 11]" {
		t.Errorf("there is a pass at looks %s, want every fourth", got)
	}
	if got, ok := new(passes).next(fleet.Load{}); ok {
		t.Errorf("got %+v of a worker that says nothing", got)
	}
}

func TestLostEventsLeaveAGap(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	e, p := newEar(t), playing()
	e.onNATS(stack.Conn(t))
	c := p.config("0.9.1", "")
	var lose atomic.Bool
	c.Lose = func(worker int, topic string) bool { return worker == 0 && topic == wire.TopicHitRate && lose.Load() }
	r := start(t, stack.Conn(t), stack.Client(t), c)
	id := r.id(t, 0, 0)
	load := fmt.Sprintf("namespace.dynamo.kv_metrics: load of %x: 42 decode, - used", id)
	hit := fmt.Sprintf("namespace.dynamo.kv-hit-rate: hit of %x: 1/2", id)
	e.hears(load)
	p.strike([2]int{2, 1})
	e.hears(load, hit)
	lose.Store(true)
	p.strike([2]int{2, 1}, [2]int{2, 1})
	devstacktest.Until(t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.hits) > 0 {
			return errors.New("hits are left")
		}
		return nil
	})
	p.change(t, func(*fleet.Load) {}) // by now the last one is lost
	lose.Store(false)
	p.strike([2]int{2, 1})
	e.hears(load, hit, hit)
	e.mu.Lock()
	defer e.mu.Unlock()
	if got := fmt.Sprint(e.sequences[wire.TopicHitRate]); got != "[0 3]" {
		t.Errorf("got sequence %s, want [0 3]", got)
	}
}

func TestWorkerWithANewLeaseHasNewChannels(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	ec := stack.Client(t)
	p := playing()
	c := p.config("0.9.1", ZMQ) // its lease is the short one
	r := start(t, nil, ec, c)
	first := r.id(t, 0, 0)
	old := channels(t, ec, first)[wire.TopicLoad]
	stack.StopEtcd()
	stack.StartEmptyEtcd(t)
	second := r.id(t, 0, first)
	checkRegistered(t, ec, second, 10)
	address := channels(t, ec, second)[wire.TopicLoad]
	if address == old {
		t.Errorf("both have %s", old)
	}
	e := newEar(t)
	e.onZMQ(address, wire.TopicLoad)
	p.change(t, func(l *fleet.Load) { l.KVActive = fleet.Some[uint64](43) })
	e.hears(fmt.Sprintf("zmq: load of %x: 43 decode, - used", second))
	r.stop(t, nil)
	checkEmpty(t, ec)
}

func TestKilledWorkersLeaveTheirChannels(t *testing.T) {
	ec := devstacktest.Start(t).Client(t)
	r := start(t, nil, ec, playing().config("1.6.1", ""))
	id := r.id(t, 0, 0)
	before := channels(t, ec, id)
	r.stop(t, ErrKilled)
	if after := channels(t, ec, id); len(before) != 2 || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("got %v, before %v", after, before)
	}
	checkRegistered(t, ec, id, 30)
}

func TestWorkersThatNeedWhatIsNotThere(t *testing.T) {
	stack := devstacktest.Start(t)
	nc, ec := stack.Conn(t), stack.Client(t)
	for _, c := range []struct{ release, plane string }{{"0.5.1", ""}, {"0.6.1", ""}, {"0.9.1", ""}, {"1.6.1", NATS}} {
		config := backend(c.release)
		config.EventPlane = c.plane
		if err := Run(t.Context(), nil, ec, config); err == nil {
			t.Errorf("%v ran without NATS", c)
		}
	}
	for _, release := range []string{"0.6.1", "0.9.1", "1.6.1"} {
		if err := Run(t.Context(), nc, nil, backend(release)); err == nil {
			t.Errorf("%s ran without etcd", release)
		}
	}
}

func TestMixedIsEveryReleaseAndPlane(t *testing.T) {
	for workers, want := range map[int]string{
		0:  "[0.1.0 nats 1][0.1.1 nats 1][0.2.1 nats 1][0.3.0 nats 1][0.5.1 nats 1][0.6.1 nats 1][0.9.1 nats 1][0.9.1 zmq 1][1.6.1 nats 1][1.6.1 zmq 1]",
		23: "[0.1.0 nats 3][0.1.1 nats 3][0.2.1 nats 3][0.3.0 nats 2][0.5.1 nats 2][0.6.1 nats 2][0.9.1 nats 2][0.9.1 zmq 2][1.6.1 nats 2][1.6.1 zmq 2]",
	} {
		base := backend("")
		base.Workers = workers
		got := ""
		for _, c := range Mixed(base) {
			if err := c.Check(); err != nil {
				t.Error(err)
			}
			got += fmt.Sprintf("[%s %s %d]", c.Release, c.EventPlane, c.Workers)
		}
		if got != want {
			t.Errorf("of %d workers:\ngot  %s\nwant %s", workers, got, want)
		}
	}
}
