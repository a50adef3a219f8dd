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

// recoveryTime is the time after the return of the servers within which the program must
// show everything correctly.
const recoveryTime = 2 * time.Second

// ready are the samples of a program that is connected and leads.
var ready = samples{connectedSeries("nats"): "1", connectedSeries("etcd"): "1", "dynamo_metrics_leader": "1"}

func TestOutageNATSKilledTwentyTimesUnderLoad(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	const mocks = 10
	process.Start(t, f.env(), filepath.Join(bin, "mock_worker"), "--workers", fmt.Sprint(mocks), "--correlated", "--event-interval", "0.02",
		"--release", "0.5.1")
	m := f.startMetrics()
	all := samples{workersSeries("answering"): fmt.Sprint(mocks + 2), workersSeries("silent"): "0"}
	m.waitForSamples(merged(ready, all, samplesOf(a, b)))
	r := f.startRouter(a, b)
	// The mock workers' events have any number of blocks.
	w := m.startSampler(always(samplesOf(b)), always(all), monotonicCounters(a, b), pairedHits(func(s string) bool { return s != workerSeries(isl, a.id) && s != workerSeries(isl, b.id) }))
	for i := range 20 {
		f.nats[0].kill()
		m.waitFor(func(p samples) error { return p.match(samples{connectedSeries("nats"): "0"}) })
		// The longer the server is down, the longer are the pauses between attempts to
		// connect.
		checkThroughout(t, time.Duration(i%4)*500*time.Millisecond, func() error { return m.matchUnready(merged(samplesOf(b), samples{connectedSeries("nats"): "0"})) })
		before, err := m.scrape()
		if err != nil {
			t.Fatal(err)
		}
		a.load.Store(uint64(100 + i))
		f.nats[0].start()
		checkWithin(t, recoveryTime, func() error {
			p, err := m.scrape()
			if err == nil && p.number(workerSeries(isl, a.id)) <= before.number(workerSeries(isl, a.id)) {
				err = errors.New("no hit is counted")
			}
			if err != nil {
				return err
			}
			return m.matchReady(merged(ready, all, samplesOf(a, b)))
		})
	}
	r.stopAndCheck(m)
	w.stop()
	if n := len(m.LinesWith("Lost the connection to NATS")); n != 20 {
		t.Errorf("%d losses are logged, want 20", n)
	}
	m.Terminate()
}

// TestOutageNATSReturnsBeforeTheNextPoll has a poll interval that is longer than the time
// within which the values must return.
func TestOutageNATSReturnsBeforeTheNextPoll(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	f.interval = "60"
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	m := f.startMetrics()
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	w := m.startSampler(always(samplesOf(b)), monotonicCounters(a, b))
	for i := range shortOr(3, 20) {
		f.nats[0].kill()
		m.waitFor(func(p samples) error { return p.match(samples{connectedSeries("nats"): "0"}) })
		a.load.Store(uint64(100 + i))
		f.nats[0].start()
		checkWithin(t, recoveryTime, func() error { return m.matchReady(merged(ready, samplesOf(a, b))) })
	}
	w.stop()
	m.Terminate()
}

func TestOutageNATSClusterLosesOurNode(t *testing.T) {
	t.Parallel()
	nodes, etcd := natsCluster(t), etcdServers(t, 1)
	etcd[0].start()
	f := connect(t, nodes[:], etcd)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	m := f.startMetrics()
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	r := f.startRouter(a, b)
	w := m.startSampler(always(samplesOf(b)), monotonicCounters(a, b), pairedHits(nil))
	for i := range shortOr(3, 10) {
		at := connectedServer(m)
		node := nodes[slices.IndexFunc(nodes[:], func(n *server) bool { return n.url == at })]
		a.load.Store(uint64(100 + i))
		node.kill()
		checkWithin(t, recoveryTime, func() error {
			if now := connectedServer(m); now == at {
				return errors.New("it is connected to the killed node")
			}
			return m.matchReady(merged(ready, samplesOf(a, b)))
		})
		node.start()
		m.waitForSamples(merged(ready, samplesOf(a, b)))
	}
	r.stopAndCheck(m)
	w.stop()
	m.Terminate()
}

// connectedServer returns the NATS server that the program has logged last.
func connectedServer(m *program) string {
	logged := m.LinesWith("Connected to NATS server=")
	_, url, _ := strings.Cut(logged[len(logged)-1], "server=")
	return strings.Fields(url)[0]
}

func TestOutageEtcdKilled(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	m := f.startMetrics()
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	r := f.startRouter(a, b)
	w := m.startSampler(always(samplesOf(b)), monotonicCounters(a, b), pairedHits(nil))
	for i := range shortOr(3, 10) {
		f.etcd[0].kill()
		m.waitFor(func(p samples) error { return p.match(samples{connectedSeries("etcd"): "0"}) })
		a.load.Store(uint64(100 + i))
		m.waitFor(func(p samples) error { return p.match(samplesOf(a, b)) }) // known workers are still polled
		if err := m.matchUnready(merged(samplesOf(a, b), samples{connectedSeries("etcd"): "0"})); err != nil {
			t.Error(err)
		}
		f.etcd[0].start()
		checkWithin(t, recoveryTime, func() error { return m.matchReady(merged(ready, samplesOf(a, b))) })
	}
	r.stopAndCheck(m)
	w.stop()
	m.Terminate()
}

