package glance

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
	return Options{Fleet: f, Namespaces: "dynamo", Version: "1.2.3", Limit: 1 << 20, Poll: 2 * time.Second, Scrape: 5 * time.Second, PageIn: 2 * time.Second,
		Servers:  map[string]string{"nats": "nats://10.0.3.7:4222", "etcd": "http://10.0.3.9:2379"},
		Registry: "etcd", Watches: []string{"v1/instances/dynamo/"}, Instance: "dynamo/components/metrics/instance", Mock: "mock_worker"}
}

// lab is a fleet that is looked at, in the time of a bubble.
type lab struct {
	t *testing.T
	f *fleet.Fleet
	g *Glance

	answers []fleet.PollReply // of each poll
}

// inLab runs a test in a bubble, with a fleet that watches everything and in which
// nobody is registered.
func inLab(t *testing.T, test func(*lab)) { inLabOf(t, 10_000, test) }

// inLabOf is inLab with a fleet of so many workers at most.
func inLabOf(t *testing.T, most int, test func(*lab)) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target{}, most, true)
		f.Advance(time.Now())
		f.Sync(fleet.Listing{})
		test(&lab{t: t, f: f, g: New(options(f))})
	})
}

// watch has the lab watch these namespaces.
func (l *lab) watch(namespaces wire.Namespaces) {
	var all fleet.Target
	if namespaces.IsPattern() {
		all.Namespace = string(namespaces)
	}
	l.f = fleet.New(all, 10_000, true)
	l.f.Advance(time.Now())
	l.f.Sync(fleet.Listing{})
	o := options(l.f)
	o.Namespaces, o.Instance = namespaces, wire.LeaderKey(string(namespaces))
	l.g = New(o)
}

// register registers workers that are polled; publishing those that publish their loads.
func (l *lab) register(e fleet.Endpoint, ids ...uint64) {
	for _, id := range ids {
		l.f.Register("", fleet.Instance{Endpoint: e, ID: id}, fleet.Registration{NATS: true})
	}
}

func (l *lab) publishing(e fleet.Endpoint, ids ...uint64) {
	for _, id := range ids {
		in := fleet.Instance{Endpoint: e, ID: id}
		l.f.Register("", in, fleet.Registration{Publishes: true})
		l.f.SetCard("", in, fleet.Card{Model: "Qwen/Qwen3-8B", KVTotal: u(1000), MaxSeqs: u(64)})
	}
}

// load is an answer to a poll: so many blocks of a thousand, and so many requests wait.
func load(e fleet.Endpoint, id, blocks, waiting uint64) fleet.PollReply {
	return fleet.PollReply{Endpoint: e, Worker: fleet.WorkerID{Lease: id}, Service: "dynamo_" + e.Component, Load: fleet.Load{
		KVActive: u(blocks), KVTotal: u(1000), ActiveSlots: u(blocks / 20), TotalSlots: u(64), Waiting: u(waiting)}}
}

func broken(e fleet.Endpoint, id uint64) fleet.PollReply {
	return fleet.PollReply{Endpoint: e, Worker: fleet.WorkerID{Lease: id}, Service: "dynamo_" + e.Component, Outcome: fleet.Malformed}
}

// answer sets what is answered to each poll from now on.
func (l *lab) answer(answers ...fleet.PollReply) { l.answers = answers }

// second lets a second pass, in which there is a poll, and looks.
func (l *lab) second() {
	time.Sleep(time.Second)
	l.f.Advance(time.Now())
	l.f.BeginPoll()
	l.f.RecordPollReply(l.answers...)
	l.f.EndPoll(l.f.Stats.RegistryUp() && l.f.Stats.NATS.Up())
	l.g.Look(time.Now())
}

func (l *lab) pass(d time.Duration) {
	for range d / time.Second {
		l.second()
	}
}

// snapshot is everything that a snapshot has; what is absent is nil.
type snapshot struct {
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
		States                                                  states
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
		States                                                              states
		LoadMean, LoadStd, SlotsMean, SlotsStd, Imbalance, HitRate, Waiting *float64
	}
	Workers  []worker
	Problems []told
	LeftOut  *struct{ Endpoints, Workers, Problems int }
	History  *historyOf
	Looking  *looking
}

type states struct{ Answering, Silent, Unregistered, Malformed int }

type worker struct {
	Key, ID, Hex                                         string
	DP                                                   *int
	Namespace, Component, Endpoint, Source, Model, State string
	KVActive, KVTotal, SlotsActive, SlotsTotal, Waiting  *uint64
	KVUse, HitRate, HitRateTotal, Age                    *float64
}

type told struct {
	ID, Kind, Severity, Title, Detail, Check string
	Since                                    int64
	Workers                                  []string
}

type historyOf struct {
	Step                                                                                                                 int
	End                                                                                                                  int64
	LoadMean, LoadStd, LoadMin, LoadMax, Imbalance, HitRate, Waiting, Events, Answering, Silent, Unregistered, Malformed []*float64
}

type looking struct {
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

func (l *lab) snapshot() (s snapshot) {
	l.t.Helper()
	e, _ := l.g.newest(-1)
	decode(l.t, e.json(), &s)
	return s
}

// problem is the one of this id; the zero one if it is not raised.
func (l *lab) problem(id string) told {
	l.t.Helper()
	for _, p := range l.snapshot().Problems {
		if p.ID == id {
			return p
		}
	}
	return told{}
}

// raised are the ids of all problems.
func (l *lab) raised() (ids []string) {
	l.t.Helper()
	for _, p := range l.snapshot().Problems {
		ids = append(ids, p.ID)
	}
	slices.Sort(ids)
	return ids
}

// within lets time pass until the problem is raised, or is not any more, and fails the
// test if that takes another time than so many seconds.
func (l *lab) within(seconds int, id string, raised bool) {
	l.t.Helper()
	for n := 1; n <= seconds+5; n++ {
		l.second()
		if slices.Contains(l.raised(), id) == raised {
			if n != seconds {
				l.t.Errorf("%s is %s after %d s, want %d", id, either(raised, "raised", "withdrawn"), n, seconds)
			}
			return
		}
	}
	l.t.Errorf("%s is %s after %d s, want it otherwise: raised are %v", id, either(raised, "not raised", "raised"), seconds+5, l.raised())
}

// keeps lets time pass in which the problem must stay as it is.
func (l *lab) keeps(d time.Duration, id string, raised bool) {
	l.t.Helper()
	for n := range d / time.Second {
		l.second()
		if slices.Contains(l.raised(), id) != raised {
			l.t.Fatalf("%s is %s after %d s", id, either(raised, "withdrawn", "raised"), n+1)
		}
	}
}

// shown is a number that may be absent, for comparisons.
func shown[N any](p *N) string {
	if p == nil {
		return "–"
	}
	return fmt.Sprint(*p)
}
