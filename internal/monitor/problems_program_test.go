package monitor

import (
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// programProblems begin and end a problem of the program. Each has the seconds until it is raised
// and withdrawn.
var programProblems = map[string]struct {
	begin, end func(*harness)
	raised     int // seconds until it is raised
	withdrawn  int
	detail     string
}{
	"limit": {
		begin: func(h *harness) {
			for range 7 {
				h.fleet.Stats.CountRefused(stats.WorkerLimit)
			}
		},
		raised: 1, withdrawn: 301, detail: "In the last 15 min workers, replies or events were rejected 7 times. Since the start, by kind: worker: 7.",
	},
	"permission:nats": {
		begin: func(h *harness) {
			h.registerPolled(generate, 1)
			h.fleet.Stats.NATS.SetConnected(false)
			h.fleet.Diagnostics.SetSubjects([]fleet.Subject{
				{Name: "namespace.dynamo.kv-hit-rate", Required: true, Refused: true}, {Name: "namespace.dynamo.kv_metrics", Required: true},
				{Name: "dynamo.request_trace.v1", Refused: true},
			})
		},
		end: func(h *harness) {
			h.fleet.Diagnostics.SetSubjects(nil)
			h.fleet.Stats.NATS.SetConnected(true)
		},
		raised: 1, withdrawn: 3,
		detail: "nats://10.0.3.7:4222 does not let this program use namespace.dynamo.kv-hit-rate and dynamo.request_trace.v1: messages on these subjects are not received, or workers are not polled. Loads and hit rates are as old as that.",
	},
	"limit:publishers": {
		begin: func(h *harness) {
			h.fleet.Stats.ZMQ.MarkUsed()
			h.fleet.Stats.ZMQ.SetConnected(true)
			h.fleet.Stats.Publishers.Store(40_000)
			h.fleet.Stats.PublishersUp.Store(32_768)
			h.fleet.Stats.PublishersWaiting.Store(7232)
			h.fleet.Stats.CountRefused(stats.SubscriptionLimit)
		},
		end:    func(h *harness) { h.fleet.Stats.PublishersWaiting.Store(0) },
		raised: 1, withdrawn: 6,
		detail: "The limit of connections, or of connections to one host, is reached. The events of publishers that wait are lost.",
	},
	"drops": {
		begin:  func(h *harness) { h.fleet.Stats.AddDropped(stats.QueueFull, 3) },
		raised: 1, withdrawn: 301, detail: "The NATS client's queue was full in the last 15 min. Loads may be old, and hit rates lack the lost messages.",
	},
	"malformed:messages": {
		begin: func(h *harness) {
			h.fleet.Stats.CountRejected(stats.LoadEvent, stats.BadMsgpack)
			h.fleet.Stats.CountRejected(stats.CardKeys, stats.BadJSON)
			h.fleet.Stats.CountRejected(stats.StatsReply, stats.BadLoad) // a problem of its worker
			h.fleet.Stats.CountRejected(stats.LoadEvent, stats.Estimate) // not an error
		},
		raised: 1, withdrawn: 301, detail: "The count covers the last 15 min. Since the start, by kind and reason: load: 1 (msgpack), card: 1 (json).",
	},
	"nameless": {
		begin:  func(h *harness) { h.fleet.Stats.CountRejected(stats.ForwardPass, stats.NoWorker) },
		raised: 1, withdrawn: 301, detail: "In the last 15 min forward passes without a worker's id arrived 1 time, and could not be shown.",
	},
	"push": {
		begin: func(h *harness) {
			h.fleet.Stats.LastPush.Store(time.Now().Add(-time.Minute).UnixNano())
			h.fleet.Stats.PushError.Add(2)
		},
		end:    func(h *harness) { h.fleet.Stats.PushOK.Add(1) },
		raised: 1, withdrawn: 1, detail: "2 pushes to http://gateway:9091 have failed in a row. The last successful push was 1 min 1 s ago.",
	},
	"leader": {
		begin:  func(h *harness) { h.fleet.Stats.ActsAsLeader.Store(false); h.fleet.Stats.Etcd.SetConnected(false) },
		end:    func(h *harness) { h.fleet.Stats.Etcd.SetConnected(true); h.fleet.Stats.OtherLeader.Store(true) },
		raised: 16, withdrawn: 3, detail: "The holder of dynamo/components/metrics/instance is unknown while etcd is not connected, so this program neither pushes nor publishes l2c events.",
	},
	"connection:kubernetes": {
		begin: func(h *harness) {
			h.monitor.options.Servers["kubernetes"] = "https://10.96.0.1:443, namespace prod"
			h.fleet.Stats.Kubernetes.MarkUsed()
		},
		end:       func(h *harness) { h.fleet.Stats.Kubernetes.SetConnected(true) },
		raised:    4,
		withdrawn: 3, detail: "https://10.96.0.1:443, namespace prod: workers that join or leave are not noticed. The fleet is shown as it was last known.",
	},
	"planes": {
		begin: func(h *harness) {
			h.registerPolled(prefill, 1)
			h.fleet.Diagnostics.SetPlaneMismatches(map[string]string{"prefill": "workers on ZMQ, routers on NATS"})
		},
		end:    func(h *harness) { h.fleet.Diagnostics.SetPlaneMismatches(nil) },
		raised: 1, withdrawn: 11, detail: "prefill: workers on ZMQ, routers on NATS. Those routers do not receive KV events, and route requests as if nothing were cached.",
	},
	"connection:zmq": {
		begin: func(h *harness) {
			s := &h.fleet.Stats
			s.ZMQ.MarkUsed()
			s.ZMQ.SetConnected(true)
			s.Publishers.Store(320)
			s.PublishersUp.Store(319)
			h.fleet.Diagnostics.SetUnreachable(fleet.Channel{Address: "tcp://10.0.4.19:40113", Endpoint: generate, Topic: "kv_metrics", Plane: fleet.ZMQPlane}, time.Now())
		},
		end:    func(h *harness) { h.fleet.Stats.PublishersUp.Store(320) },
		raised: 46, withdrawn: 6, detail: "These are registered but cannot be reached: tcp://10.0.4.19:40113 of backend/generate. Their events are lost.",
	},
	"gaps": {
		begin: func(h *harness) {
			h.fleet.Stats.MissedEvents.Add(9)
			h.fleet.AddChannel("k", fleet.Channel{Publisher: 0xabc, Endpoint: generate, Address: "tcp://10.0.4.19:40113", Plane: fleet.ZMQPlane})
			h.fleet.Diagnostics.AddGap(fleet.Gap{Publisher: 0xabc, Kind: stats.ForwardPass, After: 88_213, Before: 88_223, At: time.Now()})
		},
		raised: 1, withdrawn: 301, detail: "The count covers the last 15 min. The latest: publisher abc of backend/generate tcp://10.0.4.19:40113 skipped from 88,213 to 88,223 (forward pass, 1 s ago).",
	},
}

func TestProblemOfProgramIsRaisedAndWithdrawn(t *testing.T) {
	for id, c := range programProblems {
		t.Run(id, func(t *testing.T) {
			inBubble(t, func(h *harness) {
				h.monitor.options.Gateway = "http://gateway:9091"
				h.ticks(10 * time.Second)
				testutil.Equal(t, "problems before", h.raised(), nil)
				c.begin(h)
				h.expectWithin(c.raised, id, true)
				testutil.Equal(t, "detail", h.problem(id).Detail, c.detail)
				if c.end != nil {
					c.end(h)
				}
				h.expectWithin(c.withdrawn, id, false)
			})
		})
	}
}

// TestProblemPermissionIsNotConnection checks that a missing permission is another problem than a
// lost connection, and has severity info if the subject is optional.
func TestProblemPermissionIsNotConnection(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1)
		h.ticks(10 * time.Second)
		subject := fleet.Subject{Name: "namespace.dynamo.forward-pass-metrics", Refused: true}
		h.fleet.Diagnostics.SetSubjects([]fleet.Subject{subject})
		h.tick()
		testutil.Equal(t, "severity of an optional subject", h.problem("permission:nats").Severity, "info")
		testutil.Equal(t, "detail of an optional subject", h.problem("permission:nats").Detail, "nats://10.0.3.7:4222 does not let this program use namespace.dynamo.forward-pass-metrics: "+
			"messages that not every fleet sends are not received, or l2c events are not published. Everything else works.")
		subject.Required = true
		h.fleet.Diagnostics.SetSubjects([]fleet.Subject{subject})
		h.fleet.Stats.NATS.SetConnected(false)
		h.expectStays(10*time.Second, "connection:nats", false)
		testutil.Equal(t, "severity of a required subject", h.problem("permission:nats").Severity, "bad")
		testutil.Equal(t, "signals", strings.Contains(h.staleSignals(), "NATS denies the permission for namespace.dynamo.forward-pass-metrics"), true)
		h.fleet.Diagnostics.SetSubjects(nil) // now the connection is lost
		h.expectWithin(4, "connection:nats", true)
		h.expectStays(time.Second, "permission:nats", false)
	})
}

