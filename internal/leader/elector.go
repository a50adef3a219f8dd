// Package leader makes one program the leader of its namespaces: the one that pushes and publishes.
// It holds a key in etcd, or a Lease of Kubernetes.
package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/stats"
)

// leaseTTL is that of Dynamo's own processes up to 0.9, in seconds: what a program that
// was killed holds is free again after it.
const leaseTTL = 10

const (
	// claimFor is how long after it was asked for a confirmation that the place is ours
	// lets this be the one program. A program that takes the place waits as long before it
	// is, so that the one before, which may not have heard of its loss, is not any more.
	confirmationTTL = 2 * time.Second
	// confirmEvery is how often that is asked. Questions do not wait for each other: where
	// an answer takes longer than a second there would be times without a claim.
	confirmInterval = 500 * time.Millisecond
	// confirmIn bounds a call that confirms or renews: a third of the lease's time, so that
	// there is enough left to try elsewhere.
	confirmTimeout = leaseTTL * time.Second / 3
)

// hasty is the time below which a place that may be free again is no news to run after: it
// is passed around.
const minStandby = 50 * time.Millisecond

// farewell bounds what is said to the servers when the program ends.
const releaseTimeout = 1500 * time.Millisecond

// ErrExists says that another program holds the unique instance's place.
var ErrExists = errors.New("another instance exists")

// errMayExist says that another program held it, and that it is not known yet whether
// it is alive.
var errMayExist = errors.New("another instance may exist")

// errLost says that a place is not ours any more.
var errLost = errors.New("lost")

// place is what one program of its kind can hold: a key of etcd, or a Lease of
// Kubernetes.
type lock interface {
	// take makes it ours. It fails with ErrExists where another program holds it.
	tryAcquire(ctx context.Context) error
	// keep keeps it ours, and says whenever that is confirmed, until ctx ends (nil) or it
	// is lost (errLost), however long the servers are away.
	hold(ctx context.Context, h *leadership) error
	// await returns when it may be free, and from time to time.
	awaitFree(ctx context.Context)
	// release gives it back.
	release(ctx context.Context)
	// pause is how long to wait before the nth attempt after an error.
	backoff(n int, err error) time.Duration
	// permanent reports whether an error will come again whatever is done.
	permanent(err error) bool
	// String is its name.
	String() string
}

// unique makes this the one program of its kind in what it watches.
type elector struct {
	lock
	stats   *stats.Stats
	log     *slog.Logger
	standby bool // waits where another program holds the place

	standbyReason string // why it stands by, as was last said; empty: it does not
}

// hold holds the place until ctx ends; then gives it back. Losing it is no end: it is
// taken again. It fails with ErrExists where another program has it, unless it may
// stand by, and where the servers refuse us from the start.
//
// At most one program takes itself for the one at any time, but for those that may not
// stand by and whose servers are away: they go on, for they know of no other.
func (u *elector) run(ctx context.Context) error {
	u.log.Info("Creating unique instance of Metrics at " + u.String())
	defer u.resign(context.WithoutCancel(ctx))
	for again := false; ; again = true {
		if err := u.acquire(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		switch {
		case again:
			u.log.Info("Holding the unique instance at " + u.String() + " again")
		case u.standbyReason != "":
			u.log.Info("Holding the unique instance at " + u.String())
		}
		u.standbyReason = ""
		u.stats.OtherLeader.Store(false)
		u.stats.NoLease.Store(false)
		err := u.lead(ctx)
		if ctx.Err() != nil {
			return nil
		}
		u.log.Warn("Lost the lease of the unique instance at "+u.String(), "reason", err)
	}
}

// keepClaiming keeps the place until it is lost or ctx ends.
func (u *elector) lead(ctx context.Context) error {
	h := newLeadership(u.stats, u.standby)
	var beating sync.WaitGroup
	defer beating.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !u.standby {
		beating.Go(func() {
			for h.heartbeat(); backoff.Wait(ctx, confirmInterval); h.heartbeat() {
			}
		})
	}
	return u.hold(ctx, h)
}

// acquire takes the place, however long the servers take to come.
func (u *elector) acquire(ctx context.Context) error {
	said := false
	for attempt := 0; ctx.Err() == nil; attempt++ {
		err := u.tryAcquire(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case u.standby && errors.Is(err, ErrExists), errors.Is(err, errMayExist):
			u.standBy(ctx, err)
			attempt = -1
			continue
		case errors.Is(err, errNoLease), u.permanent(err): // waiting is of no use
			return err
		case errors.Is(err, ErrExists):
			return fmt.Errorf("%w; with --standby this one waits until that is gone, and takes over", err)
		}
		u.stats.OtherLeader.Store(false)
		if u.stats.RegistryUp() && !said { // else Watch speaks of the connection
			u.log.Warn("Failed to create the unique instance; trying goes on", "error", err)
			said = true
		}
		backoff.Wait(ctx, u.backoff(attempt, err))
	}
	return nil
}

// standBy waits until the place that another program holds may be free.
func (u *elector) standBy(ctx context.Context, reason error) {
	noLease := errors.Is(reason, errNoLease)
	u.stats.NoLease.Store(noLease)
	u.stats.OtherLeader.Store(!noLease)
	if !noLease {
		u.stats.WasLeader.ExpireIn(confirmationTTL) // the other one waits as long
	}
	said := reasonKind(reason)
	if u.standbyReason != said {
		u.log.Info("Standing by: " + reason.Error())
	}
	u.standbyReason = said
	began := time.Now()
	u.awaitFree(ctx)
	if time.Since(began) < minStandby {
		backoff.Wait(ctx, backoff.Pause(0))
	}
}

// kindOf is what of a reason to stand by is worth to be said again when it changes.
func reasonKind(reason error) string {
	if errors.Is(reason, errNoLease) {
		return errNoLease.Error()
	}
	return ErrExists.Error()
}

// giveBack is the last word to the servers.
func (u *elector) resign(ctx context.Context) {
	u.stats.Leader.Store(false)
	u.stats.ActsAsLeader.Store(false)
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	u.release(ctx)
}
