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
const pauseTime = 15 * time.Second

// owner is the lease that the unique instance's key hangs on, 0 if there is no key.
func (f *environment) leaderLease() int64 {
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
func (f *environment) freeze(m *program) {
	f.t.Helper()
	before := f.leaderLease()
	if before == 0 {
		f.t.Fatal("there is no key of the unique instance")
	}
	m.Signal(syscall.SIGSTOP)
	testutil.Until(f.t, func() error {
		if f.leaderLease() == before {
			return errors.New("the lease has not expired")
		}
		return nil
	})
}

func TestStoppedProgramReclaimsItsKey(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	m := f.startMetrics()
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	r := f.startRouter(a, b)
	before, err := m.scrape()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f.freeze(m)
	checkThroughout(t, pauseTime-time.Since(began), func() error {
		if f.leaderLease() != 0 {
			return errors.New("somebody has the key")
		}
		return nil
	})
	a.load.Store(11)
	m.Signal(syscall.SIGCONT)
	w := m.startSampler(always(samplesOf(b)), monotonicCounters(a, b), pairedHits(nil), func(_, now samples) error { return monotonicCounters(a, b)(before, now) })
	m.WaitForLine("Holding the unique instance at " + instanceKey + " again")
	m.waitForSamples(merged(ready, samplesOf(a, b)))
	m.waitForPolls(4)
	if f.leaderLease() == 0 {
		t.Error("it takes itself for the leader, but there is no key")
	}
	r.stopAndCheck(m)
	w.stop()
	m.Terminate()
	if f.leaderLease() != 0 {
		t.Error("it has ended, and left its key")
	}
}

func TestStoppedProgramYieldsATakenKey(t *testing.T) {
	t.Parallel()
	f := newEnvironment(t)
	a, b := f.startWorker(1, 10), f.startWorker(2, 20)
	first := f.startMetrics()
	first.waitForSamples(merged(ready, samplesOf(a, b)))
	began := time.Now()
	f.freeze(first)
	second := f.startMetrics()
	second.waitForSamples(merged(ready, samplesOf(a, b)))
	owner := f.leaderLease()
	r := f.startRouter(a, b)
	w := second.startSampler(always(samplesOf(b)), monotonicCounters(a, b), pairedHits(nil))
	checkThroughout(t, max(0, pauseTime-time.Since(began)), func() error { return second.matchKept(samplesOf(b)) })
	first.Signal(syscall.SIGCONT)
	if code, said := first.Wait(), first.LinesWith(instanceKey+": another instance exists"); code != 1 || len(said) != 1 {
		t.Errorf("the first ends with code %d and %q, want 1 and one line about the other", code, said)
	}
	if now := f.leaderLease(); now != owner {
		t.Errorf("the key hangs on lease %x, and did on %x of the second", now, owner)
	}
	second.waitForSamples(merged(ready, samplesOf(a, b)))
	r.stopAndCheck(second)
	w.stop()
	second.Terminate()
}
