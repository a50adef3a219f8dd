package mock

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// registeredChannels returns the address or subject prefix of each event channel in etcd, by
// topic.
func registeredChannels(t *testing.T, ec *clientv3.Client, lease uint64) (all map[string]string) {
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

// checkRegistered checks the keys of the instance and the card, and their lease.
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

func TestEventsOf06(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	nc, ec := stack.Conn(t), stack.Client(t)
	e, p := newListener(t), newScript()
	e.subscribeNATS(stack.Conn(t))
	p.addHits([2]int{25, 0}, [2]int{26, 23})
	r := start(t, nc, ec, p.config("0.6.1", ""))
	id := r.id(t, 0, 0)
	checkRegistered(t, ec, id, 10)
	if got := registeredChannels(t, ec, id); len(got) != 0 {
		t.Errorf("got channels %v", got)
	}
	p.changeLoad(t, func(l *fleet.Load) { l.Waiting = fleet.Some[uint64](5) })
	e.waitForEventsInAnyOrder(
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

func TestEventsInEnvelopesOverNATS(t *testing.T) {
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
			e, p := newListener(t), newScript()
			e.subscribeNATS(stack.Conn(t))
			r := start(t, nc, ec, p.config(release, NATS))
			id := r.id(t, 0, 0)
			checkRegistered(t, ec, id, c.ttl)
			got := registeredChannels(t, ec, id)
			for _, topic := range c.topics {
				if got[topic] != c.scope || len(got) != len(c.topics) {
					t.Errorf("got channels %v, want those of %q", got, c.topics)
				}
			}
			if answersPolls(t, nc, "dynamo_backend") {
				t.Error("replies to stats polls")
			}
			load := func(blocks int) string {
				return fmt.Sprintf("%s.kv_metrics: load of %x: %s", c.scope, id, fmt.Sprintf(c.want, blocks))
			}
			e.waitForEvents(load(42))
			p.changeLoad(t, func(l *fleet.Load) { l.KVActive = fleet.Some[uint64](43) })
			e.waitForEvents(load(42), load(43))
			p.addHits([2]int{26, 23})
			e.waitForEvents(load(42), load(43), fmt.Sprintf(c.hit, id))
			checkSequences(t, e, release, id)
			r.stop(t, nil)
			checkEmpty(t, ec)
		})
	}
}

// checkSequences checks that the sequence of each topic counts from 0.
func checkSequences(t *testing.T, e *listener, release string, id uint64) {
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

func TestEventsInEnvelopesOverZMQ(t *testing.T) {
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
			p := newScript()
			r := start(t, nil, ec, p.config(release, ZMQ))
			id := r.id(t, 0, 0)
			checkRegistered(t, ec, id, map[string]int64{"0.9.1": 10, "1.6.1": 30}[release])
			e, second := newListener(t), newListener(t)
			got := registeredChannels(t, ec, id)
			for _, topic := range c.topics {
				e.subscribeZMQ(got[topic], topic)
				second.subscribeZMQ(got[topic], topic)
			}
			if len(got) != len(c.topics) {
				t.Errorf("got channels %v, want %q", got, c.topics)
			}
			want := []string{fmt.Sprintf("zmq: load of %x: %s", id, c.want)}
			p.changeLoad(t, func(l *fleet.Load) { l.KVActive = fleet.Some[uint64](43) })
			e.waitForEvents(want...)
			second.waitForEvents(want...)
			p.addHits([2]int{26, 23})
			if release == "0.9.1" {
				want = append(want, fmt.Sprintf("zmq: hit of %x: 23/26", id))
			}
			e.waitForEvents(want...)
			second.waitForEvents(want...)
			r.stop(t, nil)
			checkEmpty(t, ec)
		})
	}
}

func TestEventsDroppedLeaveASequenceGap(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	e, p := newListener(t), newScript()
	e.subscribeNATS(stack.Conn(t))
	c := p.config("0.9.1", "")
	var lose atomic.Bool
	c.DropEvent = func(worker int, topic string) bool { return worker == 0 && topic == wire.TopicHitRate && lose.Load() }
	r := start(t, stack.Conn(t), stack.Client(t), c)
	id := r.id(t, 0, 0)
	load := fmt.Sprintf("namespace.dynamo.kv_metrics: load of %x: 42 decode, - used", id)
	hit := fmt.Sprintf("namespace.dynamo.kv-hit-rate: hit of %x: 1/2", id)
	e.waitForEvents(load)
	p.addHits([2]int{2, 1})
	e.waitForEvents(load, hit)
	lose.Store(true)
	p.addHits([2]int{2, 1}, [2]int{2, 1})
	testutil.Until(t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.hits) > 0 {
			return errors.New("some hits are not published yet")
		}
		return nil
	})
	p.changeLoad(t, func(*fleet.Load) {}) // by now the last hit is dropped
	lose.Store(false)
	p.addHits([2]int{2, 1})
	e.waitForEvents(load, hit, hit)
	e.mu.Lock()
	defer e.mu.Unlock()
	if got := fmt.Sprint(e.sequences[wire.TopicHitRate]); got != "[0 3]" {
		t.Errorf("got sequence %s, want [0 3]", got)
	}
}

func TestEventsAfterNewLeaseUseNewChannels(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	ec := stack.Client(t)
	p := newScript()
	c := p.config("0.9.1", ZMQ) // a release with a short lease
	r := start(t, nil, ec, c)
	first := r.id(t, 0, 0)
	old := registeredChannels(t, ec, first)[wire.TopicLoad]
	stack.StopEtcd()
	stack.StartEmptyEtcd(t)
	second := r.id(t, 0, first)
	checkRegistered(t, ec, second, 10)
	address := registeredChannels(t, ec, second)[wire.TopicLoad]
	if address == old {
		t.Errorf("both leases have the channel %s", old)
	}
	e := newListener(t)
	e.subscribeZMQ(address, wire.TopicLoad)
	p.changeLoad(t, func(l *fleet.Load) { l.KVActive = fleet.Some[uint64](43) })
	e.waitForEvents(fmt.Sprintf("zmq: load of %x: 43 decode, - used", second))
	r.stop(t, nil)
	checkEmpty(t, ec)
}

func TestRunKilledLeavesChannels(t *testing.T) {
	ec := devstacktest.Start(t).Client(t)
	r := start(t, nil, ec, newScript().config("1.6.1", ""))
	id := r.id(t, 0, 0)
	before := registeredChannels(t, ec, id)
	r.stop(t, ErrKilled)
	if after := registeredChannels(t, ec, id); len(before) != 2 || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("got %v, before %v", after, before)
	}
	checkRegistered(t, ec, id, 30)
}

func TestRunRejectsMissingConnections(t *testing.T) {
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

func TestMixedCoversReleasesAndEventPlanes(t *testing.T) {
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
