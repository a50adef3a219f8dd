//go:build real

package survival

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/testutil"
)

// promised is how soon after the return of its servers the program shows all as it is.
const promised = 2 * time.Second

// up is what a page says when all is well.
var up = page{connected("nats"): "1", connected("etcd"): "1", "dynamo_metrics_leader": "1"}

func TestNATSIsKilledTwentyTimesUnderLoad(t *testing.T) {
	t.Parallel()
	f := newLab(t)
	a, b := f.worker(1, 10), f.worker(2, 20)
	const mocks = 10
	process.Start(t, f.env(), filepath.Join(bin, "mock_worker"), "--workers", fmt.Sprint(mocks), "--correlated", "--event-interval", "0.02",
		"--release", "0.5.1")
	m := f.run()
	all := page{workers("answering"): fmt.Sprint(mocks + 2), workers("silent"): "0"}
	m.shows(merged(up, all, loads(a, b)))
	r := f.route(a, b)
	// The mocks' events have any number of blocks.
	w := m.witnessed(always(loads(b)), always(all), countersOf(a, b), pairs(func(s string) bool { return s != of(isl, a.id) && s != of(isl, b.id) }))
	for i := range 20 {
		f.nats[0].kill()
		m.until(func(p page) error { return p.has(page{connected("nats"): "0"}) })
		// The longer it is gone the longer the pauses between attempts.
		throughout(t, time.Duration(i%4)*500*time.Millisecond, func() error { return m.isAway(merged(loads(b), page{connected("nats"): "0"})) })
		before, err := m.page()
		if err != nil {
			t.Fatal(err)
		}
		a.load.Store(uint64(100 + i))
		f.nats[0].start()
		within(t, promised, func() error {
			p, err := m.page()
			if err == nil && p.number(of(isl, a.id)) <= before.number(of(isl, a.id)) {
				err = errors.New("no hit is booked")
			}
			if err != nil {
				return err
			}
			return m.right(merged(up, all, loads(a, b)))
		})
	}
	r.settle(m)
	w.stop()
	if n := len(m.Said("Lost the connection to NATS")); n != 20 {
		t.Errorf("the log speaks of %d losses, want 20", n)
	}
	m.Terminate()
}

// TestNATSComesBackLongBeforeTheNextPoll has an interval that alone would take longer
// than the return of the values may.
func TestNATSComesBackLongBeforeTheNextPoll(t *testing.T) {
	t.Parallel()
	f := newLab(t)
	f.interval = "60"
	a, b := f.worker(1, 10), f.worker(2, 20)
	m := f.run()
	m.shows(merged(up, loads(a, b)))
	w := m.witnessed(always(loads(b)), countersOf(a, b))
	for i := range pick(3, 20) {
		f.nats[0].kill()
		m.until(func(p page) error { return p.has(page{connected("nats"): "0"}) })
		a.load.Store(uint64(100 + i))
		f.nats[0].start()
		within(t, promised, func() error { return m.right(merged(up, loads(a, b))) })
	}
	w.stop()
	m.Terminate()
}

func TestAClusterOfNATSLosesTheNodeThatWeAreAt(t *testing.T) {
	t.Parallel()
	nodes, etcd := natsCluster(t), etcdServers(t, 1)
	etcd[0].start()
	f := connect(t, nodes[:], etcd)
	a, b := f.worker(1, 10), f.worker(2, 20)
	m := f.run()
	m.shows(merged(up, loads(a, b)))
	r := f.route(a, b)
	w := m.witnessed(always(loads(b)), countersOf(a, b), pairs(nil))
	for i := range pick(3, 10) {
		at := connectedTo(m)
		node := nodes[slices.IndexFunc(nodes[:], func(n *server) bool { return n.url == at })]
		a.load.Store(uint64(100 + i))
		node.kill()
		within(t, promised, func() error {
			if now := connectedTo(m); now == at {
				return errors.New("it is at the node that is dead")
			}
			return m.right(merged(up, loads(a, b)))
		})
		node.start()
		m.shows(merged(up, loads(a, b)))
	}
	r.settle(m)
	w.stop()
	m.Terminate()
}

