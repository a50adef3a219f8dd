package mock

import (
	"fmt"
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

func TestForwardPassesFollowTheLoad(t *testing.T) {
	t.Parallel()
	stack := devstacktest.Start(t)
	e, p := newListener(t), newScript()
	e.subscribeNATS(stack.Conn(t))
	c := p.config("1.6.1", NATS)
	c.EventInterval = 0
	r := start(t, stack.Conn(t), stack.Client(t), c)
	id := r.id(t, 0, 0)
	e.waitForPass(func(p wire.ForwardPass) bool {
		return p.Worker == id && p.WallTime == 0.0125 && p.Running() == 11 && p.Waiting() == 4 && p.Scheduled.PrefillRequests == 1 && p.Scheduled.PrefillTokens == 128
	})
	p.changeLoad(t, func(l *fleet.Load) { l.ActiveSlots, l.Waiting = fleet.Some[uint64](0), fleet.Some[uint64](0) })
	idle := e.waitForPass(func(p wire.ForwardPass) bool {
		return p == wire.ForwardPass{Worker: id, HasWorkerID: true, Counter: p.Counter}
	})
	e.waitForPass(func(p wire.ForwardPass) bool { return p.WallTime == 0 && p.Counter == idle.Counter+1 })
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, p := range e.passes {
		if p.Counter != uint64(i+1) {
			t.Errorf("pass %d has counter %d", i+1, p.Counter)
		}
	}
}

// waitForPass waits for a pass for which wanted returns true.
func (e *listener) waitForPass(wanted func(wire.ForwardPass) bool) (found wire.ForwardPass) {
	e.t.Helper()
	testutil.Until(e.t, func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, found = range e.passes {
			if wanted(found) {
				return nil
			}
		}
		return fmt.Errorf("not among %+v", e.passes)
	})
	return found
}

func TestPassGeneratorWhileIdle(t *testing.T) {
	var p passGenerator
	var due []int
	for sample := range 12 {
		if got, ok := p.next(fleet.Load{ActiveSlots: fleet.Some[uint64](0)}); ok {
			due = append(due, sample)
			if got != (forwardPass{counter: uint64(len(due))}) {
				t.Errorf("got %+v", got)
			}
		}
	}
	if got := fmt.Sprint(due); got != "[3 7 11]" {
		t.Errorf("there is a pass at samples %s, want every fourth", got)
	}
	if got, ok := new(passGenerator).next(fleet.Load{}); ok {
		t.Errorf("got %+v of a worker without a load", got)
	}
}