// TestOutageEtcdCompactedMeanwhile changes keys during an outage, and compacts the history
// of the changes.
func TestOutageEtcdCompactedMeanwhile(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	stays, leaves := f.startWorker(1, 10), f.startWorker(2, 20)
	m := f.startMetrics()
	m.waitForSamples(merged(ready, samplesOf(stays, leaves)))
	w := m.startSampler(always(samplesOf(stays)), monotonicCounters(stays), pairedHits(nil))
	etcd := f.etcd[0]
	etcd.kill()
	m.waitFor(func(p samples) error { return p.match(samples{connectedSeries("etcd"): "0"}) })

	away := etcd.movedAway()
	away.start()
	ec := devstacktest.EtcdClient(t, away.url)
	f.deregister(ec, leaves.id)
	f.register(ec, 3)
	f.answerPolls(func() []byte { return statsReply(3, flatLoad(30)) })
	got, err := ec.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ec.Compact(t.Context(), got.Header.Revision); err != nil {
		t.Fatal(err)
	}
	if p, err := m.scrape(); err != nil || p.match(samplesOf(stays, leaves)) != nil || p[connectedSeries("etcd")] != "0" {
		t.Errorf("while etcd is down: %v, %v", p, err)
	}
	away.kill()
	etcd.start()
	checkWithin(t, recoveryTime, func() error {
		return m.matchReady(merged(ready, samplesOf(stays), samples{
			workerSeries(active, leaves.id):  "",
			workerSeries(active, 3):          "30",
			workersSeries("answering"):       "2",
			workersSeries("unregistered"):    "1",
			workerSeries("llm_worker_up", 2): "",
		}))
	})
	w.stop()
	m.Terminate()
}

func TestOutageEtcdLosesItsLeader(t *testing.T) {
	t.Parallel()
	n := natsServer(t)
	n.start()
	members := etcdServers(t, 3)
	for _, e := range members {
		e.launch()
	}
	for _, e := range members {
		e.waitUntilServing()
	}
	f := connect(t, []*server{n}, members)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	m := f.startMetrics()
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	r := f.startRouter(a, b)
	w := m.startSampler(always(samplesOf(b)), monotonicCounters(a, b), pairedHits(nil))
	for i := range uint64(shortOr(3, 10)) {
		leader := f.leader()
		leader.kill()
		f.register(f.ec, 100+i) // succeeds when there is a leader again
		a.load.Store(100 + i)
		checkWithin(t, recoveryTime, func() error {
			return m.matchReady(merged(ready, samplesOf(a, b), samples{workersSeries("silent"): fmt.Sprint(i + 1)}))
		})
		leader.start()
	}
	r.stopAndCheck(m)
	w.stop()
	m.Terminate()
}

// leader returns the member that is the leader.
func (f *environment) leader() (leader *server) {
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
		return errors.New("there is no leader")
	})
	return leader
}

func TestOutageBothServersDownAtStart(t *testing.T) {
	t.Parallel()
	f := connect(t, []*server{natsServer(t)}, etcdServers(t, 1))
	m := f.startMetrics()
	down := samples{connectedSeries("nats"): "0", connectedSeries("etcd"): "0", "dynamo_metrics_leader": "0"}
	checkThroughout(t, shortOr(5*time.Second, time.Minute), func() error {
		p, err := m.scrape()
		if err == nil {
			err = p.match(down)
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
	checkWithin(t, recoveryTime, func() error { return m.matchReady(ready) })
	a := f.startWorker(1, 10)
	m.waitForSamples(merged(ready, samplesOf(a)))
	f.startRouter(a).stopAndCheck(m)
	for _, line := range []string{" WARN nats: ", " WARN etcd: "} {
		if n := len(m.LinesWith(line)); n > 1 {
			t.Errorf("%q is logged %d times, want once", line, n)
		}
	}
	m.Terminate()
}

func TestOutageBothServersReturn(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	m := f.startMetrics()
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	r := f.startRouter(a, b)
	m.waitFor(func(p samples) error {
		if p[workerSeries(isl, a.id)] == "" || p[workerSeries(isl, b.id)] == "" {
			return errors.New("no hits yet")
		}
		return nil
	})
	w := m.startSampler(always(samplesOf(b)), monotonicCounters(a, b), pairedHits(nil))
	f.nats[0].kill()
	f.etcd[0].kill()
	away := merged(samplesOf(a, b), samples{connectedSeries("nats"): "0", connectedSeries("etcd"): "0", workersSeries("answering"): "2"})
	m.waitFor(func(p samples) error { return p.match(away) })
	const age = "llm_worker_load_age_seconds"
	gone, last := shortOr(10*time.Second, time.Minute), 0.0
	checkThroughout(t, gone, func() error {
		p, err := m.scrape()
		if err == nil {
			err = p.match(away)
		}
		if now := p.number(workerSeries(age, a.id)); err == nil && now < last {
			err = fmt.Errorf("the load's age changes from %v to %v", last, now)
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
	checkWithin(t, recoveryTime, func() error {
		p, err := m.scrape()
		if old := p.number(workerSeries(age, b.id)); err == nil && old > 1 {
			err = fmt.Errorf("the load of worker 2 is %v s old", old)
		}
		if err != nil {
			return err
		}
		return m.matchReady(merged(ready, samplesOf(a, b), samples{workersSeries("answering"): "2"}))
	})
	r.stopAndCheck(m)
	w.stop()
	m.Terminate()
}