// connectedTo is the NATS server that the program has named last.
func connectedTo(m *program) string {
	said := m.Said("Connected to NATS server=")
	_, url, _ := strings.Cut(said[len(said)-1], "server=")
	return strings.Fields(url)[0]
}

func TestEtcdIsKilledAndComesBack(t *testing.T) {
	t.Parallel()
	f := newLab(t)
	a, b := f.worker(1, 10), f.worker(2, 20)
	m := f.run()
	m.shows(merged(up, loads(a, b)))
	r := f.route(a, b)
	w := m.witnessed(always(loads(b)), countersOf(a, b), pairs(nil))
	for i := range pick(3, 10) {
		f.etcd[0].kill()
		m.until(func(p page) error { return p.has(page{connected("etcd"): "0"}) })
		a.load.Store(uint64(100 + i))
		m.until(func(p page) error { return p.has(loads(a, b)) }) // who is known is polled all the same
		if err := m.isAway(merged(loads(a, b), page{connected("etcd"): "0"})); err != nil {
			t.Error(err)
		}
		f.etcd[0].start()
		within(t, promised, func() error { return m.right(merged(up, loads(a, b))) })
	}
	r.settle(m)
	w.stop()
	m.Terminate()
}

// TestEtcdIsCompactedWhileWeAreAway has it changed behind the program's back, and the
// changes' history thrown away.
func TestEtcdIsCompactedWhileWeAreAway(t *testing.T) {
	t.Parallel()
	f := newLab(t)
	stays, leaves := f.worker(1, 10), f.worker(2, 20)
	m := f.run()
	m.shows(merged(up, loads(stays, leaves)))
	w := m.witnessed(always(loads(stays)), countersOf(stays), pairs(nil))
	etcd := f.etcd[0]
	etcd.kill()
	m.until(func(p page) error { return p.has(page{connected("etcd"): "0"}) })

	away := etcd.elsewhere()
	away.start()
	ec := devstacktest.EtcdClient(t, away.url)
	f.deregister(ec, leaves.id)
	f.register(ec, 3)
	f.answer(func() []byte { return reply(3, flat(30)) })
	got, err := ec.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ec.Compact(t.Context(), got.Header.Revision); err != nil {
		t.Fatal(err)
	}
	if p, err := m.page(); err != nil || p.has(loads(stays, leaves)) != nil || p[connected("etcd")] != "0" {
		t.Errorf("while etcd is away: %v, %v", p, err)
	}
	away.kill()
	etcd.start()
	within(t, promised, func() error {
		return m.right(merged(up, loads(stays), page{
			of(active, leaves.id):   "",
			of(active, 3):           "30",
			workers("answering"):    "2",
			workers("unregistered"): "1",
			of("llm_worker_up", 2):  "",
		}))
	})
	w.stop()
	m.Terminate()
}

func TestEtcdLosesItsLeader(t *testing.T) {
	t.Parallel()
	n := natsServer(t)
	n.start()
	members := etcdServers(t, 3)
	for _, e := range members {
		e.launch()
	}
	for _, e := range members {
		e.serves()
	}
	f := connect(t, []*server{n}, members)
	a, b := f.worker(1, 10), f.worker(2, 20)
	m := f.run()
	m.shows(merged(up, loads(a, b)))
	r := f.route(a, b)
	w := m.witnessed(always(loads(b)), countersOf(a, b), pairs(nil))
	for i := range uint64(pick(3, 10)) {
		leader := f.leader()
		leader.kill()
		f.register(f.ec, 100+i) // done when there is a leader again
		a.load.Store(100 + i)
		within(t, promised, func() error { return m.right(merged(up, loads(a, b), page{workers("silent"): fmt.Sprint(i + 1)})) })
		leader.start()
	}
	r.settle(m)
	w.stop()
	m.Terminate()
}

