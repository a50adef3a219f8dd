package leader

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/stats"
)

// leadership is the state of a program from acquiring the lock to losing it. It decides when the
// program may act as the leader. Its methods may be called concurrently.
type leadership struct {
	stats   *stats.Stats
	standby bool

	mu            sync.Mutex
	leadAfter     time.Time // when the program may begin to lead
	requestedAt   time.Time // when the newest confirmation was requested; zero: there was none
	lastHeartbeat time.Time // shows that the process runs
	stalledAt     time.Time // when a stall of the process was found; zero: there was none, or the lock has been confirmed since
	lost          bool
}

// newLeadership returns the leadership of a program that has just acquired the lock.
func newLeadership(st *stats.Stats, standby bool) *leadership {
	now := time.Now()
	return &leadership{stats: st, standby: standby, leadAfter: now.Add(confirmationTTL), lastHeartbeat: now}
}

// predecessorResigned records that the previous holder resigned, so that this program does not
// have to wait for it to stop.
func (h *leadership) predecessorResigned() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leadAfter = time.Now()
	h.updateFlags()
}

// markConfirmed records that the program held the lock at some time after the request.
func (h *leadership) markConfirmed(requested time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if requested.Before(h.requestedAt) {
		return // responses may arrive in any order
	}
	h.requestedAt = requested
	if requested.After(h.stalledAt) {
		h.stalledAt = time.Time{}
	}
	h.updateFlags()
}

// updateFlags lets the program lead for as long as the last confirmation allows.
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

// heartbeat lets a program without --standby lead until it learns that it has lost the lock:
// the fleet must stay visible while etcd is down. The flag expires if the process stalls, because
// another program may have acquired the lock meanwhile.
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

// markUnreachable records that the servers cannot be reached, so that a loss cannot be found.
func (h *leadership) markUnreachable() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stalledAt = time.Time{}
}

// markLost records that the lock is lost, and why. The error wraps errLost.
func (h *leadership) markLost(why string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = true
	h.stats.Leader.Store(false)
	h.stats.ActsAsLeader.Store(false)
	return fmt.Errorf("%w: %s", errLost, why)
}

// confirmLoop checks at intervals whether the program holds the lock, until ctx ends or a check
// fails. A check that returns false and no error has found out nothing.
func (h *leadership) confirmLoop(ctx context.Context, check func(context.Context) (ours bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var requests sync.WaitGroup // at most confirmTimeout/confirmInterval + 1 requests at once
	defer requests.Wait()
	defer cancel(nil)
	for {
		requests.Go(func() {
			requested := time.Now()
			checkCtx, done := context.WithTimeout(ctx, confirmTimeout)
			defer done()
			ours, err := check(checkCtx)
			if ours {
				h.markConfirmed(requested)
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
