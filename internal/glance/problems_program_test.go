package glance

import (
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

func TestTheProgramsOwnTroubles(t *testing.T) {
	const second, minutes = time.Second, 5 * time.Minute
	for id, c := range map[string]struct {
		begin, end func(*lab)
		raised     int // after so many seconds
		withdrawn  int
		detail     string
	}{
		"limit": {
			begin: func(l *lab) {
				for range 7 {
					l.f.Tally.TurnAway(stats.WorkerLimit)
				}
			},
			raised: 1, withdrawn: 301, detail: "In the last 15 min 7 of workers, answers and events were turned away. Since the start, by kind: worker: 7.",
		},
		"permission:nats": {
			begin: func(l *lab) {
				l.register(generate, 1)
				l.f.Tally.NATS.Set(false)
				l.f.Notes.SetSubjects([]fleet.Subject{
					{Name: "namespace.dynamo.kv-hit-rate", Required: true, Refused: true}, {Name: "namespace.dynamo.kv_metrics", Required: true},
					{Name: "dynamo.request_trace.v1", Refused: true},
				})
			},
			end: func(l *lab) {
				l.f.Notes.SetSubjects(nil)
				l.f.Tally.NATS.Set(true)
			},
			raised: 1, withdrawn: 3,
			detail: "nats://10.0.3.7:4222 does not let this program use namespace.dynamo.kv-hit-rate and dynamo.request_trace.v1: what comes there is not heard, or workers are not asked. Loads and hit rates are as old as that.",
		},
		"limit:publishers": {
			begin: func(l *lab) {
				l.f.Tally.ZMQ.Use()
				l.f.Tally.ZMQ.Set(true)
				l.f.Tally.Publishers.Store(40_000)
				l.f.Tally.PublishersUp.Store(32_768)
				l.f.Tally.PublishersWaiting.Store(7232)
				l.f.Tally.TurnAway(stats.SubscriptionLimit)
			},
			end:    func(l *lab) { l.f.Tally.PublishersWaiting.Store(0) },
			raised: 1, withdrawn: 6,
			detail: "So many connections at once are not allowed, or so many to one host. Nothing is heard of those that wait, and their events are lost.",
		},
		"drops": {
			begin:  func(l *lab) { l.f.Tally.Drop(stats.QueueFull, 3) },
			raised: 1, withdrawn: 301, detail: "In the last 15 min, because the NATS client's queue was full: loads may be old, and hit rates lack what was lost.",
		},
		"malformed:messages": {
			begin: func(l *lab) {
				l.f.Tally.Reject(stats.LoadEvent, stats.BadPack)
				l.f.Tally.Reject(stats.Cards, stats.BadJSON)
				l.f.Tally.Reject(stats.StatsReply, stats.BadLoad) // its worker's trouble
				l.f.Tally.Reject(stats.LoadEvent, stats.Estimate) // none
			},
			raised: 1, withdrawn: 301, detail: "In the last 15 min. Since the start, by kind and reason: load: 1 (msgpack), card: 1 (json).",
		},
		"nameless": {
			begin:  func(l *lab) { l.f.Tally.Reject(stats.ForwardPass, stats.NoWorker) },
			raised: 1, withdrawn: 301, detail: "1 of forward passes in the last 15 min named no worker, and could not be shown.",
		},
		"push": {
			begin: func(l *lab) {
				l.f.Tally.LastPush.Store(time.Now().Add(-time.Minute).UnixNano())
				l.f.Tally.PushError.Add(2)
			},
			end:    func(l *lab) { l.f.Tally.PushOK.Add(1) },
			raised: 1, withdrawn: 1, detail: "2 pushes to http://gateway:9091 have failed in a row. The last that succeeded was 1 min 1 s ago.",
		},
		"leader": {
			begin:  func(l *lab) { l.f.Tally.Unique.Store(false); l.f.Tally.Etcd.Set(false) },
			end:    func(l *lab) { l.f.Tally.Etcd.Set(true); l.f.Tally.OtherLeads.Store(true) },
			raised: 16, withdrawn: 3, detail: "Who holds dynamo/components/metrics/instance cannot be known while etcd is away, so this program neither pushes nor publishes l2c events.",
		},
		"connection:kubernetes": {
			begin: func(l *lab) {
				l.g.o.Servers["kubernetes"] = "https://10.96.0.1:443, namespace prod"
				l.f.Tally.Kubernetes.Use()
			},
			end:       func(l *lab) { l.f.Tally.Kubernetes.Set(true) },
			raised:    4,
			withdrawn: 3, detail: "https://10.96.0.1:443, namespace prod: who comes and goes is not noticed; the fleet is shown as it was known.",
		},
		"planes": {
			begin: func(l *lab) {
				l.register(prefill, 1)
				l.f.Notes.SetClashes(map[string]string{"prefill": "workers on ZMQ, routers on NATS"})
			},
			end:    func(l *lab) { l.f.Notes.SetClashes(nil) },
			raised: 1, withdrawn: 11, detail: "prefill: workers on ZMQ, routers on NATS. Those routers do not hear what is cached, and send requests as if nothing were.",
		},
		"connection:zmq": {
			begin: func(l *lab) {
				y := &l.f.Tally
				y.ZMQ.Use()
				y.ZMQ.Set(true)
				y.Publishers.Store(320)
				y.PublishersUp.Store(319)
				l.f.Notes.Away(fleet.Channel{Address: "tcp://10.0.4.19:40113", Endpoint: generate, Topic: "kv_metrics", Plane: fleet.ZMQPlane}, time.Now())
			},
			end:    func(l *lab) { l.f.Tally.PublishersUp.Store(320) },
			raised: 46, withdrawn: 6, detail: "These are announced and do not answer: tcp://10.0.4.19:40113 of backend/generate. Their events are lost.",
		},
		"gaps": {
			begin: func(l *lab) {
				l.f.Tally.Gaps.Add(9)
				l.f.Announce("k", fleet.Channel{Publisher: 0xabc, Endpoint: generate, Address: "tcp://10.0.4.19:40113", Plane: fleet.ZMQPlane})
				l.f.Notes.Missed(fleet.Gap{Publisher: 0xabc, Kind: stats.ForwardPass, After: 88_213, Before: 88_223, At: time.Now()})
			},
			raised: 1, withdrawn: 301, detail: "In the last 15 min. The last: publisher abc of backend/generate tcp://10.0.4.19:40113 skipped from 88,213 to 88,223 (forward pass, 1 s ago).",
		},
	} {
		t.Run(id, func(t *testing.T) {
			inLab(t, func(l *lab) {
				l.g.o.Gateway = "http://gateway:9091"
				l.pass(10 * second)
				testutil.Equal(t, "problems before", l.raised(), nil)
				c.begin(l)
				l.within(c.raised, id, true)
				testutil.Equal(t, "detail", l.problem(id).Detail, c.detail)
				if c.end != nil {
					c.end(l)
				}
				l.within(c.withdrawn, id, false)
			})
		})
	}
}

// TestAPermissionThatIsMissingIsNoLostConnection: it is said as what it is, and is no fault
// where it is for what not every fleet sends.
func TestAPermissionThatIsMissingIsNoLostConnection(t *testing.T) {
	inLab(t, func(l *lab) {
		t := l.t
		l.register(generate, 1)
		l.pass(10 * time.Second)
		subject := fleet.Subject{Name: "namespace.dynamo.forward-pass-metrics", Refused: true}
		l.f.Notes.SetSubjects([]fleet.Subject{subject})
		l.second()
		testutil.Equal(t, "severity of an optional one", l.problem("permission:nats").Severity, "info")
		testutil.Equal(t, "detail of it", l.problem("permission:nats").Detail, "nats://10.0.3.7:4222 does not let this program use namespace.dynamo.forward-pass-metrics: "+
			"what not every fleet sends is not heard, or l2c events are not published. All else goes on.")
		subject.Required = true
		l.f.Notes.SetSubjects([]fleet.Subject{subject})
		l.f.Tally.NATS.Set(false)
		l.keeps(10*time.Second, "connection:nats", false)
		testutil.Equal(t, "severity of a required one", l.problem("permission:nats").Severity, "bad")
		testutil.Equal(t, "signals", strings.Contains(l.refused("GET", ofGenerate, 503), "NATS denies the permission for namespace.dynamo.forward-pass-metrics"), true)
		l.f.Notes.SetSubjects(nil) // now it is lost
		l.within(4, "connection:nats", true)
		l.keeps(time.Second, "permission:nats", false)
	})
}

// TestOutagesAreTold: of what was published while a connection was lost nothing can be
// counted but the time.
func TestOutagesAreTold(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1)
		y := &l.f.Tally
		l.pass(10 * time.Second)
		y.Bus.Set(false)
		l.keeps(18*time.Second, "outage", false) // while it is away that is said
		y.Bus.Set(true)
		l.within(1, "outage", true)
		testutil.Equal(t, "title", l.problem("outage").Title, "For 18 s no event could arrive")
		testutil.Equal(t, "detail", l.problem("outage").Detail, "In the last 15 min the connection to NATS was lost. "+
			"What was published meanwhile never arrived, and cannot be counted: hit rates lack it, and loads were as old as that.")
		l.keeps(299*time.Second, "outage", true)
		l.within(2, "outage", false)

		y.Bus.Set(false) // between two looks
		time.Sleep(200 * time.Millisecond)
		y.Bus.Set(true)
		l.within(1, "outage", true)
		testutil.Equal(t, "title of both", l.problem("outage").Title, "For 18 s no event could arrive")
		l.pass(15 * time.Minute)
		y.Bus.Set(false)
		time.Sleep(200 * time.Millisecond)
		y.Bus.Set(true)
		l.second()
		testutil.Equal(t, "title of the last", l.problem("outage").Title, "For less than a second no event could arrive")

		y.ZMQ.Use()
		y.ZMQ.Set(true)
		l.pass(20 * time.Minute)
		y.ZMQ.Set(false)
		l.pass(2 * time.Minute)
		y.ZMQ.Set(true)
		l.second()
		testutil.Equal(t, "title of another", l.problem("outage").Title, "For 2 min no event could arrive")
	})
}