// TestProblemOutageSumsLostTime checks the duration, because events that were published while a
// connection was lost cannot be counted.
func TestProblemOutageSumsLostTime(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1)
		s := &h.fleet.Stats
		h.ticks(10 * time.Second)
		s.NATSServer.SetConnected(false)
		h.expectStays(18*time.Second, "outage", false) // until it is restored there is another problem
		s.NATSServer.SetConnected(true)
		h.expectWithin(1, "outage", true)
		testutil.Equal(t, "title", h.problem("outage").Title, "No event could arrive for 18 s")
		testutil.Equal(t, "detail", h.problem("outage").Detail, "In the last 15 min the connection to NATS was lost. "+
			"Events that were published meanwhile never arrived and cannot be counted: hit rates lack them, and loads were as old as the outage.")
		h.expectStays(299*time.Second, "outage", true)
		h.expectWithin(2, "outage", false)

		s.NATSServer.SetConnected(false) // between two samples
		time.Sleep(200 * time.Millisecond)
		s.NATSServer.SetConnected(true)
		h.expectWithin(1, "outage", true)
		testutil.Equal(t, "title after two outages", h.problem("outage").Title, "No event could arrive for 18 s")
		h.ticks(15 * time.Minute)
		s.NATSServer.SetConnected(false)
		time.Sleep(200 * time.Millisecond)
		s.NATSServer.SetConnected(true)
		h.tick()
		testutil.Equal(t, "title after a short outage", h.problem("outage").Title, "No event could arrive for less than a second")

		s.ZMQ.MarkUsed()
		s.ZMQ.SetConnected(true)
		h.ticks(20 * time.Minute)
		s.ZMQ.SetConnected(false)
		h.ticks(2 * time.Minute)
		s.ZMQ.SetConnected(true)
		h.tick()
		testutil.Equal(t, "title after a ZMQ outage", h.problem("outage").Title, "No event could arrive for 2 min")
	})
}

