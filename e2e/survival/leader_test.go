//go:build real

package survival

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// startPair starts two programs that are each other's standby, and push every second. The
// first one leads.
func startPair(t *testing.T, slow time.Duration) (r *replicas, both [2]*program) {
	t.Helper()
	r = newReplicas(t)
	if slow > 0 {
		way := process.NewProxy(t, strings.TrimPrefix(r.environment.etcd[0].url, "http://"))
		way.SetDelay(slow)
		r.etcd = []*server{{url: "http://" + way.Address}}
	}
	for i := range both {
		m := r.startMetrics("--standby", "--push", "--push-url", r.gateway.URL, "--push-interval", "1", "--push-grouping", fmt.Sprint("replica=", i+1))
		m.waitFor(func(samples) error {
			p, err := m.scrapeStandby()
			if err == nil {
				err = p.match(r.loadAt(i + 1))
			}
			return err
		})
		if i == 0 {
			r.firstMessages(1, time.Time{})
		} else {
			m.WaitForLine("Standing by: ")
		}
		both[i] = m
	}
	return r, both
}

// checkGap checks that pushes of different programs are at least d apart, except after the
// first one has resigned, and that there are no more than this many turns.
func (r *replicas) checkGap(d time.Duration, turns int) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 1
	for i, push := range r.pushes[1:] {
		before := r.pushes[i]
		if before.program == push.program {
			continue
		}
		n++
		gap := push.at.Sub(before.at)
		r.t.Logf("program %d pushes %v after program %d", push.program, gap.Round(time.Millisecond), before.program)
		if gap < d {
			r.t.Errorf("program %d pushes %v after program %d, want %v", push.program, gap, before.program, d)
		}
	}
	if n > turns {
		r.t.Errorf("the programs push in %d turns: %v", n, r.pushes)
	}
}

// waitForPush waits for a push after this time, and returns which program it is from.
func (r *replicas) waitForPush(after time.Time) (program int) {
	r.t.Helper()
	testutil.Until(r.t, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, w := range r.pushes {
			if w.at.After(after) {
				program = w.program
				return nil
			}
		}
		return errors.New("no program pushes")
	})
	return program
}

// lease returns the lease of the unique instance's key.
func (r *replicas) lease() clientv3.LeaseID { return clientv3.LeaseID(r.leaderLease()) }

// putRevision returns the revision at which the unique instance's key was last put, or 0 if
// it does not exist.
func (r *replicas) putRevision() int64 {
	r.t.Helper()
	got, err := r.ec.Get(r.t.Context(), instanceKey)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(got.Kvs) == 0 {
		return 0
	}
	return got.Kvs[0].ModRevision
}

// TestLeadersNeverPushAtOnce changes and deletes the unique instance's key in every way.
// The last push of the former leader must be old when the next one pushes, and that must be
// soon.
func TestLeadersNeverPushAtOnce(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(r *replicas) error{
		"the key is deleted": func(r *replicas) error { _, err := r.ec.Delete(r.t.Context(), instanceKey); return err },
		"a prefix of the key is deleted": func(r *replicas) error {
			_, err := r.ec.Delete(r.t.Context(), "dynamo/", clientv3.WithPrefix())
			return err
		},
		"another lease has the key, and is revoked": func(r *replicas) error {
			lease, err := r.ec.Grant(r.t.Context(), 60)
			if err == nil {
				_, err = r.ec.Put(r.t.Context(), instanceKey, "{}", clientv3.WithLease(lease.ID))
			}
			if err == nil {
				_, err = r.ec.Revoke(r.t.Context(), lease.ID)
			}
			return err
		},
		"the key is put manually, and deleted": func(r *replicas) error {
			_, err := r.ec.Put(r.t.Context(), instanceKey, "{}")
			if err == nil {
				_, err = r.ec.Delete(r.t.Context(), instanceKey)
			}
			return err
		},
		"the lease is revoked": func(r *replicas) error { _, err := r.ec.Revoke(r.t.Context(), r.lease()); return err },
	} {
		for _, slow := range []time.Duration{0, 600 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s, %v each way", name, slow), func(t *testing.T) {
				t.Parallel()
				r, both := startPair(t, slow)
				for range 2 {
					before := r.putRevision()
					if err := lose(r); err != nil {
						t.Fatal(err)
					}
					lost := time.Now()
					testutil.Until(t, func() error {
						if now := r.putRevision(); now <= before {
							return errors.New("no program has taken the key")
						}
						return nil
					})
					r.waitForPush(lost.Add(2 * slow).Add(slack)) // of either program
					took := time.Since(lost)
					t.Logf("pushed again after %v", took.Round(time.Millisecond))
				}
				r.checkGap(2*time.Second-slack, 3)
				for _, m := range both {
					m.Terminate()
				}
			})
		}
	}
}

// TestLeaderStoppedWithoutKeyDoesNotPush checks the leader after SIGCONT.
func TestLeaderStoppedWithoutKeyDoesNotPush(t *testing.T) {
	t.Parallel()
	r, both := startPair(t, 0)
	first, second := both[0], both[1]
	for turn, m := range []*program{first, second} {
		m.Signal(syscall.SIGSTOP)
		if _, err := r.ec.Delete(t.Context(), instanceKey); err != nil {
			t.Fatal(err)
		}
		deleted := time.Now()
		r.firstMessages(2-turn, deleted)
		m.Signal(syscall.SIGCONT)
		m.WaitForLine("Lost the lease of the unique instance")
		m.waitFor(func(samples) error { return m.matchStandby(r.loadAt(turn + 1)) })
		m.waitForPolls(4)
	}
	r.checkLeaders(1, 2, 1)
	r.checkGap(2*time.Second-slack, 3)
	first.Terminate()
	second.Terminate()
}

// TestLeaderKeepsLeadingWithSlowEtcd delays each message by 0.6 s in each direction.
func TestLeaderKeepsLeadingWithSlowEtcd(t *testing.T) {
	t.Parallel()
	r, both := startPair(t, 600*time.Millisecond)
	testutil.Until(t, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.pushes) < 20 {
			return fmt.Errorf("%d pushes", len(r.pushes))
		}
		return nil
	})
	r.checkLeaders(1)
	for _, m := range both {
		if lost := m.LinesWith("Lost the lease"); len(lost) > 0 {
			t.Errorf("%q", lost)
		}
	}
	// A leader that terminates is replaced at once, which here takes three messages of
	// etcd.
	began := time.Now()
	both[0].Terminate()
	_, push := r.firstMessages(2, began)
	t.Logf("the first push is %v after the signal", push.Sub(began).Round(time.Millisecond))
	both[1].Terminate()
}
