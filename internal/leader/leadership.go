package leader

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/stats"
)

// holding is the time for which a program holds a place, from taking it to losing it. It
// decides for how long the program may take itself for the only one. Its methods may be
// called at once.
type leadership struct {
	stats   *stats.Stats
	standby bool

	mu            sync.Mutex
	leadAfter     time.Time // when the program may take itself for the only one
	requestedAt   time.Time // when the newest confirmation was asked for; zero: there was none
	lastHeartbeat time.Time // when it last showed that the process does not stand still
	stalledAt     time.Time // when it was found that the process had stood still; zero: nothing was lost by that
	lost          bool
}

// newHolding begins with taking the place.
func newLeadership(st *stats.Stats, standby bool) *leadership {
	now := time.Now()
	return &leadership{stats: st, standby: standby, leadAfter: now.Add(confirmationTTL), lastHeartbeat: now}
}

// resigned says that the program that held the place before has given it back, and need not
// be waited for.
func (h *leadership) predecessorResigned() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leadAfter = time.Now()
	h.updateFlags()
}

// confirmed says that the place was ours at some time after that was asked.
func (h *leadership) markConfirmed(asked time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if asked.Before(h.requestedAt) {
		return // answers may come in any order
	}
	h.requestedAt = asked
	if asked.After(h.stalledAt) {
		h.stalledAt = time.Time{}
	}
	h.updateFlags()
}

// claim lets the program be the only one, as long as what is known allows.
func (h *leadership) updateFlags() {
	if h.lost || h.requestedAt.IsZero() {
		return
	}
	if !h.standby {
		h.stats.Leader.StoreFor(leaseTTL*time.Second, h.requestedAt)
		return
	}
	h.stats.Leader.StoreFor(confirmationTTL, h.requestedAt)
	if !time.Now().Before(h.leadAfter) {
		h.stats.ActsAsLeader.StoreFor(confirmationTTL, h.requestedAt)
		h.stats.WasLeader.Store(true)
	}
}

// beat lets a program that may not stand by be the only one while it does not know that it
// has lost the place: a fleet whose etcd is away is still to be seen. It ends by itself
// when the process stands still, since all may have changed meanwhile.
func (h *leadership) heartbeat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if now.Sub(h.lastHeartbeat) >= confirmationTTL {
		h.stalledAt = now
	}
	h.lastHeartbeat = now
	if !h.lost && h.stalledAt.IsZero() && !now.Before(h.leadAfter) {
		h.stats.ActsAsLeader.StoreFor(confirmationTTL, now)
		h.stats.WasLeader.Store(true)
	}
}

// away says that the servers cannot be reached: whether it is lost cannot be known.
func (h *leadership) markUnreachable() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stalledAt = time.Time{}
}

// lose says that the place is not ours any more, and why. The error is errLost.
func (h *leadership) markLost(why string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = true
	h.stats.Leader.Store(false)
	h.stats.ActsAsLeader.Store(false)
	return fmt.Errorf("%w: %s", errLost, why)
}

// confirm asks again and again whether the place is ours, until ctx ends or an answer is an
// error. An answer may also be that nothing is known.
func (h *leadership) confirmLoop(ctx context.Context, ask func(context.Context) (ours bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var asking sync.WaitGroup // no more than confirmIn/confirmEvery and one at once
	defer asking.Wait()
	defer cancel(nil)
	for {
		asking.Go(func() {
			asked := time.Now()
			within, done := context.WithTimeout(ctx, confirmTimeout)
			defer done()
			ours, err := ask(within)
			if ours {
				h.markConfirmed(asked)
			}
			if err != nil {
				cancel(err)
			}
		})
		if !backoff.Wait(ctx, confirmInterval) {
			return context.Cause(ctx)
		}
	}
}