func TestProblemOutageIgnoresUnusedConnection(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPublishing(generate, 1)
		h.fleet.Stats.ZMQ.MarkUsed() // their events use ZeroMQ
		h.fleet.AddChannel("k", fleet.Channel{Publisher: 1, Endpoint: generate, Address: "tcp://10.0.4.19:40113", Plane: fleet.ZMQPlane})
		h.ticks(10 * time.Second)
		h.fleet.Stats.ZMQ.SetConnected(true) // the first connection: no event was lost
		h.fleet.Stats.NATSServer.SetConnected(false)
		h.ticks(10 * time.Second)
		h.fleet.Stats.NATSServer.SetConnected(true)
		h.expectStays(10*time.Second, "outage", false)
		h.fleet.Stats.ZMQ.SetConnected(false) // the last publisher ends, and then its key is deleted
		h.ticks(2 * time.Second)
		h.fleet.Stats.ZMQ.SetIdle()
		h.expectStays(10*time.Second, "outage", false)
	})
}

// TestProblemOutageIgnoresGrantedPermission denies a permission while the connection is up, so that
// all other events arrive.
func TestProblemOutageIgnoresGrantedPermission(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.registerPolled(generate, 1)
		h.fleet.Stats.NATSServer.SetConnected(true)
		h.ticks(10 * time.Second)
		h.fleet.Diagnostics.SetSubjects([]fleet.Subject{{Name: "namespace.dynamo.kv-hit-rate", Required: true, Refused: true}})
		h.fleet.Stats.NATS.SetConnected(false)
		h.ticks(20 * time.Second)
		h.fleet.Diagnostics.SetSubjects(nil)
		h.fleet.Stats.NATS.SetConnected(true)
		h.tick()
		testutil.Equal(t, "title until it is withdrawn", h.problem("permission:nats").Title, "NATS denied a permission")
		h.expectStays(10*time.Second, "outage", false)
		testutil.Equal(t, "detail after it is withdrawn", h.problem("permission:nats").Detail, "")
	})
}

