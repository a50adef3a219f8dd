package monitor

import (
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor/monitortest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// TestSnapshotOfProblemsGolden has a fleet with these workers: a silent one, a malformed one, one
// whose registration is gone, one that has published nothing, one with two ranks, and a full one at
// which requests wait. At another endpoint the only worker has left.
func TestSnapshotOfProblemsGolden(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 0x11, 0x12, 0x13, 0x14, 0x15)
		h.registerPolled(prefill, 0x31)
		h.registerPublishing(generate, 0x21, 0x22)
		for rank := range uint32(2) {
			from := fleet.Origin{Endpoint: generate, Worker: 0x21, Rank: rank}
			h.fleet.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: u(uint64(300 + 100*rank))})
			h.fleet.RecordForwardPass(from, fleet.Pass{Counter: 1, Seconds: 0.02, Running: 3, Waiting: 1, QueuedTokens: 128})
		}
		h.setReplies(pollReply(generate, 0x11, 300, 0), pollReply(generate, 0x12, 400, 0), pollReply(generate, 0x13, 500, 1), pollReply(generate, 0x14, 350, 0), pollReply(generate, 0x15, 420, 0), pollReply(prefill, 0x31, 100, 0))
		h.ticks(30 * time.Second)
		h.fleet.RecordHit(0x11, 100, 40)
		h.fleet.RecordHit(0x15, 100, 90)
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 0x14})
		h.fleet.Deregister("", fleet.Instance{Endpoint: prefill, ID: 0x31})
		h.setReplies(pollReply(generate, 0x11, 310, 0), malformedReply(generate, 0x13), pollReply(generate, 0x14, 350, 0), pollReply(generate, 0x15, 970, 12))
		h.fleet.Stats.MissedEvents.Add(6)
		h.fleet.Diagnostics.AddGap(fleet.Gap{Publisher: 0x11, Kind: stats.LoadEvent, After: 88_213, Before: 88_220, At: time.Now()})
		h.fleet.Stats.AddDropped(stats.QueueFull, 1204)
		h.ticks(90 * time.Second)
		h.compareGolden("problems.json")
		r, _ := h.monitor.Render(h.monitor.historyClock.total)
		var s snapshotJSON
		monitortest.Decode(t, r.JSON, &s)
		testutil.Equal(t, "history for a client that has seen it", s.History, nil)
	})
}

func TestSnapshotOfStaticWorkersGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target{Component: "backend"}, 100, false)
		f.Stats.NATS.MarkUsed()
		f.Stats.NATS.SetConnected(true)
		f.Stats.RecordPoll(stats.PollOK, time.Millisecond)
		h := &harness{t: t, fleet: f, monitor: New(Options{Fleet: f, Namespaces: "dynamo", Version: "1.2.3", Limit: 100, Poll: time.Second, Servers: map[string]string{"nats": "nats://localhost:4222"}, Model: "ours"})}
		static := pollReply(generate, 0, 250, 0)
		static.Worker = fleet.WorkerID{Static: "HF2K7T3XQ0"}
		h.setReplies(static)
		h.ticks(2 * time.Minute)
		h.compareGolden("static.json")
		testutil.Equal(t, "problems", h.raised(), nil)
	})
}

func TestSnapshotOfEmptyFleetGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target(generate), 100, true)
		o := options(f)
		f.Stats.Etcd.SetConnected(false)
		m := New(o)
		h := &harness{t: t, fleet: f, monitor: m}
		testutil.Equal(t, "why, before the registry is read", h.snapshot().Looking.Why, "etcd is not connected")
		f.Stats.Etcd.SetConnected(true)
		f.Sync(fleet.Listing{})
		h.registerPolled(fleet.Endpoint{Component: "backend-v2", Name: "generate"}, 1, 2)
		h.registerPolled(fleet.Endpoint{Component: "frontend", Name: "http"}, 3)
		h.tick()
		h.compareGolden("empty.json")
	})
}

func TestSnapshotLeaderRole(t *testing.T) {
	inBubble(t, func(h *harness) {
		role := func(role, detail string) {
			t.Helper()
			h.tick()
			testutil.Equal(t, "leader", h.snapshot().Leader, struct{ Role, Detail string }{role, detail})
		}
		role("leader", "holds dynamo/components/metrics/instance")
		h.fleet.Stats.ActsAsLeader.Store(false)
		h.fleet.Stats.OtherLeader.Store(true)
		role("standby", "another program holds dynamo/components/metrics/instance")
		h.fleet.Stats.NoLease.Store(true)
		role("standby", "dynamo/components/metrics/instance was created manually, and has no lease")
		h.fleet.Stats.NoLease.Store(false)
		h.fleet.Stats.Etcd.SetConnected(false)
		role("standby", "the holder of dynamo/components/metrics/instance is not known")
		h.fleet.Stats.Etcd.SetConnected(true)
		h.fleet.Stats.OtherLeader.Store(false)
		role("standby", "the holder of dynamo/components/metrics/instance is not known") // the lock was not confirmed in time
		h.fleet.Stats.Leader.Store(true)
		role("standby", "holds dynamo/components/metrics/instance, and leads within 2 s, when no other program can lead any more")
	})
}

func TestProblemLeaderWithoutKnownLeader(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.fleet.Stats.ActsAsLeader.Store(false)
		for range 20 {
			h.tick()
		}
		for _, p := range h.snapshot().Problems {
			if p.Kind == "leader" {
				testutil.Equal(t, "detail", p.Detail, "This program cannot confirm that it holds dynamo/components/metrics/instance, and knows of no other holder, so it neither pushes nor publishes l2c events.")
				return
			}
		}
		t.Error("the problem leader is not raised")
	})
}

func TestSnapshotConnectedListsUsedSystems(t *testing.T) {
	inBubble(t, func(h *harness) {
		connected := func(want ...string) {
			t.Helper()
			h.tick()
			var got []string
			s := h.snapshot()
			for _, name := range []string{"nats", "etcd", "file", "zmq"} {
				if c, ok := s.Connected[name]; ok {
					got = append(got, name+" "+ifElse(c.On, "on", "off")+": "+c.Detail)
				}
			}
			testutil.Equal(t, "connected", got, want)
		}
		const etcd = "etcd on: http://10.0.3.9:2379"
		connected("nats on: nats://10.0.3.7:4222", etcd)
		h.registerPublishing(generate, 1)
		s := &h.fleet.Stats
		s.ZMQ.MarkUsed()
		s.ZMQ.SetConnected(true)
		s.Publishers.Store(3)
		s.PublishersUp.Store(3)
		s.NATS.SetConnected(false) // NATS has a default address, and no worker uses it
		connected(etcd, "zmq on: all publishers")
		s.PublishersUp.Store(2)
		connected(etcd, "zmq off: 2 of 3 publishers")
		h.registerPolled(generate, 2)
		connected("nats off: nats://10.0.3.7:4222", etcd, "zmq off: 2 of 3 publishers")
	})
}
