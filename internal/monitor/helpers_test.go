package monitor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

var (
	generate = fleet.Endpoint{Component: "backend", Name: "generate"}
	prefill  = fleet.Endpoint{Component: "prefill", Name: "generate"}
)

func u(n uint64) fleet.Opt[uint64] { return fleet.Some(n) }

// options are those of a Glance at the fleet, which is connected to NATS and etcd.
func options(f *fleet.Fleet) Options {
	for _, l := range []*stats.ConnState{&f.Stats.NATS, &f.Stats.NATSServer, &f.Stats.Etcd} {
		l.MarkUsed()
		l.SetConnected(true)
	}
	f.Stats.ActsAsLeader.Store(true)
	f.Stats.RecordPoll(stats.PollOK, time.Millisecond)
	return Options{Fleet: f, Namespaces: "dynamo", Version: "1.2.3", Limit: 1 << 20, Poll: 2 * time.Second, Scrape: 5 * time.Second, ScrapeTimeout: 2 * time.Second,
		Servers:  map[string]string{"nats": "nats://10.0.3.7:4222", "etcd": "http://10.0.3.9:2379"},
		Registry: "etcd", Watches: []string{"v1/instances/dynamo/"}, Instance: "dynamo/components/metrics/instance", Mock: "mock_worker"}
}

// lab is a fleet that is looked at, in the time of a bubble.
type harness struct {
	t       *testing.T
	fleet   *fleet.Fleet
	monitor *Monitor

	replies []fleet.PollReply // of each poll
}

// inLab runs a test in a bubble, with a fleet that watches everything and in which
// nobody is registered.
func inBubble(t *testing.T, test func(*harness)) { inBubbleWithLimit(t, 10_000, test) }

// inLabOf is inLab with a fleet of so many workers at most.
func inBubbleWithLimit(t *testing.T, most int, test func(*harness)) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target{}, most, true)
		f.Advance(time.Now())
		f.Sync(fleet.Listing{})
		test(&harness{t: t, fleet: f, monitor: New(options(f))})
	})
}

// watch has the lab watch these namespaces.
func (l *harness) watchNamespaces(namespaces wire.Namespaces) {
	var all fleet.Target
	if namespaces.IsPattern() {
		all.Namespace = string(namespaces)
	}
	l.fleet = fleet.New(all, 10_000, true)
	l.fleet.Advance(time.Now())
	l.fleet.Sync(fleet.Listing{})
	o := options(l.fleet)
	o.Namespaces, o.Instance = namespaces, wire.LeaderKey(string(namespaces))
	l.monitor = New(o)
}

// register registers workers that are polled; publishing those that publish their loads.
func (l *harness) registerPolled(e fleet.Endpoint, ids ...uint64) {
	for _, id := range ids {
		l.fleet.Register("", fleet.Instance{Endpoint: e, ID: id}, fleet.Registration{NATS: true})
	}
}

func (l *harness) registerPublishing(e fleet.Endpoint, ids ...uint64) {
	for _, id := range ids {
		in := fleet.Instance{Endpoint: e, ID: id}
		l.fleet.Register("", in, fleet.Registration{Publishes: true})
		l.fleet.SetCard("", in, fleet.Card{Model: "Qwen/Qwen3-8B", KVTotal: u(1000), MaxSeqs: u(64)})
	}
}

// load is an answer to a poll: so many blocks of a thousand, and so many requests wait.
func pollReply(e fleet.Endpoint, id, blocks, waiting uint64) fleet.PollReply {
	return fleet.PollReply{Endpoint: e, Worker: fleet.WorkerID{Lease: id}, Service: "dynamo_" + e.Component, Load: fleet.Load{
		KVActive: u(blocks), KVTotal: u(1000), ActiveSlots: u(blocks / 20), TotalSlots: u(64), Waiting: u(waiting)}}
}

func malformedReply(e fleet.Endpoint, id uint64) fleet.PollReply {
	return fleet.PollReply{Endpoint: e, Worker: fleet.WorkerID{Lease: id}, Service: "dynamo_" + e.Component, Outcome: fleet.Malformed}
}

// answer sets what is answered to each poll from now on.
func (l *harness) setReplies(answers ...fleet.PollReply) { l.replies = answers }

// second lets a second pass, in which there is a poll, and looks.
func (l *harness) tick() {
	time.Sleep(time.Second)
	l.fleet.Advance(time.Now())
	l.fleet.BeginPoll()
	l.fleet.RecordPollReply(l.replies...)
	l.fleet.EndPoll(l.fleet.Stats.RegistryUp() && l.fleet.Stats.NATS.Up())
	l.monitor.Sample(time.Now())
}