// leader is the member that leads.
func (f *lab) leader() (leader *server) {
	f.t.Helper()
	testutil.Until(f.t, func() error {
		for _, e := range f.etcd {
			ctx, cancel := context.WithTimeout(f.t.Context(), time.Second)
			status, err := f.ec.Status(ctx, e.url)
			cancel()
			if err != nil {
				return err
			}
			if status.Leader == status.Header.MemberId {
				leader = e
				return nil
			}
		}
		return errors.New("nobody leads")
	})
	return leader
}

func TestBothServersAreDownAtTheStart(t *testing.T) {
	t.Parallel()
	f := connect(t, []*server{natsServer(t)}, etcdServers(t, 1))
	m := f.run()
	down := page{connected("nats"): "0", connected("etcd"): "0", "dynamo_metrics_leader": "0"}
	throughout(t, pick(5*time.Second, time.Minute), func() error {
		p, err := m.page()
		if err == nil {
			err = p.has(down)
		}
		if status, _, _ := get(m.url + "/-/ready?strict=true"); err == nil && status != 503 {
			err = fmt.Errorf("GET /-/ready?strict=true: %d, want 503", status)
		}
		if n := p.count("worker_id"); err == nil && n > 0 {
			err = fmt.Errorf("%d series of workers", n)
		}
		return err
	})
	f.nats[0].start()
	f.etcd[0].start()
	within(t, promised, func() error { return m.right(up) })
	a := f.worker(1, 10)
	m.shows(merged(up, loads(a)))
	f.route(a).settle(m)
	for _, line := range []string{" WARN nats: ", " WARN etcd: "} {
		if n := len(m.Said(line)); n > 1 {
			t.Errorf("%q is said %d times, want once", line, n)
		}
	}
	m.Terminate()
}

func TestBothServersAreGoneAndComeBack(t *testing.T) {
	t.Parallel()
	f := newLab(t)
	a, b := f.worker(1, 10), f.worker(2, 20)
	m := f.run()
	m.shows(merged(up, loads(a, b)))
	r := f.route(a, b)
	m.until(func(p page) error {
		if p[of(isl, a.id)] == "" || p[of(isl, b.id)] == "" {
			return errors.New("no hits yet")
		}
		return nil
	})
	w := m.witnessed(always(loads(b)), countersOf(a, b), pairs(nil))
	f.nats[0].kill()
	f.etcd[0].kill()
	away := merged(loads(a, b), page{connected("nats"): "0", connected("etcd"): "0", workers("answering"): "2"})
	m.until(func(p page) error { return p.has(away) })
	const age = "llm_worker_load_age_seconds"
	gone, last := pick(10*time.Second, time.Minute), 0.0
	throughout(t, gone, func() error {
		p, err := m.page()
		if err == nil {
			err = p.has(away)
		}
		if now := p.number(of(age, a.id)); err == nil && now < last {
			err = fmt.Errorf("the load's age goes from %v to %v", last, now)
		} else {
			last = now
		}
		if status, text, _ := get(m.url + "/-/ready?strict=true"); err == nil && status != 503 {
			err = fmt.Errorf("GET /-/ready?strict=true: %d %s, want 503", status, text)
		}
		return err
	})
	if last < gone.Seconds()-1 {
		t.Errorf("after %v the load's age is %v s", gone, last)
	}
	a.load.Store(11)
	f.etcd[0].start()
	f.nats[0].start()
	within(t, promised, func() error {
		p, err := m.page()
		if old := p.number(of(age, b.id)); err == nil && old > 1 {
			err = fmt.Errorf("the load of worker 2 is %v s old", old)
		}
		if err != nil {
			return err
		}
		return m.right(merged(up, loads(a, b), page{workers("answering"): "2"}))
	})
	r.settle(m)
	w.stop()
	m.Terminate()
}
