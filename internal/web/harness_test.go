package web

import (
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/monitor"
	"dynamo-metrics/internal/monitor/monitortest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// generate is the endpoint of most workers in these tests, and prefill is the endpoint of others.
var (
	generate = fleettest.Generate
	prefill  = fleet.Endpoint{Component: "prefill", Name: "generate"}
)

var pollReply, malformedReply = fleettest.PollReply, fleettest.MalformedReply

type snapshotJSON = monitortest.Snapshot

func u(n uint64) fleet.Opt[uint64] { return fleet.Some(n) }

// monitorOptions returns the options of a monitor of the fleet, and marks the fleet as connected to
// NATS and etcd.
func monitorOptions(f *fleet.Fleet) monitor.Options {
	for _, c := range []*stats.ConnState{&f.Stats.NATS, &f.Stats.NATSServer, &f.Stats.Etcd} {
		c.MarkUsed()
		c.SetConnected(true)
	}
	f.Stats.ActsAsLeader.Store(true)
	f.Stats.RecordPoll(stats.PollOK, time.Millisecond)
	return monitor.Options{Fleet: f, Namespaces: "dynamo", Version: "1.2.3", Limit: 1 << 20, Poll: 2 * time.Second, Scrape: 5 * time.Second, ScrapeTimeout: 2 * time.Second,
		Servers:  map[string]string{"nats": "nats://10.0.3.7:4222", "etcd": "http://10.0.3.9:2379"},
		Registry: "etcd", Watches: []string{"v1/instances/dynamo/"}, Instance: "dynamo/components/metrics/instance", Mock: "mock_worker"}
}

// harness has a fleet, its monitor, and the handler that serves both, in a synctest bubble.
type harness struct {
	t       *testing.T
	fleet   *fleet.Fleet
	monitor *monitor.Monitor
	handler http.Handler

	replies []fleet.PollReply // the replies to each poll
}

// inBubble runs a test with a fleet that watches all endpoints and has no workers.
func inBubble(t *testing.T, test func(*harness)) {
	synctest.Test(t, func(t *testing.T) {
		h := &harness{t: t}
		h.use(fleet.New(fleet.Target{}, 10_000, true), nil)
		h.fleet.Sync(fleet.Listing{})
		h.monitor.Sample(time.Now())
		test(h)
	})
}

// use replaces the fleet, its monitor and the handler. change, if any, edits the options of the
// monitor.
func (h *harness) use(f *fleet.Fleet, change func(*monitor.Options)) {
	f.Advance(time.Now())
	o := monitorOptions(f)
	if change != nil {
		change(&o)
	}
	h.fleet, h.monitor = f, monitor.New(o)
	h.handler = Handler(Options{Fleet: f, Namespaces: o.Namespaces, Monitor: h.monitor, Metrics: exposition.NewMetrics(exposition.Collector{Fleet: f, Now: time.Now}),
		WorkerMetricsURL: func(t fleet.ScrapeTarget) string { return "http://" + t.Metrics + "/metrics" }, Log: slog.New(slog.DiscardHandler)})
}

// watchNamespaces replaces the fleet by one that watches these namespaces.
func (h *harness) watchNamespaces(namespaces wire.Namespaces) {
	var target fleet.Target
	if namespaces.IsPattern() {
		target.Namespace = string(namespaces)
	}
	f := fleet.New(target, 10_000, true)
	f.Sync(fleet.Listing{})
	h.use(f, func(o *monitor.Options) { o.Namespaces, o.Instance = namespaces, wire.LeaderKey(string(namespaces)) })
}

func (h *harness) registerPolled(e fleet.Endpoint, ids ...uint64) {
	fleettest.RegisterPolled(h.fleet, e, ids...)
}

func (h *harness) registerPublishing(e fleet.Endpoint, ids ...uint64) {
	fleettest.RegisterPublishing(h.fleet, e, ids...)
}

// setReplies sets the answers to each poll from now on.
func (h *harness) setReplies(replies ...fleet.PollReply) { h.replies = replies }

// tick lets a second pass, and then polls and samples once.
func (h *harness) tick() {
	fleettest.Tick(h.fleet, h.replies...)
	h.monitor.Sample(time.Now())
}

func (h *harness) ticks(d time.Duration) {
	for range d / time.Second {
		h.tick()
	}
}

func (h *harness) snapshot() (s snapshotJSON) {
	h.t.Helper()
	r, _ := h.monitor.Render(-1)
	monitortest.Decode(h.t, r.JSON, &s)
	return s
}

// problem returns the problem with this id, or an empty one if it is not raised.
func (h *harness) problem(id string) monitortest.Problem {
	h.t.Helper()
	for _, p := range h.snapshot().Problems {
		if p.ID == id {
			return p
		}
	}
	return monitortest.Problem{}
}
