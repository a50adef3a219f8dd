//go:build real

package survival

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

// stopped is longer than a lease lives.
const stopped = 15 * time.Second

// owner is the lease that the unique instance's key hangs on, 0 if there is no key.
func (f *lab) owner() int64 {
	f.t.Helper()
	got, err := f.ec.Get(f.t.Context(), instanceKey)
	if err != nil {
		f.t.Fatal(err)
	}
	if len(got.Kvs) == 0 {
		return 0
	}
	return got.Kvs[0].Lease
}

// freeze stops the program, and returns when its lease has expired.
func (f *lab) freeze(m *program) {
	f.t.Helper()
	before := f.owner()
	if before == 0 {
		f.t.Fatal("there is no key of the unique instance")
	}
	m.Signal(syscall.SIGSTOP)
	testutil.Until(f.t, func() error {
		if f.owner() == before {
			return errors.New("the lease has not expired")
		}
		return nil
	})
}

func TestAProgramThatWasStoppedGetsItsKeyAgain(t *testing.T) {
	t.Parallel()
	f := newLab(t)
	a, b := f.worker(1, 10), f.worker(2, 20)
	m := f.run()
	m.shows(merged(up, loads(a, b)))
	r := f.route(a, b)
	before, err := m.page()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f.freeze(m)
	throughout(t, stopped-time.Since(began), func() error {
		if f.owner() != 0 {
			return errors.New("somebody has the key")
		}
		return nil
	})
	a.load.Store(11)
	m.Signal(syscall.SIGCONT)
	w := m.witnessed(always(loads(b)), countersOf(a, b), pairs(nil), func(_, now page) error { return countersOf(a, b)(before, now) })
	m.Says("Holding the unique instance at " + instanceKey + " again")
	m.shows(merged(up, loads(a, b)))
	m.polls(4)
	if f.owner() == 0 {
		t.Error("it takes itself for the leader, but there is no key")
	}
	r.settle(m)
	w.stop()
	m.Terminate()
	if f.owner() != 0 {
		t.Error("it has ended, and left its key")
	}
}

func TestAProgramThatWasStoppedYieldsToTheOneThatTookItsKey(t *testing.T) {
	t.Parallel()
	f := newLab(t)
	a, b := f.worker(1, 10), f.worker(2, 20)
	first := f.run()
	first.shows(merged(up, loads(a, b)))
	began := time.Now()
	f.freeze(first)
	second := f.run()
	second.shows(merged(up, loads(a, b)))
	owner := f.owner()
	r := f.route(a, b)
	w := second.witnessed(always(loads(b)), countersOf(a, b), pairs(nil))
	throughout(t, max(0, stopped-time.Since(began)), func() error { return second.hasStill(loads(b)) })
	first.Signal(syscall.SIGCONT)
	if code, said := first.Ends(), first.Said(instanceKey+": another instance exists"); code != 1 || len(said) != 1 {
		t.Errorf("the first ends with code %d and %q, want 1 and one line about the other", code, said)
	}
	if now := f.owner(); now != owner {
		t.Errorf("the key hangs on lease %x, and did on %x of the second", now, owner)
	}
	second.shows(merged(up, loads(a, b)))
	r.settle(second)
	w.stop()
	second.Terminate()
}
