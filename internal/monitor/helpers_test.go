package monitor

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/monitor/monitortest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// Short names for what most tests need.
var (
	pollReply, malformedReply = fleettest.PollReply, fleettest.MalformedReply

	generate = fleet.Endpoint{Component: "backend", Name: "generate"}
	prefill  = fleet.Endpoint{Component: "prefill", Name: "generate"}
)

func u(n uint64) fleet.Opt[uint64] { return fleet.Some(n) }

// options returns the options of a Monitor of the fleet, which is connected to NATS and etcd.
func options(f *fleet.Fleet) Options {
	for _, c := range []*stats.ConnState{&f.Stats.NATS, &f.Stats.NATSServer, &f.Stats.Etcd} {
		c.MarkUsed()
		c.SetConnected(true)
	}
	f.Stats.ActsAsLeader.Store(true)
	f.Stats.RecordPoll(stats.PollOK, time.Millisecond)
	return Options{Fleet: f, Namespaces: "dynamo", Version: "1.2.3", Limit: 1 << 20, Poll: 2 * time.Second, Scrape: 5 * time.Second, ScrapeTimeout: 2 * time.Second,
		Servers:  map[string]string{"nats": "nats://10.0.3.7:4222", "etcd": "http://10.0.3.9:2379"},
		Registry: "etcd", Watches: []string{"v1/instances/dynamo/"}, Instance: "dynamo/components/metrics/instance", Mock: "mock_worker"}
}

// harness is a fleet with a Monitor, in a synctest bubble.
type harness struct {
	t       *testing.T
	fleet   *fleet.Fleet
	monitor *Monitor

	replies []fleet.PollReply // the replies to each poll
}

// inBubble runs a test in a bubble, with a fleet that watches everything and has no workers.
func inBubble(t *testing.T, test func(*harness)) { inBubbleWithLimit(t, 10_000, test) }

// inBubbleWithLimit is like inBubble, with a bound on tracked workers.
func inBubbleWithLimit(t *testing.T, most int, test func(*harness)) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target{}, most, true)
		f.Advance(time.Now())
		f.Sync(fleet.Listing{})
		test(&harness{t: t, fleet: f, monitor: New(options(f))})
	})
}

// watchNamespaces replaces the fleet and the monitor by ones that watch these namespaces.
func (h *harness) watchNamespaces(namespaces wire.Namespaces) {
	var all fleet.Target
	if namespaces.IsPattern() {
		all.Namespace = string(namespaces)
	}
	h.fleet = fleet.New(all, 10_000, true)
	h.fleet.Advance(time.Now())
	h.fleet.Sync(fleet.Listing{})
	o := options(h.fleet)
	o.Namespaces, o.Instance = namespaces, wire.LeaderKey(string(namespaces))
	h.monitor = New(o)
}

// registerPolled registers workers that are polled.
func (h *harness) registerPolled(e fleet.Endpoint, ids ...uint64) {
	fleettest.RegisterPolled(h.fleet, e, ids...)
}

// registerPublishing registers workers that publish their loads.
func (h *harness) registerPublishing(e fleet.Endpoint, ids ...uint64) {
	fleettest.RegisterPublishing(h.fleet, e, ids...)
}

// setReplies sets the replies to all polls from now on.
func (h *harness) setReplies(answers ...fleet.PollReply) { h.replies = answers }

// tick lets a second pass with one poll, and takes a sample.
func (h *harness) tick() {
	fleettest.Tick(h.fleet, h.replies...)
	h.monitor.Sample(time.Now())
}

func (h *harness) ticks(d time.Duration) {
	for range d / time.Second {
		h.tick()
	}
}

// Short names for the JSON that a Monitor renders.
type (
	snapshotJSON = monitortest.Snapshot
	problemJSON  = monitortest.Problem
)

func (h *harness) snapshot() (s snapshotJSON) {
	h.t.Helper()
	r, _ := h.monitor.Render(-1)
	monitortest.Decode(h.t, r.JSON, &s)
	return s
}

// problem returns the problem with this id, or the zero value if it is not raised.
func (h *harness) problem(id string) problemJSON {
	h.t.Helper()
	for _, p := range h.snapshot().Problems {
		if p.ID == id {
			return p
		}
	}
	return problemJSON{}
}

// raised returns the ids of all problems.
func (h *harness) raised() (ids []string) {
	h.t.Helper()
	for _, p := range h.snapshot().Problems {
		ids = append(ids, p.ID)
	}
	slices.Sort(ids)
	return ids
}

// expectWithin lets time pass until the problem is raised, or withdrawn. The test fails unless
// that takes exactly this many seconds.
func (h *harness) expectWithin(seconds int, id string, raised bool) {
	h.t.Helper()
	for n := 1; n <= seconds+5; n++ {
		h.tick()
		if slices.Contains(h.raised(), id) == raised {
			if n != seconds {
				h.t.Errorf("%s is %s after %d s, want %d", id, ifElse(raised, "raised", "withdrawn"), n, seconds)
			}
			return
		}
	}
	h.t.Errorf("%s is still %s after %d s: the raised problems are %v", id, ifElse(raised, "not raised", "raised"), seconds+5, h.raised())
}

// expectStays lets time pass, in which the problem must stay raised, or not raised.
func (h *harness) expectStays(d time.Duration, id string, raised bool) {
	h.t.Helper()
	for n := range d / time.Second {
		h.tick()
		if slices.Contains(h.raised(), id) != raised {
			h.t.Fatalf("%s is %s after %d s", id, ifElse(raised, "withdrawn", "raised"), n+1)
		}
	}
}

// worker returns the JSON of the worker with this key.
func (h *harness) worker(key string) []byte {
	h.t.Helper()
	b, found := h.monitor.RenderWorker(key)
	if !found {
		h.t.Fatalf("there is no worker with the key %q", key)
	}
	return b
}

// renderedSize returns the size of a snapshot without history, in bytes.
func (h *harness) renderedSize() int {
	r, _ := h.monitor.Render(NoHistory)
	return len(r.JSON)
}

// staleSignals returns why the signals of backend/generate are stale; empty if they are not.
func (h *harness) staleSignals() string {
	_, stale := h.monitor.RenderSignals(h.monitor.options.Namespaces, generate)
	return stale
}
