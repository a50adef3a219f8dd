package discovery

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
func held(t *testing.T, standby bool) (h *holding, leads func(want bool, when string)) {
	t.Helper()
	var tally stats.Stats
	h = newHolding(&tally, standby)
	leads = func(want bool, when string) {
		t.Helper()
		if got := tally.ActsAsLeader.Load(); got != want {
			t.Errorf("%s: leads: %v, want %v", when, got, want)
		}
	}
	h.confirmed(time.Now())
	leads(false, "at once")
	for range claimFor / confirmEvery {
		time.Sleep(confirmEvery)
		h.confirmed(time.Now())
		if !standby {
			h.beat()
		}
	}
	leads(true, "after 2 s")
	return h, leads
}

func TestAClaimHoldsFromWhenItWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, leads := held(t, true)
		asked := time.Now()
		time.Sleep(1500 * time.Millisecond) // the answer is under way
		h.confirmed(asked)
		time.Sleep(499 * time.Millisecond)
		leads(true, "within 2 s of the question")
		time.Sleep(time.Millisecond)
		leads(false, "2 s after the question")

		h.confirmed(time.Now())
		h.confirmed(asked) // an answer that was overtaken
		time.Sleep(1999 * time.Millisecond)
		leads(true, "since the newer question")
		time.Sleep(time.Second)
		h.confirmed(time.Now().Add(-claimFor)) // too late to be of use
		leads(false, "by an answer that took 2 s")
	})
}

func TestWhatIsLostStaysLostWhateverComesLate(t *testing.T) {
	for _, standby := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h, leads := held(t, standby)
			if err := h.lose("why"); !errors.Is(err, errLost) || err.Error() != "lost: why" {
				t.Errorf("got %v", err)
			}
			leads(false, "when it is lost")
			h.confirmed(time.Now())
			h.beat()
			h.resigned()
			leads(false, "by late answers")
			if h.tally.Leader.Load() {
				t.Error("it says that it holds the place")
			}
		})
	}
}

// TestAProcessThatStoodStillDoesNotLeadUntilItKnows what has become of the place meanwhile,
// or that the servers are away.
func TestAProcessThatStoodStillDoesNotLeadUntilItKnows(t *testing.T) {
	for name, know := range map[string]func(h *holding, before time.Time){
		"confirmed":            func(h *holding, before time.Time) { h.confirmed(time.Now()) },
		"the servers are away": func(h *holding, before time.Time) { h.away() },
		"not by an answer from before": func(h *holding, before time.Time) {
			h.confirmed(before)
			h.beat()
			if h.tally.ActsAsLeader.Load() {
				t.Error("it leads by an answer from before it stood still")
			}
			h.away()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, leads := held(t, false)
				before := time.Now()
				time.Sleep(15 * time.Second)
				leads(false, "when it goes on")
				h.beat()
				leads(false, "when it has gone on")
				time.Sleep(confirmEvery)
				h.beat()
				leads(false, "a moment later")
				time.Sleep(time.Millisecond)
				know(h, before)
				h.beat()
				leads(true, "when it knows")
			})
		})
	}
}

func TestQuestionsDoNotWaitForAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tally stats.Stats
		h := newHolding(&tally, true)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var asking, most atomic.Int64
		done := make(chan error, 1)
		go func() {
			done <- h.confirm(ctx, func(ctx context.Context) (bool, error) {
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
		if want := int64(confirmIn/confirmEvery) + 1; most.Load() != want {
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