// TestOutagesOfWhatNothingComesByAreNone.
func TestOutagesOfWhatNothingComesByAreNone(t *testing.T) {
	inLab(t, func(l *lab) {
		l.publishing(generate, 1)
		l.f.Tally.ZMQ.Use() // their events are ZeroMQ's
		l.f.Announce("k", fleet.Channel{Publisher: 1, Endpoint: generate, Address: "tcp://10.0.4.19:40113", Plane: fleet.ZMQPlane})
		l.pass(10 * time.Second)
		l.f.Tally.ZMQ.Set(true) // the first connection: nothing was lost that was there
		l.f.Tally.Bus.Set(false)
		l.pass(10 * time.Second)
		l.f.Tally.Bus.Set(true)
		l.keeps(10*time.Second, "outage", false)
		l.f.Tally.ZMQ.Set(false) // the last publisher ends, and then its key goes
		l.pass(2 * time.Second)
		l.f.Tally.ZMQ.Rest()
		l.keeps(10*time.Second, "outage", false)
	})
}

// TestAPermissionThatComesBackWasNoOutage: the connection stood, and all else came by it.
func TestAPermissionThatComesBackWasNoOutage(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1)
		l.f.Tally.Bus.Set(true)
		l.pass(10 * time.Second)
		l.f.Notes.SetSubjects([]fleet.Subject{{Name: "namespace.dynamo.kv-hit-rate", Required: true, Refused: true}})
		l.f.Tally.NATS.Set(false)
		l.pass(20 * time.Second)
		l.f.Notes.SetSubjects(nil)
		l.f.Tally.NATS.Set(true)
		l.second()
		testutil.Equal(t, "what is said until it is withdrawn", l.problem("permission:nats").Title, "NATS denied a permission")
		l.keeps(10*time.Second, "outage", false)
		testutil.Equal(t, "problem that is withdrawn", l.problem("permission:nats").Detail, "")
	})
}

