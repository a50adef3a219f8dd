package glance

import (
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
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
			l.f.Publish(fleet.Origin{Endpoint: generate, Worker: 1, Rank: rank}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		}
		l.pass(20 * time.Second)
		l.leave(1)
		l.within(5, lostAtBackend, true)
		equal(l.t, "title", l.problem(lostAtBackend).Title, "1 worker of backend/generate is gone")
		equal(l.t, "detail", l.problem(lostAtBackend).Detail, "backend/generate: of 2 workers in the last 10 min 1 is left. Whether these deregistered cannot be told: 1.")
	})
}

func TestAWorkerThatIsBackIsNotAmongThoseThatAreGone(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1, 2, 3, 4)
		l.pass(20 * time.Second)
		l.leave(2, 3)
		l.within(4, lostAtBackend, true)
		equal(l.t, "detail", l.problem(lostAtBackend).Detail, "backend/generate: of 4 workers in the last 10 min 2 are left. Whether these deregistered cannot be told: 3 and 2.")
		l.register(generate, 2)
		l.second()
		equal(l.t, "detail of one that is back", l.problem(lostAtBackend).Detail, "backend/generate: of 4 workers in the last 10 min 3 are left. Whether these deregistered cannot be told: 3.")
		l.leave(2) // for the second time
		equal(l.t, "detail of one that has left twice", l.problem(lostAtBackend).Detail, "backend/generate: of 4 workers in the last 10 min 2 are left. Whether these deregistered cannot be told: 2 and 3.")
		l.register(generate, 2, 3)
		l.within(1, lostAtBackend, false)
		equal(l.t, "departures", l.g.departed, 0)
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
		equal(l.t, "detail", l.problem(lostAtBackend).Detail, "backend/generate: of 4 workers in the last 10 min 3 are left. Whether these deregistered cannot be told: 3.")
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
		equal(l.t, "problems", named, 1)
	})
}

func TestWhatWasNeverCountedIsNotLost(t *testing.T) {
	inLab(t, func(l *lab) {
		l.publishing(generate, 1)
		l.f.Publish(fleet.Origin{Endpoint: generate, Worker: 1}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		l.f.Publish(fleet.Origin{Endpoint: generate, Worker: 2}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)}) // nobody has registered it
		l.second()
		equal(l.t, "unregistered", l.snapshot().Fleet.States.Unregistered, 1)
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
		equal(l.t, "detail", l.problem(lostAtBackend).Detail, "backend/generate: of 2 workers in the last 10 min 1 is left. Deregistered, and heard until then: 2.")
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
		equal(l.t, "silent", l.snapshot().Fleet.States.Silent, 3)
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
		equal(l.t, "problems", l.raised(), before)
		equal(l.t, "workers", l.snapshot().Fleet.States.Silent, 2)
	})
}

func TestDeparturesAreBounded(t *testing.T) {
	inLab(t, func(l *lab) {
		l.register(generate, 1, 2, 3)
		l.pass(20 * time.Second)
		l.g.departed = mostDeparted - 1
		l.leave(1, 2) // there is room for one: the other is not named, but counted
		l.within(4, lostAtBackend, true)
		equal(l.t, "detail", l.problem(lostAtBackend).Detail, "backend/generate: of 3 workers in the last 10 min 1 is left. Whether these deregistered cannot be told: 1.")
		equal(l.t, "departures", l.g.departed, mostDeparted)
	})
}
