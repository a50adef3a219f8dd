package monitor

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// TestSnapshotOfProblemsGolden has a worker that has fallen silent, one that cannot
// be read, one whose key is gone, one that has published nothing, two ranks, one that
// is full while requests wait there, and an endpoint whose only worker has left.
func TestSnapshotOfProblemsGolden(t *testing.T) {
	inBubble(t, func(l *harness) {
		l.registerPolled(generate, 0x11, 0x12, 0x13, 0x14, 0x15)
		l.registerPolled(prefill, 0x31)
		l.registerPublishing(generate, 0x21, 0x22)
		for rank := range uint32(2) {
			from := fleet.Origin{Endpoint: generate, Worker: 0x21, Rank: rank}
			l.fleet.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: u(uint64(300 + 100*rank))})
			l.fleet.RecordForwardPass(from, fleet.Pass{Counter: 1, Seconds: 0.02, Running: 3, Waiting: 1, QueuedTokens: 128})
		}
		l.setReplies(pollReply(generate, 0x11, 300, 0), pollReply(generate, 0x12, 400, 0), pollReply(generate, 0x13, 500, 1), pollReply(generate, 0x14, 350, 0), pollReply(generate, 0x15, 420, 0), pollReply(prefill, 0x31, 100, 0))
		l.ticks(30 * time.Second)
		l.fleet.RecordHit(0x11, 100, 40)
		l.fleet.RecordHit(0x15, 100, 90)
		l.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 0x14})
		l.fleet.Deregister("", fleet.Instance{Endpoint: prefill, ID: 0x31})
		l.setReplies(pollReply(generate, 0x11, 310, 0), malformedReply(generate, 0x13), pollReply(generate, 0x14, 350, 0), pollReply(generate, 0x15, 970, 12))
		l.fleet.Stats.MissedEvents.Add(6)
		l.fleet.Diagnostics.AddGap(fleet.Gap{Publisher: 0x11, Kind: stats.LoadEvent, After: 88_213, Before: 88_220, At: time.Now()})
		l.fleet.Stats.AddDropped(stats.QueueFull, 1204)
		l.ticks(90 * time.Second)
		l.compareGolden("trouble.json")
		e, _ := l.monitor.latestEvent(l.monitor.historyClock.total)
		var s snapshotJSON
		decode(t, e.json(), &s)
		testutil.Equal(t, "history of one who has seen it", s.History, nil)
	})
}

func TestSnapshotOfStaticWorkersGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target{Component: "backend"}, 100, false)
		f.Stats.NATS.MarkUsed()
		f.Stats.NATS.SetConnected(true)
		f.Stats.RecordPoll(stats.PollOK, time.Millisecond)
		l := &harness{t: t, fleet: f, monitor: New(Options{Fleet: f, Namespaces: "dynamo", Version: "1.2.3", Limit: 100, Poll: time.Second, Servers: map[string]string{"nats": "nats://localhost:4222"}, Model: "ours"})}
		static := pollReply(generate, 0, 250, 0)
		static.Worker = fleet.WorkerID{Static: "HF2K7T3XQ0"}
		l.setReplies(static)
		l.ticks(2 * time.Minute)
		l.compareGolden("static.json")
		testutil.Equal(t, "problems", l.raised(), nil)
	})
}

func TestSnapshotOfEmptyFleetGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target(generate), 100, true)
		o := options(f)
		f.Stats.Etcd.SetConnected(false)
		g := New(o)
		l := &harness{t: t, fleet: f, monitor: g}
		testutil.Equal(t, "why, while it is not known who is registered", l.snapshot().Looking.Why, "etcd is not connected")
		f.Stats.Etcd.SetConnected(true)
		f.Sync(fleet.Listing{})
		l.registerPolled(fleet.Endpoint{Component: "backend-v2", Name: "generate"}, 1, 2)
		l.registerPolled(fleet.Endpoint{Component: "frontend", Name: "http"}, 3)
		l.tick()
		l.compareGolden("empty.json")
	})
}

