//go:build real

package survival

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

// pauseTime is longer than the lifetime of a lease.
const pauseTime = 15 * time.Second

// leaderLease returns the lease of the unique instance's key, or 0 if the key does not
// exist.
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

// freeze stops the program with SIGSTOP, and returns when its lease has expired.
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
			return errors.New("the key still exists")
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
		t.Error("it leads, but the key does not exist")
	}
	r.stopAndCheck(m)
	w.stop()
	m.Terminate()
	if f.leaderLease() != 0 {
		t.Error("it has ended, and not deleted its key")
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
	if code, logged := first.Wait(), first.LinesWith(instanceKey+": another instance exists"); code != 1 || len(logged) != 1 {
		t.Errorf("the first ends with code %d and %q, want 1 and one line about the other instance", code, logged)
	}
	if now := f.leaderLease(); now != owner {
		t.Errorf("the key has lease %x, want %x of the second", now, owner)
	}
	second.waitForSamples(merged(ready, samplesOf(a, b)))
	r.stopAndCheck(second)
	w.stop()
	second.Terminate()
}