func TestProblemLeaderKeyWithoutLease(t *testing.T) {
	inBubble(t, func(h *harness) {
		h.fleet.Stats.ActsAsLeader.Store(false)
		h.fleet.Stats.NoLease.Store(true)
		h.expectWithin(16, "leader", true)
		testutil.Equal(t, "detail", h.problem("leader").Detail, "dynamo/components/metrics/instance has no lease: it was created manually, and nothing will ever delete it. "+
			"This program neither pushes nor publishes l2c events, and no other program can become the leader.")
		testutil.Equal(t, "check", h.problem("leader").Check, "if no program needs it, run: etcdctl del dynamo/components/metrics/instance")
		h.fleet.Stats.NoLease.Store(false)
		h.fleet.Stats.OtherLeader.Store(true)
		h.expectWithin(3, "leader", false)
	})
}

func TestProblemGapsSeverityDependsOnShare(t *testing.T) {
	inBubble(t, func(h *harness) {
		for range 100 {
			for range 10 {
				h.fleet.Stats.CountMessage(stats.LoadEvent)
			}
			h.tick()
		}
		h.fleet.Stats.MissedEvents.Add(5)
		h.tick()
		testutil.Equal(t, "severity", h.problem("gaps").Severity, "info")
		testutil.Equal(t, "gaps", h.snapshot().Fleet.Gaps, 5)
		h.fleet.Stats.MissedEvents.Add(50)
		h.tick()
		testutil.Equal(t, "severity with more gaps", h.problem("gaps").Severity, "warn")
		h.ticks(16 * time.Minute)
		testutil.Equal(t, "gaps a quarter of an hour later", h.snapshot().Fleet.Gaps, 0)
	})
}

func TestProblemWebConfigNotInForce(t *testing.T) {
	inBubble(t, func(h *harness) {
		t, configError := h.t, ""
		o := options(h.fleet)
		o.WebFile, o.WebError = "/etc/metrics/web.yml", func() string { return configError }
		h.monitor = New(o)
		h.expectStays(5*time.Second, "web_config", false)
		configError = "it no longer requires a password: restart the program if that is intended"
		h.tick()
		p := h.problem("web_config")
		testutil.Equal(t, "severity", p.Severity, "warn")
		testutil.Equal(t, "detail", p.Detail, "/etc/metrics/web.yml: it no longer requires a password: restart the program if that is intended. The configuration from before is still in force.")
		configError = ""
		h.tick()
		h.expectStays(5*time.Second, "web_config", false)
	})
}
