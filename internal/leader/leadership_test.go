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

// held is a holding that has begun, and how to see whether it lets the program lead.
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
		asked := time.Now()
		time.Sleep(1500 * time.Millisecond) // the answer is under way
		h.markConfirmed(asked)
		time.Sleep(499 * time.Millisecond)
		leads(true, "within 2 s of the question")
		time.Sleep(time.Millisecond)
		leads(false, "2 s after the question")

		h.markConfirmed(time.Now())
		h.markConfirmed(asked) // an answer that was overtaken
		time.Sleep(1999 * time.Millisecond)
		leads(true, "since the newer question")
		time.Sleep(time.Second)
		h.markConfirmed(time.Now().Add(-confirmationTTL)) // too late to be of use
		leads(false, "by an answer that took 2 s")
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
			leads(false, "by late answers")
			if h.stats.Leader.Load() {
				t.Error("it says that it holds the place")
			}
		})
	}
}

// TestLeadershipAfterStall what has become of the place meanwhile,
// or that the servers are away.
func TestLeadershipAfterStall(t *testing.T) {
	for name, know := range map[string]func(h *leadership, before time.Time){
		"confirmed":            func(h *leadership, before time.Time) { h.markConfirmed(time.Now()) },
		"the servers are away": func(h *leadership, before time.Time) { h.markUnreachable() },
		"not by an answer from before": func(h *leadership, before time.Time) {
			h.markConfirmed(before)
			h.heartbeat()
			if h.stats.ActsAsLeader.Load() {
				t.Error("it leads by an answer from before it stood still")
			}
			h.markUnreachable()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, leads := newHeldLeadership(t, false)
				before := time.Now()
				time.Sleep(15 * time.Second)
				leads(false, "when it goes on")
				h.heartbeat()
				leads(false, "when it has gone on")
				time.Sleep(confirmInterval)
				h.heartbeat()
				leads(false, "a moment later")
				time.Sleep(time.Millisecond)
				know(h, before)
				h.heartbeat()
				leads(true, "when it knows")
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
		var asking, most atomic.Int64
		done := make(chan error, 1)
		go func() {
			done <- h.confirmLoop(ctx, func(ctx context.Context) (bool, error) {
				most.Store(max(most.Load(), asking.Add(1))) // time stands still meanwhile
				defer asking.Add(-1)
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
			t.Errorf("%d questions without an answer at once, want %d", most.Load(), want)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if n := asking.Load(); n != 0 {
			t.Errorf("%d questions go on", n)
		}
	})
}
