package leader

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/stats"
)

// newHeldLeadership returns the leadership of a program that leads, and a function that checks
// whether the program leads.
func newHeldLeadership(t *testing.T, standby bool) (h *leadership, leads func(want bool, when string)) {
	t.Helper()
	var st stats.Stats
	h = newLeadership(&st, standby)
	leads = func(want bool, when string) {
		t.Helper()
		if got := st.ActsAsLeader.Load(); got != want {
			t.Errorf("%s: leads: %v, want %v", when, got, want)
		}
	}
	h.markConfirmed(time.Now())
	leads(false, "at once")
	for range confirmationTTL / confirmInterval {
		time.Sleep(confirmInterval)
		h.markConfirmed(time.Now())
		if !standby {
			h.heartbeat()
		}
	}
	leads(true, "after 2 s")
	return h, leads
}

func TestLeadershipLastsFromRequestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, leads := newHeldLeadership(t, true)
		requested := time.Now()
		time.Sleep(1500 * time.Millisecond) // until the response arrives
		h.markConfirmed(requested)
		time.Sleep(499 * time.Millisecond)
		leads(true, "within 2 s of the request")
		time.Sleep(time.Millisecond)
		leads(false, "2 s after the request")

		h.markConfirmed(time.Now())
		h.markConfirmed(requested) // a response that was overtaken
		time.Sleep(1999 * time.Millisecond)
		leads(true, "by the newer request")
		time.Sleep(time.Second)
		h.markConfirmed(time.Now().Add(-confirmationTTL)) // too late
		leads(false, "by a response that took 2 s")
	})
}

func TestLeadershipStaysLost(t *testing.T) {
	for _, standby := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h, leads := newHeldLeadership(t, standby)
			if err := h.markLost("why"); !errors.Is(err, errLost) || err.Error() != "lost: why" {
				t.Errorf("got %v", err)
			}
			leads(false, "when it is lost")
			h.markConfirmed(time.Now())
			h.heartbeat()
			h.predecessorResigned()
			leads(false, "by late responses")
			if h.stats.Leader.Load() {
				t.Error("it still claims to hold the lock")
			}
		})
	}
}

// A process that stalled does not lead until the lock is confirmed again, or the servers are known
// to be unreachable.
func TestLeadershipAfterStall(t *testing.T) {
	for name, confirm := range map[string]func(h *leadership, before time.Time){
		"confirmed":                   func(h *leadership, before time.Time) { h.markConfirmed(time.Now()) },
		"the servers are unreachable": func(h *leadership, before time.Time) { h.markUnreachable() },
		"not by an older response": func(h *leadership, before time.Time) {
			h.markConfirmed(before)
			h.heartbeat()
			if h.stats.ActsAsLeader.Load() {
				t.Error("it leads by a response from before the stall")
			}
			h.markUnreachable()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, leads := newHeldLeadership(t, false)
				before := time.Now()
				time.Sleep(15 * time.Second)
				leads(false, "when it continues")
				h.heartbeat()
				leads(false, "after a heartbeat")
				time.Sleep(confirmInterval)
				h.heartbeat()
				leads(false, "a moment later")
				time.Sleep(time.Millisecond)
				confirm(h, before)
				h.heartbeat()
				leads(true, "after that")
			})
		})
	}
}

func TestLeadershipConfirmationsOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var st stats.Stats
		h := newLeadership(&st, true)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var inProgress, most atomic.Int64
		done := make(chan error, 1)
		go func() {
			done <- h.confirmLoop(ctx, func(ctx context.Context) (bool, error) {
				most.Store(max(most.Load(), inProgress.Add(1)))
				defer inProgress.Add(-1)
				select {
				case <-time.After(time.Minute):
					return true, nil
				case <-ctx.Done():
					return false, nil
				}
			})
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := int64(confirmTimeout/confirmInterval) + 1; most.Load() != want {
			t.Errorf("%d concurrent requests, want %d", most.Load(), want)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if n := inProgress.Load(); n != 0 {
			t.Errorf("%d requests are still in progress", n)
		}
	})
}
