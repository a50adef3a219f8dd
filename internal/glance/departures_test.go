package glance

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

const lostAtBackend = "lost:backend/generate"

// leave deregisters workers of backend/generate, one after the other.
func (l *lab) leave(ids ...uint64) {
	for _, id := range ids {
		l.f.Deregister("", fleet.Instance{Endpoint: generate, ID: id})
		l.second()
	}
}

func TestAWorkerOfTwoRanksThatLeavesIsNamedOnce(t *testing.T) {
	inLab(t, func(l *lab) {
		l.publishing(generate, 1, 2)
		for rank := range uint32(2) {
			l.f.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 1, Rank: rank}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		}
		l.pass(20 * time.Second)
		l.leave(1)
		l.within(5, lostAtBackend, true)
		testutil.Equal(l.t, "title", l.problem(lostAtBackend).Title, "1 worker of backend/generate is gone")
		testutil.Equal(l.t, "detail", l.problem(lostAtBackend).Detail, "backend/generate: of 2 workers in the last 10 min 1 is left. Whether these deregistered cannot be told: 1.")
	})
}

func TestAWorkerThatIsBackIsNotAmongThoseThatAreGone(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1, 2, 3, 4)
		l.pass(20 * time.Second)
		l.leave(2, 3)
		l.within(4, lostAtBackend, true)
		testutil.Equal(l.t, "detail", l.problem(lostAtBackend).Detail, "backend/generate: of 4 workers in the last 10 min 2 are left. Whether these deregistered cannot be told: 3 and 2.")
		l.register(generate, 2)
		l.second()
		testutil.Equal(l.t, "detail of one that is back", l.problem(lostAtBackend).Detail, "backend/generate: of 4 workers in the last 10 min 3 are left. Whether these deregistered cannot be told: 3.")
		l.leave(2) // for the second time
		testutil.Equal(l.t, "detail of one that has left twice", l.problem(lostAtBackend).Detail, "backend/generate: of 4 workers in the last 10 min 2 are left. Whether these deregistered cannot be told: 2 and 3.")
		l.register(generate, 2, 3)
		l.within(1, lostAtBackend, false)
		testutil.Equal(l.t, "departures", l.g.departed, 0)
	})
}

func TestAWorkerThatMovesIsNotLost(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1, 2, 3, 4)
		l.pass(20 * time.Second)
		l.register(prefill, 1)
		l.second()
		l.leave(1)
		l.keeps(20*time.Second, lostAtBackend, false)
	})
}

func TestAWorkerThatWasReplacedIsNotNamed(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1, 2, 3, 4)
		l.pass(20 * time.Second)
		l.register(generate, 5)
		l.leave(2)
		l.keeps(20*time.Second, lostAtBackend, false)
		l.leave(3)
		l.within(5, lostAtBackend, true)
		testutil.Equal(l.t, "detail", l.problem(lostAtBackend).Detail, "backend/generate: of 4 workers in the last 10 min 3 are left. Whether these deregistered cannot be told: 3.")
	})
}

func TestAWorkerOfTwoEndpointsThatLeavesIsNamedOnce(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1, 2)
		l.register(prefill, 1, 2)
		l.pass(20 * time.Second)
		l.f.Deregister("", fleet.Instance{Endpoint: generate, ID: 1})
		l.f.Deregister("", fleet.Instance{Endpoint: prefill, ID: 1})
		l.pass(10 * time.Second)
		named := 0
		for _, p := range l.snapshot().Problems {
			if p.Kind == "lost" {
				named++
			}
		}
		testutil.Equal(l.t, "problems", named, 1)
	})
}

func TestWhatWasNeverCountedIsNotLost(t *testing.T) {
	inLab(t, func(l *lab) {
		l.publishing(generate, 1)
		l.f.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 1}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		l.f.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 2}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)}) // nobody has registered it
		l.second()
		testutil.Equal(l.t, "unregistered", l.snapshot().Fleet.States.Unregistered, 1)
		l.keeps(2*time.Minute, lostAtBackend, false)
	})
}

func TestWhoeverIsHeardStillIsNotGoneYet(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1, 2)
		l.answer(load(generate, 1, 1, 0), load(generate, 2, 1, 0))
		l.pass(20 * time.Second)
		l.leave(2) // and answers
		l.keeps(30*time.Second, lostAtBackend, false)
		l.answer(load(generate, 1, 1, 0))
		l.within(7, lostAtBackend, true)
		testutil.Equal(l.t, "detail", l.problem(lostAtBackend).Detail, "backend/generate: of 2 workers in the last 10 min 1 is left. Deregistered, and heard until then: 2.")
	})
}