func TestAKeyThatWasPutByHandIsToldAsSuch(t *testing.T) {
	inLab(t, func(l *lab) {
		l.f.Tally.Unique.Store(false)
		l.f.Tally.NoLease.Store(true)
		l.within(16, "leader", true)
		testutil.Equal(t, "detail", l.problem("leader").Detail, "dynamo/components/metrics/instance hangs on no lease: it was put by hand, and nothing will ever delete it. "+
			"This program neither pushes nor publishes l2c events, and no other can lead.")
		testutil.Equal(t, "check", l.problem("leader").Check, "is there no program that needs it? Then: etcdctl del dynamo/components/metrics/instance")
		l.f.Tally.NoLease.Store(false)
		l.f.Tally.OtherLeads.Store(true)
		l.within(3, "leader", false)
	})
}

func TestFewMissingEventsOfManyAreOnlyWorthKnowing(t *testing.T) {
	inLab(t, func(l *lab) {
		for range 100 {
			for range 10 {
				l.f.Tally.Receive(stats.LoadEvent)
			}
			l.second()
		}
		l.f.Tally.Gaps.Add(5)
		l.second()
		testutil.Equal(t, "severity", l.problem("gaps").Severity, "info")
		testutil.Equal(t, "gaps", l.snapshot().Fleet.Gaps, 5)
		l.f.Tally.Gaps.Add(50)
		l.second()
		testutil.Equal(t, "severity of more", l.problem("gaps").Severity, "warn")
		l.pass(16 * time.Minute)
		testutil.Equal(t, "gaps a quarter of an hour later", l.snapshot().Fleet.Gaps, 0)
	})
}

func TestAWebConfigThatIsNotInForceIsAProblem(t *testing.T) {
	inLab(t, func(l *lab) {
		t, wrong := l.t, ""
		o := options(l.f)
		o.WebFile, o.WebWrong = "/etc/metrics/web.yml", func() string { return wrong }
		l.g = New(o)
		l.keeps(5*time.Second, "web_config", false)
		wrong = "it does not demand a password any more: want a restart, if that is meant"
		l.second()
		p := l.problem("web_config")
		testutil.Equal(t, "severity", p.Severity, "warn")
		testutil.Equal(t, "detail", p.Detail, "/etc/metrics/web.yml: it does not demand a password any more: want a restart, if that is meant. What it said before is still in force.")
		wrong = ""
		l.second()
		l.keeps(5*time.Second, "web_config", false)
	})
}
