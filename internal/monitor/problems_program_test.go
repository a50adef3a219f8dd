package monitor

import (
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

func TestProblemOfProgramIsRaisedAndWithdrawn(t *testing.T) {
	const second, minutes = time.Second, 5 * time.Minute
	for id, c := range map[string]struct {
		begin, end func(*harness)
		raised     int // after so many seconds
		withdrawn  int
		detail     string
	}{
		"limit": {
			begin: func(l *harness) {
				for range 7 {
					l.fleet.Stats.CountRefused(stats.WorkerLimit)
				}
			},
			raised: 1, withdrawn: 301, detail: "In the last 15 min 7 of workers, answers and events were turned away. Since the start, by kind: worker: 7.",
		},
		"permission:nats": {
			begin: func(l *harness) {
				l.registerPolled(generate, 1)
				l.fleet.Stats.NATS.SetConnected(false)
				l.fleet.Diagnostics.SetSubjects([]fleet.Subject{
					{Name: "namespace.dynamo.kv-hit-rate", Required: true, Refused: true}, {Name: "namespace.dynamo.kv_metrics", Required: true},
					{Name: "dynamo.request_trace.v1", Refused: true},
				})
			},
			end: func(l *harness) {
				l.fleet.Diagnostics.SetSubjects(nil)
				l.fleet.Stats.NATS.SetConnected(true)
			},
			raised: 1, withdrawn: 3,
			detail: "nats://10.0.3.7:4222 does not let this program use namespace.dynamo.kv-hit-rate and dynamo.request_trace.v1: what comes there is not heard, or workers are not asked. Loads and hit rates are as old as that.",
		},
		"limit:publishers": {
			begin: func(l *harness) {
				l.fleet.Stats.ZMQ.MarkUsed()
				l.fleet.Stats.ZMQ.SetConnected(true)
				l.fleet.Stats.Publishers.Store(40_000)
				l.fleet.Stats.PublishersUp.Store(32_768)
				l.fleet.Stats.PublishersWaiting.Store(7232)
				l.fleet.Stats.CountRefused(stats.SubscriptionLimit)
			},
			end:    func(l *harness) { l.fleet.Stats.PublishersWaiting.Store(0) },
			raised: 1, withdrawn: 6,
			detail: "So many connections at once are not allowed, or so many to one host. Nothing is heard of those that wait, and their events are lost.",
		},
		"drops": {
			begin:  func(l *harness) { l.fleet.Stats.AddDropped(stats.QueueFull, 3) },
			raised: 1, withdrawn: 301, detail: "In the last 15 min, because the NATS client's queue was full: loads may be old, and hit rates lack what was lost.",
		},
		"malformed:messages": {
			begin: func(l *harness) {
				l.fleet.Stats.CountRejected(stats.LoadEvent, stats.BadMsgpack)
				l.fleet.Stats.CountRejected(stats.CardKeys, stats.BadJSON)
				l.fleet.Stats.CountRejected(stats.StatsReply, stats.BadLoad) // its worker's trouble
				l.fleet.Stats.CountRejected(stats.LoadEvent, stats.Estimate) // none
			},
			raised: 1, withdrawn: 301, detail: "In the last 15 min. Since the start, by kind and reason: load: 1 (msgpack), card: 1 (json).",
		},
		"nameless": {
			begin:  func(l *harness) { l.fleet.Stats.CountRejected(stats.ForwardPass, stats.NoWorker) },
			raised: 1, withdrawn: 301, detail: "1 of forward passes in the last 15 min named no worker, and could not be shown.",
		},
		"push": {
			begin: func(l *harness) {
				l.fleet.Stats.LastPush.Store(time.Now().Add(-time.Minute).UnixNano())
				l.fleet.Stats.PushError.Add(2)
			},
			end:    func(l *harness) { l.fleet.Stats.PushOK.Add(1) },
			raised: 1, withdrawn: 1, detail: "2 pushes to http://gateway:9091 have failed in a row. The last that succeeded was 1 min 1 s ago.",
		},
		"leader": {
			begin:  func(l *harness) { l.fleet.Stats.ActsAsLeader.Store(false); l.fleet.Stats.Etcd.SetConnected(false) },
			end:    func(l *harness) { l.fleet.Stats.Etcd.SetConnected(true); l.fleet.Stats.OtherLeader.Store(true) },
			raised: 16, withdrawn: 3, detail: "Who holds dynamo/components/metrics/instance cannot be known while etcd is away, so this program neither pushes nor publishes l2c events.",
		},
		"connection:kubernetes": {
			begin: func(l *harness) {
				l.monitor.options.Servers["kubernetes"] = "https://10.96.0.1:443, namespace prod"
				l.fleet.Stats.Kubernetes.MarkUsed()
			},
			end:       func(l *harness) { l.fleet.Stats.Kubernetes.SetConnected(true) },
			raised:    4,
			withdrawn: 3, detail: "https://10.96.0.1:443, namespace prod: who comes and goes is not noticed; the fleet is shown as it was known.",
		},
		"planes": {
			begin: func(l *harness) {
				l.registerPolled(prefill, 1)
				l.fleet.Diagnostics.SetPlaneMismatches(map[string]string{"prefill": "workers on ZMQ, routers on NATS"})
			},
			end:    func(l *harness) { l.fleet.Diagnostics.SetPlaneMismatches(nil) },
			raised: 1, withdrawn: 11, detail: "prefill: workers on ZMQ, routers on NATS. Those routers do not hear what is cached, and send requests as if nothing were.",
		},
		"connection:zmq": {
			begin: func(l *harness) {
				y := &l.fleet.Stats
				y.ZMQ.MarkUsed()
				y.ZMQ.SetConnected(true)
				y.Publishers.Store(320)
				y.PublishersUp.Store(319)
				l.fleet.Diagnostics.SetUnreachable(fleet.Channel{Address: "tcp://10.0.4.19:40113", Endpoint: generate, Topic: "kv_metrics", Plane: fleet.ZMQPlane}, time.Now())
			},
			end:    func(l *harness) { l.fleet.Stats.PublishersUp.Store(320) },
			raised: 46, withdrawn: 6, detail: "These are announced and do not answer: tcp://10.0.4.19:40113 of backend/generate. Their events are lost.",
		},
		"gaps": {
			begin: func(l *harness) {
				l.fleet.Stats.MissedEvents.Add(9)
				l.fleet.AddChannel("k", fleet.Channel{Publisher: 0xabc, Endpoint: generate, Address: "tcp://10.0.4.19:40113", Plane: fleet.ZMQPlane})
				l.fleet.Diagnostics.AddGap(fleet.Gap{Publisher: 0xabc, Kind: stats.ForwardPass, After: 88_213, Before: 88_223, At: time.Now()})
			},
			raised: 1, withdrawn: 301, detail: "In the last 15 min. The last: publisher abc of backend/generate tcp://10.0.4.19:40113 skipped from 88,213 to 88,223 (forward pass, 1 s ago).",
		},
	} {
		t.Run(id, func(t *testing.T) {
			inBubble(t, func(l *harness) {
				l.monitor.options.Gateway = "http://gateway:9091"
				l.ticks(10 * second)
				testutil.Equal(t, "problems before", l.raised(), nil)
				c.begin(l)
				l.expectWithin(c.raised, id, true)
				testutil.Equal(t, "detail", l.problem(id).Detail, c.detail)
				if c.end != nil {
					c.end(l)
				}
				l.expectWithin(c.withdrawn, id, false)
			})
		})
	}
}

// TestProblemPermissionIsNotConnection: it is said as what it is, and is no fault
// where it is for what not every fleet sends.
func TestProblemPermissionIsNotConnection(t *testing.T) {
	inBubble(t, func(l *harness) {
		t := l.t
		l.registerPolled(generate, 1)
		l.ticks(10 * time.Second)
		subject := fleet.Subject{Name: "namespace.dynamo.forward-pass-metrics", Refused: true}
		l.fleet.Diagnostics.SetSubjects([]fleet.Subject{subject})
		l.tick()
		testutil.Equal(t, "severity of an optional one", l.problem("permission:nats").Severity, "info")
		testutil.Equal(t, "detail of it", l.problem("permission:nats").Detail, "nats://10.0.3.7:4222 does not let this program use namespace.dynamo.forward-pass-metrics: "+
			"what not every fleet sends is not heard, or l2c events are not published. All else goes on.")
		subject.Required = true
		l.fleet.Diagnostics.SetSubjects([]fleet.Subject{subject})
		l.fleet.Stats.NATS.SetConnected(false)
		l.expectStays(10*time.Second, "connection:nats", false)
		testutil.Equal(t, "severity of a required one", l.problem("permission:nats").Severity, "bad")
		testutil.Equal(t, "signals", strings.Contains(l.requestError("GET", generateSignalsPath, 503), "NATS denies the permission for namespace.dynamo.forward-pass-metrics"), true)
		l.fleet.Diagnostics.SetSubjects(nil) // now it is lost
		l.expectWithin(4, "connection:nats", true)
		l.expectStays(time.Second, "permission:nats", false)
	})
}

// TestProblemOutageSumsLostTime: of what was published while a connection was lost nothing can be
// counted but the time.
func TestProblemOutageSumsLostTime(t *testing.T) {
	inBubble(t, func(l *harness) {
		l.registerPolled(generate, 1)
		y := &l.fleet.Stats
		l.ticks(10 * time.Second)
		y.NATSServer.SetConnected(false)
		l.expectStays(18*time.Second, "outage", false) // while it is away that is said
		y.NATSServer.SetConnected(true)
		l.expectWithin(1, "outage", true)
		testutil.Equal(t, "title", l.problem("outage").Title, "For 18 s no event could arrive")
		testutil.Equal(t, "detail", l.problem("outage").Detail, "In the last 15 min the connection to NATS was lost. "+
			"What was published meanwhile never arrived, and cannot be counted: hit rates lack it, and loads were as old as that.")
		l.expectStays(299*time.Second, "outage", true)
		l.expectWithin(2, "outage", false)

		y.NATSServer.SetConnected(false) // between two looks
		time.Sleep(200 * time.Millisecond)
		y.NATSServer.SetConnected(true)
		l.expectWithin(1, "outage", true)
		testutil.Equal(t, "title of both", l.problem("outage").Title, "For 18 s no event could arrive")
		l.ticks(15 * time.Minute)
		y.NATSServer.SetConnected(false)
		time.Sleep(200 * time.Millisecond)
		y.NATSServer.SetConnected(true)
		l.tick()
		testutil.Equal(t, "title of the last", l.problem("outage").Title, "For less than a second no event could arrive")

		y.ZMQ.MarkUsed()
		y.ZMQ.SetConnected(true)
		l.ticks(20 * time.Minute)
		y.ZMQ.SetConnected(false)
		l.ticks(2 * time.Minute)
		y.ZMQ.SetConnected(true)
		l.tick()
		testutil.Equal(t, "title of another", l.problem("outage").Title, "For 2 min no event could arrive")
	})
}

// TestProblemOutageIgnoresUnusedConnection.
func TestProblemOutageIgnoresUnusedConnection(t *testing.T) {
	inBubble(t, func(l *harness) {
		l.registerPublishing(generate, 1)
		l.fleet.Stats.ZMQ.MarkUsed() // their events are ZeroMQ's
		l.fleet.AddChannel("k", fleet.Channel{Publisher: 1, Endpoint: generate, Address: "tcp://10.0.4.19:40113", Plane: fleet.ZMQPlane})
		l.ticks(10 * time.Second)
		l.fleet.Stats.ZMQ.SetConnected(true) // the first connection: nothing was lost that was there
		l.fleet.Stats.NATSServer.SetConnected(false)
		l.ticks(10 * time.Second)
		l.fleet.Stats.NATSServer.SetConnected(true)
		l.expectStays(10*time.Second, "outage", false)
		l.fleet.Stats.ZMQ.SetConnected(false) // the last publisher ends, and then its key goes
		l.ticks(2 * time.Second)
		l.fleet.Stats.ZMQ.SetIdle()
		l.expectStays(10*time.Second, "outage", false)
	})
}

// TestProblemOutageIgnoresGrantedPermission: the connection stood, and all else came by it.
func TestProblemOutageIgnoresGrantedPermission(t *testing.T) {
	inBubble(t, func(l *harness) {
		l.registerPolled(generate, 1)
		l.fleet.Stats.NATSServer.SetConnected(true)
		l.ticks(10 * time.Second)
		l.fleet.Diagnostics.SetSubjects([]fleet.Subject{{Name: "namespace.dynamo.kv-hit-rate", Required: true, Refused: true}})
		l.fleet.Stats.NATS.SetConnected(false)
		l.ticks(20 * time.Second)
		l.fleet.Diagnostics.SetSubjects(nil)
		l.fleet.Stats.NATS.SetConnected(true)
		l.tick()
		testutil.Equal(t, "what is said until it is withdrawn", l.problem("permission:nats").Title, "NATS denied a permission")
		l.expectStays(10*time.Second, "outage", false)
		testutil.Equal(t, "problem that is withdrawn", l.problem("permission:nats").Detail, "")
	})
}

func TestProblemLeaderKeyWithoutLease(t *testing.T) {
	inBubble(t, func(l *harness) {
		l.fleet.Stats.ActsAsLeader.Store(false)
		l.fleet.Stats.NoLease.Store(true)
		l.expectWithin(16, "leader", true)
		testutil.Equal(t, "detail", l.problem("leader").Detail, "dynamo/components/metrics/instance hangs on no lease: it was put by hand, and nothing will ever delete it. "+
			"This program neither pushes nor publishes l2c events, and no other can lead.")
		testutil.Equal(t, "check", l.problem("leader").Check, "is there no program that needs it? Then: etcdctl del dynamo/components/metrics/instance")
		l.fleet.Stats.NoLease.Store(false)
		l.fleet.Stats.OtherLeader.Store(true)
		l.expectWithin(3, "leader", false)
	})
}

func TestProblemGapsSeverityDependsOnShare(t *testing.T) {
	inBubble(t, func(l *harness) {
		for range 100 {
			for range 10 {
				l.fleet.Stats.CountMessage(stats.LoadEvent)
			}
			l.tick()
		}
		l.fleet.Stats.MissedEvents.Add(5)
		l.tick()
		testutil.Equal(t, "severity", l.problem("gaps").Severity, "info")
		testutil.Equal(t, "gaps", l.snapshot().Fleet.Gaps, 5)
		l.fleet.Stats.MissedEvents.Add(50)
		l.tick()
		testutil.Equal(t, "severity of more", l.problem("gaps").Severity, "warn")
		l.ticks(16 * time.Minute)
		testutil.Equal(t, "gaps a quarter of an hour later", l.snapshot().Fleet.Gaps, 0)
	})
}

func TestProblemWebConfigNotInForce(t *testing.T) {
	inBubble(t, func(l *harness) {
		t, wrong := l.t, ""
		o := options(l.fleet)
		o.WebFile, o.WebError = "/etc/metrics/web.yml", func() string { return wrong }
		l.monitor = New(o)
		l.expectStays(5*time.Second, "web_config", false)
		wrong = "it does not demand a password any more: want a restart, if that is meant"
		l.tick()
		p := l.problem("web_config")
		testutil.Equal(t, "severity", p.Severity, "warn")
		testutil.Equal(t, "detail", p.Detail, "/etc/metrics/web.yml: it does not demand a password any more: want a restart, if that is meant. What it said before is still in force.")
		wrong = ""
		l.tick()
		l.expectStays(5*time.Second, "web_config", false)
	})
}