func TestAWorkerWhoseLoadTurnsOutToBeElsewhereIsNotLost(t *testing.T) {
	inLab(t, func(l *lab) {
		other := fleet.Endpoint{Component: "backend", Name: "other"}
		l.register(generate, 1, 2)
		l.register(other, 1, 2, 3)
		l.pass(20 * time.Second)
		l.f.SetCard("1", fleet.Instance{Endpoint: generate, ID: 1}, fleet.Card{})
		l.f.SetCard("2", fleet.Instance{Endpoint: generate, ID: 2}, fleet.Card{})
		l.second()
		testutil.Equal(l.t, "silent", l.snapshot().Fleet.States.Silent, 3)
		l.keeps(time.Minute, "lost:backend/other", false)
		l.keeps(time.Minute, lostAtBackend, false)
	})
}

func TestFrontendsThatLeaveAreNotLost(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1, 2)
		routers := fleet.Endpoint{Component: "backend", Name: "router-discovery"}
		for id := range uint64(3) {
			in := fleet.Instance{Endpoint: routers, ID: 10 + id}
			l.f.Register("", in, fleet.Registration{Role: fleet.RouterRole, Publishes: true})
		}
		l.pass(20 * time.Second)
		before := l.raised()
		l.f.Deregister("", fleet.Instance{Endpoint: routers, ID: 11})
		l.pass(time.Minute)
		testutil.Equal(l.t, "problems", l.raised(), before)
		testutil.Equal(l.t, "workers", l.snapshot().Fleet.States.Silent, 2)
	})
}

func TestDeparturesAreBounded(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1, 2, 3)
		l.pass(20 * time.Second)
		l.g.departed = mostDeparted - 1
		l.leave(1, 2) // there is room for one: the other is not named, but counted
		l.within(4, lostAtBackend, true)
		testutil.Equal(l.t, "detail", l.problem(lostAtBackend).Detail, "backend/generate: of 3 workers in the last 10 min 1 is left. Whether these deregistered cannot be told: 1.")
		testutil.Equal(l.t, "departures", l.g.departed, mostDeparted)
	})
}