func (l *harness) ticks(d time.Duration) {
	for range d / time.Second {
		l.tick()
	}
}

// snapshot is everything that a snapshot has; what is absent is nil.
type snapshotJSON struct {
	Namespace string
	Now       int64
	Interval  float64
	Version   string
	Connected map[string]struct {
		On, Refused, Lost bool
		Detail, Why       string
	}
	Leader struct{ Role, Detail string }
	Fleet  struct {
		States                                                  statesJSON
		LoadMean, LoadStd, LoadMin, LoadMax                     *float64
		BlocksMean, BlocksStd, Imbalance, HitRate, HitRateTotal *float64
		Waiting                                                 *float64
		WaitingWorkers, WaitingReported                         *int
		EventsPerSecond                                         float64
		Gaps, Drops                                             int
	}
	Endpoints []struct {
		Namespace, Component, Endpoint                                      string
		Workers                                                             int
		States                                                              statesJSON
		LoadMean, LoadStd, SlotsMean, SlotsStd, Imbalance, HitRate, Waiting *float64
	}
	Workers  []workerJSON
	Problems []problemJSON
	LeftOut  *struct{ Endpoints, Workers, Problems int }
	History  *historyJSON
	Looking  *emptyStateJSON
}

type statesJSON struct{ Answering, Silent, Unregistered, Malformed int }

type workerJSON struct {
	Key, ID, Hex                                         string
	DP                                                   *int
	Namespace, Component, Endpoint, Source, Model, State string
	KVActive, KVTotal, SlotsActive, SlotsTotal, Waiting  *uint64
	KVUse, HitRate, HitRateTotal, Age                    *float64
}

type problemJSON struct {
	ID, Kind, Severity, Title, Detail, Check string
	Since                                    int64
	Workers                                  []string
}

type historyJSON struct {
	Step                                                                                                                 int
	End                                                                                                                  int64
	LoadMean, LoadStd, LoadMin, LoadMax, Imbalance, HitRate, Waiting, Events, Answering, Silent, Unregistered, Malformed []*float64
}

type emptyStateJSON struct {
	Namespace, Component, Endpoint, Why string
	Asks, Watches                       []string
	Sees                                []struct {
		Namespace, Component, Endpoint string
		Instances                      int
	}
	Nearest *struct{ Namespace, Component, Endpoint, Why, Command string }
	Mock    string
	Missing []struct {
		System, Detail, Why string
		Lost                bool
	}
}

// decode reads JSON that must have no field that v lacks.
func decode(t testing.TB, b []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
}

func (l *harness) snapshot() (s snapshotJSON) {
	l.t.Helper()
	e, _ := l.monitor.latestEvent(-1)
	decode(l.t, e.json(), &s)
	return s
}

// problem is the one of this id; the zero one if it is not raised.
func (l *harness) problem(id string) problemJSON {
	l.t.Helper()
	for _, p := range l.snapshot().Problems {
		if p.ID == id {
			return p
		}
	}
	return problemJSON{}
}

// raised are the ids of all problems.
func (l *harness) raised() (ids []string) {
	l.t.Helper()
	for _, p := range l.snapshot().Problems {
		ids = append(ids, p.ID)
	}
	slices.Sort(ids)
	return ids
}

// within lets time pass until the problem is raised, or is not any more, and fails the
// test if that takes another time than so many seconds.
func (l *harness) expectWithin(seconds int, id string, raised bool) {
	l.t.Helper()
	for n := 1; n <= seconds+5; n++ {
		l.tick()
		if slices.Contains(l.raised(), id) == raised {
			if n != seconds {
				l.t.Errorf("%s is %s after %d s, want %d", id, ifElse(raised, "raised", "withdrawn"), n, seconds)
			}
			return
		}
	}
	l.t.Errorf("%s is %s after %d s, want it otherwise: raised are %v", id, ifElse(raised, "not raised", "raised"), seconds+5, l.raised())
}

// keeps lets time pass in which the problem must stay as it is.
func (l *harness) expectStays(d time.Duration, id string, raised bool) {
	l.t.Helper()
	for n := range d / time.Second {
		l.tick()
		if slices.Contains(l.raised(), id) != raised {
			l.t.Fatalf("%s is %s after %d s", id, ifElse(raised, "withdrawn", "raised"), n+1)
		}
	}
}

// shown is a number that may be absent, for comparisons.
func formatOptional[N any](p *N) string {
	if p == nil {
		return "–"
	}
	return fmt.Sprint(*p)
}