// TestSnapshotSurvivesExtremeNumbers to those of the others, and are JSON.
func TestSnapshotSurvivesExtremeNumbers(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		l.registerPolled(generate, 1, 2, 3, 4, 5)
		answers := []fleet.PollReply{pollReply(generate, 1, 500, 1)}
		for i, usage := range []float64{math.NaN(), math.Inf(1), -1} {
			r := pollReply(generate, uint64(2+i), 0, 0)
			r.Load = fleet.Load{CacheUsage: fleet.Some(usage), HitRate: fleet.Some(usage)}
			answers = append(answers, r)
		}
		largest := pollReply(generate, 5, 0, math.MaxUint64)
		largest.Load.KVActive, largest.Load.KVTotal, largest.Load.ActiveSlots = u(math.MaxUint64), u(math.MaxUint64), u(math.MaxUint64)
		l.setReplies(append(answers, largest)...)
		l.fleet.RecordHit(1, math.MaxUint64, math.MaxUint64)
		l.ticks(time.Minute)
		loadOpenAPI(t).check("Snapshot", l.request("GET", "/api/v1/fleet?history=true").Body.Bytes())
		loadOpenAPI(t).check("WorkerHistory", l.request("GET", "/worker?key=5").Body.Bytes())
		loadOpenAPI(t).check("Signals", l.request("GET", generateSignalsPath).Body.Bytes())
		s := l.snapshot()
		testutil.Equal(t, "mean load", formatOptional(s.Fleet.LoadMean), "0.75")
		testutil.Equal(t, "blocks", formatOptional(s.Workers[4].KVActive), "18446744073709551615")
		testutil.Equal(t, "hit rate", formatOptional(s.Fleet.HitRate), "1")
	})
}

func TestSnapshotLeaderRole(t *testing.T) {
	inBubble(t, func(l *harness) {
		role := func(role, detail string) {
			t.Helper()
			l.tick()
			testutil.Equal(t, "leader", l.snapshot().Leader, struct{ Role, Detail string }{role, detail})
		}
		role("leader", "holds dynamo/components/metrics/instance")
		l.fleet.Stats.ActsAsLeader.Store(false)
		l.fleet.Stats.OtherLeader.Store(true)
		role("standby", "another program holds dynamo/components/metrics/instance")
		l.fleet.Stats.NoLease.Store(true)
		role("standby", "dynamo/components/metrics/instance was put by hand, and hangs on no lease")
		l.fleet.Stats.NoLease.Store(false)
		l.fleet.Stats.Etcd.SetConnected(false)
		role("standby", "who holds dynamo/components/metrics/instance cannot be known now")
		l.fleet.Stats.Etcd.SetConnected(true)
		l.fleet.Stats.OtherLeader.Store(false)
		role("standby", "who holds dynamo/components/metrics/instance cannot be known now") // it is not confirmed in time
		l.fleet.Stats.Leader.Store(true)
		role("standby", "has taken dynamo/components/metrics/instance, and leads when no other program can any more: in 2 s at most")
	})
}

func TestProblemLeaderWithoutKnownLeader(t *testing.T) {
	inBubble(t, func(l *harness) {
		l.fleet.Stats.ActsAsLeader.Store(false)
		for range 20 {
			l.tick()
		}
		for _, p := range l.snapshot().Problems {
			if p.Kind == "leader" {
				testutil.Equal(t, "detail", p.Detail, "This program cannot have dynamo/components/metrics/instance confirmed, and knows of no other that holds it, so it neither pushes nor publishes l2c events.")
				return
			}
		}
		t.Error("there is no such problem")
	})
}

func TestSnapshotConnectedListsUsedSystems(t *testing.T) {
	inBubble(t, func(l *harness) {
		connected := func(want ...string) {
			t.Helper()
			l.tick()
			var got []string
			s := l.snapshot()
			for _, name := range []string{"nats", "etcd", "file", "zmq"} {
				if c, ok := s.Connected[name]; ok {
					got = append(got, name+" "+ifElse(c.On, "on", "off")+": "+c.Detail)
				}
			}
			testutil.Equal(t, "connected", got, want)
		}
		const etcd = "etcd on: http://10.0.3.9:2379"
		connected("nats on: nats://10.0.3.7:4222", etcd)
		l.registerPublishing(generate, 1)
		y := &l.fleet.Stats
		y.ZMQ.MarkUsed()
		y.ZMQ.SetConnected(true)
		y.Publishers.Store(3)
		y.PublishersUp.Store(3)
		y.NATS.SetConnected(false) // it has a default address, and nobody here needs it
		connected(etcd, "zmq on: every publisher")
		y.PublishersUp.Store(2)
		connected(etcd, "zmq off: 2 of 3 publishers")
		l.registerPolled(generate, 2)
		connected("nats off: nats://10.0.3.7:4222", etcd, "zmq off: 2 of 3 publishers")
	})
}