// TestHowWorkersLeftIsToldFromWhatWasHeardLast, by what they say of themselves while they are there.
func TestHowWorkersLeftIsToldFromWhatWasHeardLast(t *testing.T) {
	const ended, unsure, deregistered = " Not heard of any more while still registered, so ended without deregistering: 1.",
		" Whether these deregistered cannot be told: 1.", " Deregistered, and heard until then: 1."
	publish := func(l *lab, id uint64) {
		l.f.RecordLoad(fleet.Origin{Endpoint: generate, Worker: id}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
	}
	counter := uint64(0)
	pass := func(l *lab, id uint64) {
		counter++
		for rank := range uint32(2) {
			l.f.RecordForwardPass(fleet.Origin{Endpoint: generate, Worker: id, Rank: rank}, fleet.Pass{Counter: counter})
		}
	}
	scrape := func(l *lab, id uint64) {
		in := fleet.Instance{Endpoint: generate, ID: id}
		l.f.RecordScrape(fleet.ScrapeTarget{Instance: in, Metrics: "10.0.4.19:9090"}, []fleet.ScrapedValues{{Load: fleet.Load{KVTotal: u(1000), CacheUsage: fleet.Some(0.25)}}})
	}
	polled := func(l *lab, ids ...uint64) {
		l.answers = nil
		for _, id := range ids {
			l.answers = append(l.answers, load(generate, id, 1, 0))
		}
	}
	publishing := func(l *lab, ids ...uint64) { l.publishing(generate, ids...) }
	for what, c := range map[string]struct {
		register func(l *lab, ids ...uint64)
		alive    func(l *lab, id uint64) // each second; nil: it answers polls
		silent   time.Duration           // before the registration goes
		before   func(*lab)              // it does
		after    bool                    // it is heard
		want     string
	}{
		"polled, heard until then":           {want: deregistered},
		"polled, heard after it":             {after: true, want: deregistered},
		"polled, killed, of the shortest":    {silent: 6 * time.Second, want: ended},
		"polled, killed, of the longest":     {silent: 30 * time.Second, want: ended},
		"polled, as the registry is away":    {silent: 10 * time.Second, before: func(l *lab) { l.f.Stats.Etcd.SetConnected(false); l.second() }, want: unsure},
		"polled, as NATS is away":            {silent: 10 * time.Second, before: func(l *lab) { l.f.Stats.NATS.SetConnected(false); l.second() }, want: unsure},
		"polled, as all publishers are away": {silent: 10 * time.Second, before: func(l *lab) { l.f.Stats.ZMQ.MarkUsed(); l.second() }, want: ended},
		"publishing passes, as all publishers are away": {register: publishing, alive: pass, silent: 20 * time.Second,
			before: func(l *lab) { l.f.Stats.ZMQ.MarkUsed(); l.second() }, want: unsure},
		"polled, never heard":                 {alive: func(*lab, uint64) {}, want: unsure},
		"publishing, heard just before":       {register: publishing, alive: publish, want: deregistered},
		"publishing, quiet as when idle":      {register: publishing, alive: publish, silent: 10 * time.Second, want: unsure},
		"publishing passes, heard until then": {register: publishing, alive: pass, want: deregistered},
		"publishing passes, killed":           {register: publishing, alive: pass, silent: 20 * time.Second, want: ended},
		"scraped, read until then":            {register: publishing, alive: scrape, want: deregistered},
		"scraped, killed":                     {register: publishing, alive: scrape, silent: 26 * time.Second, want: ended},
		"scraped, its page is gone": {register: publishing, alive: scrape, silent: 6 * time.Second,
			before: func(l *lab) { l.unread(generate, 1, stats.ScrapeNotConnected, 1); l.second() }, want: ended},
		"in Kubernetes, heard until then": {register: publishing, alive: pass,
			before: func(l *lab) { l.f.Stats.Kubernetes.MarkUsed(); l.f.Stats.Kubernetes.SetConnected(true) }, want: unsure},
		"in Kubernetes, killed": {register: publishing, alive: pass, silent: 20 * time.Second,
			before: func(l *lab) { l.f.Stats.Kubernetes.MarkUsed(); l.f.Stats.Kubernetes.SetConnected(true) }, want: ended},
	} {
		t.Run(what, func(t *testing.T) {
			inLab(t, func(l *lab) {
				l.g.o.Poll, l.g.o.Scrape = 2*time.Second, 5*time.Second
				if c.register == nil {
					c.register = func(l *lab, ids ...uint64) { l.register(generate, ids...) }
				}
				second := func(ids ...uint64) {
					if c.alive == nil {
						polled(l, ids...)
					}
					for _, id := range ids {
						if c.alive != nil {
							c.alive(l, id)
						}
					}
					l.second()
				}
				c.register(l, 1, 2)
				for range 20 {
					second(1, 2)
				}
				for range c.silent / time.Second {
					second(2)
				}
				if c.before != nil {
					c.before(l)
				}
				l.f.Deregister("", fleet.Instance{Endpoint: generate, ID: 1})
				if c.after {
					for range 5 {
						second(1, 2)
					}
				}
				for range 10 {
					second(2)
				}
				const start = "backend/generate: of 2 workers in the last 10 min 1 is left."
				testutil.Equal(t, "detail", l.problem(lostAtBackend).Detail, start+c.want)
			})
		})
	}
}

// TestTheMoreWorkersAreLostTheWorseItIs, and it is never told only as what did no harm.
func TestTheMoreWorkersAreLostTheWorseItIs(t *testing.T) {
	for _, c := range []struct {
		all, killed, inOrder, unsure int
		severity, title              string
	}{
		{44, 1, 0, 0, "warn", "1 worker of backend/generate was lost"},
		{44, 4, 0, 0, "warn", "4 workers of backend/generate were lost"}, // 9 %
		{28, 4, 0, 0, "bad", "4 workers of backend/generate were lost"},
		{40, 4, 0, 0, "bad", "4 workers of backend/generate were lost"}, // 10 %
		{2, 1, 0, 0, "bad", "1 worker of backend/generate was lost"},
		{44, 0, 1, 0, "info", "1 worker of backend/generate has deregistered"},
		{44, 0, 40, 0, "info", "40 workers of backend/generate have deregistered"},
		{44, 1, 40, 0, "warn", "1 worker of backend/generate was lost"},
		{44, 0, 0, 10, "warn", "10 workers of backend/generate are gone"},
		{44, 0, 0, 22, "bad", "22 workers of backend/generate are gone"},
		{44, 1, 2, 1, "warn", "2 workers of backend/generate are gone"},
		{4, 4, 0, 0, "bad", "No worker of backend/generate is left"},
		{4, 0, 4, 0, "bad", "No worker of backend/generate is left"},
	} {
		t.Run(fmt.Sprintf("%d: %d, %d, %d", c.all, c.killed, c.inOrder, c.unsure), func(t *testing.T) {
			inLab(t, func(l *lab) {
				var answers []fleet.PollReply
				for id := 1; id <= c.all; id++ {
					l.register(generate, uint64(id))
					if id > c.unsure { // the first are never heard of
						answers = append(answers, load(generate, uint64(id), 1, 0))
					}
				}
				l.answer(answers...)
				l.pass(20 * time.Second)
				inOrder := answers[:c.inOrder]
				stay := answers[c.inOrder+c.killed:]
				l.answer(slices.Concat(inOrder, stay)...)
				l.pass(10 * time.Second)
				for id := 1; id <= c.unsure+c.inOrder+c.killed; id++ {
					l.f.Deregister("", fleet.Instance{Endpoint: generate, ID: uint64(id)})
				}
				l.answer(stay...)
				l.pass(10 * time.Second)
				p := l.problem(lostAtBackend)
				testutil.Equal(t, "problem", []string{p.Severity, p.Title}, []string{c.severity, c.title})
				if first := l.snapshot().Problems[0]; c.severity == "bad" && first.ID != lostAtBackend {
					t.Errorf("the first is %s", first.ID)
				}
			})
		})
	}
}

// TestAReplacementHidesNoLoss: where some were replaced, those that did not deregister are told first.
func TestAReplacementHidesNoLoss(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1, 2, 3, 4)
		all := []fleet.PollReply{load(generate, 1, 1, 0), load(generate, 2, 1, 0), load(generate, 3, 1, 0), load(generate, 4, 1, 0), load(generate, 5, 1, 0)}
		l.answer(all[:4]...)
		l.pass(20 * time.Second)
		l.answer(all[1:4]...)
		l.pass(10 * time.Second)
		l.leave(1) // was killed
		l.register(generate, 5)
		l.answer(all[2:]...)
		l.leave(2) // in order, as 5 has come for it
		l.pass(10 * time.Second)
		testutil.Equal(l.t, "title", l.problem(lostAtBackend).Title, "1 worker of backend/generate was lost")
		testutil.Equal(l.t, "detail", l.problem(lostAtBackend).Detail, "backend/generate: of 4 workers in the last 10 min 3 are left. Not heard of any more while still registered, so ended without deregistering: 1.")
	})
}

// TestAStaticWorkerThatAnswersNoMoreIsLost: it cannot deregister.
func TestAStaticWorkerThatAnswersNoMoreIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Target{Component: "backend"}, 100, false)
		f.Stats.NATS.MarkUsed()
		f.Stats.NATS.SetConnected(true)
		f.Stats.RecordPoll(stats.PollOK, time.Millisecond)
		l := &lab{t: t, f: f, g: New(Options{Fleet: f, Namespaces: "dynamo", Limit: 100, Poll: time.Second})}
		static := func(name string) fleet.PollReply {
			r := load(generate, 0, 250, 0)
			r.Worker = fleet.WorkerID{Static: name}
			return r
		}
		l.answer(static("A"), static("B"))
		l.pass(20 * time.Second)
		l.answer(static("B"))
		l.pass(10 * time.Second)
		p := l.problem(lostAtBackend)
		testutil.Equal(t, "problem", []string{p.Severity, p.Title, p.Detail}, []string{"bad", "1 worker of backend/generate was lost", "backend/generate: of 2 workers in the last 10 min 1 is left. No answer any more: A."})
		l.answer(static("B"), static("C"))
		l.within(1, lostAtBackend, false)
	})
}

// TestProblemsKeepTheirPlaces: the worst first, and of those that are as bad the oldest.
func TestProblemsKeepTheirPlaces(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1, 2)
		l.register(prefill, 3, 4)
		l.answer(load(generate, 1, 1, 0), load(generate, 2, 1, 0), load(prefill, 3, 1, 0), load(prefill, 4, 950, 0))
		l.pass(5 * time.Second)
		l.answer(load(generate, 1, 950, 0), load(generate, 2, 950, 0), load(prefill, 3, 1, 0), load(prefill, 4, 950, 0))
		l.pass(5 * time.Second)
		l.f.Stats.MissedEvents.Add(1)
		l.answer(load(generate, 1, 950, 0), load(generate, 2, 950, 0), load(prefill, 4, 950, 0))
		l.pass(5 * time.Second)
		l.f.Stats.AddDropped(stats.QueueFull, 1)
		want := []string{"silent:prefill/generate", "gaps", "drops", "full:prefill/generate", "full:backend/generate"}
		for range 20 {
			l.second()
			var got []string
			for _, p := range l.snapshot().Problems {
				if p.Kind != "imbalance" {
					got = append(got, p.ID)
				}
			}
			testutil.Equal(l.t, "problems", got, want)
		}
	})
}
