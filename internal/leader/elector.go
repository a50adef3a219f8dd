// Package leader elects one program as the leader of its namespaces: only the leader pushes metrics
// and publishes l2c events. The leader holds a key in etcd, or a Kubernetes Lease.
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

// leaseTTL is the TTL of a lease in seconds, the same as that of Dynamo's own processes up to 0.9.
// After that time the lock of a program that was killed is free again.
const leaseTTL = 10

const (
	// confirmationTTL is how long the program may lead after a confirmation that it holds the
	// lock, counted from the request. A program that acquires the lock waits for the same time
	// before it leads: by then the previous leader has stopped, even if it has not noticed that
	// it lost the lock.
	confirmationTTL = 2 * time.Second
	// confirmInterval is how often a confirmation is requested. Requests do not wait for each
	// other: otherwise the program would stop leading whenever a response takes more than a second.
	confirmInterval = 500 * time.Millisecond
	// confirmTimeout bounds a call that confirms or renews. It is a third of the lease's TTL, so
	// that there is time left to try another endpoint.
	confirmTimeout = leaseTTL * time.Second / 3
)

// minStandby is the shortest wait on standby after which the program tries to acquire the lock at
// once. A lock that seems free sooner is probably being acquired by another program, so the next
// attempt is made after a pause.
const minStandby = 50 * time.Millisecond

// releaseTimeout bounds the release of the lock when the program ends.
const releaseTimeout = 1500 * time.Millisecond

// ErrExists means that another program holds the unique instance's lock.
var ErrExists = errors.New("another instance exists")

// errMayExist means that another program held the lock, and that it is not known yet whether
// that program is alive.
var errMayExist = errors.New("another instance may exist")

// errLost means that this program does not hold the lock any more.
var errLost = errors.New("lost")

// lock is a lock that one program holds at a time: a key in etcd, or a Kubernetes Lease.
type lock interface {
	// tryAcquire acquires the lock. It fails with ErrExists if another program holds it.
	tryAcquire(ctx context.Context) error
	// hold keeps the lock and reports each confirmation to h. It returns nil when ctx ends and
	// errLost when the lock is lost, however long the servers are unreachable.
	hold(ctx context.Context, h *leadership) error
	// awaitFree returns when the lock may be free, and at intervals.
	awaitFree(ctx context.Context)
	// release releases the lock.
	release(ctx context.Context)
	// backoff returns how long to wait before the nth attempt after an error.
	backoff(n int, err error) time.Duration
	// permanent reports whether retrying after an error is useless.
	permanent(err error) bool
	// String returns the lock's name.
	String() string
}

// elector makes this program the unique instance of its namespaces.
type elector struct {
	lock
	stats   *stats.Stats
	log     *slog.Logger
	standby bool // wait while another program holds the lock

	standbyReason string // the kind of the reason to stand by that was logged last; empty if the program does not stand by
}

// run holds the lock until ctx ends, and then releases it. If it loses the lock, it acquires it
// again. It fails with ErrExists if another program holds the lock and standby is false, and if
// the servers refuse the credentials from the start.
//
// At most one program leads at any time. There is one exception: a program without --standby
// keeps leading while it cannot reach the servers, because it knows of no other program.
func (e *elector) run(ctx context.Context) error {
	e.log.Info("Creating unique instance of Metrics at " + e.String())
	defer e.resign(context.WithoutCancel(ctx))
	for again := false; ; again = true {
		if err := e.acquire(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		switch {
		case again:
			e.log.Info("Holding the unique instance at " + e.String() + " again")
		case e.standbyReason != "":
			e.log.Info("Holding the unique instance at " + e.String())
		}
		e.standbyReason = ""
		e.stats.OtherLeader.Store(false)
		e.stats.NoLease.Store(false)
		err := e.lead(ctx)
		if ctx.Err() != nil {
			return nil
		}
		e.log.Warn("Lost the lease of the unique instance at "+e.String(), "reason", err)
	}
}

// lead holds the lock until it is lost or ctx ends.
func (e *elector) lead(ctx context.Context) error {
	h := newLeadership(e.stats, e.standby)
	var heartbeats sync.WaitGroup
	defer heartbeats.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !e.standby {
		heartbeats.Go(func() {
			for h.heartbeat(); backoff.Wait(ctx, confirmInterval); h.heartbeat() {
			}
		})
	}
	return e.hold(ctx, h)
}

// acquire acquires the lock, however long the servers are unreachable.
func (e *elector) acquire(ctx context.Context) error {
	logged := false
	for attempt := 0; ctx.Err() == nil; attempt++ {
		err := e.tryAcquire(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case e.standby && errors.Is(err, ErrExists), errors.Is(err, errMayExist):
			e.standBy(ctx, err)
			attempt = -1
			continue
		case errors.Is(err, errNoLease), e.permanent(err): // waiting would not help
			return err
		case errors.Is(err, ErrExists):
			return fmt.Errorf("%w; with --standby, this instance waits until the other has ended and takes over", err)
		}
		e.stats.OtherLeader.Store(false)
		if e.stats.RegistryUp() && !logged { // otherwise Watch logs the connection's state
			e.log.Warn("Failed to create the unique instance; retrying", "error", err)
			logged = true
		}
		backoff.Wait(ctx, e.backoff(attempt, err))
	}
	return nil
}

// standBy waits until the lock that another program holds may be free.
func (e *elector) standBy(ctx context.Context, reason error) {
	noLease := errors.Is(reason, errNoLease)
	e.stats.NoLease.Store(noLease)
	e.stats.OtherLeader.Store(!noLease)
	if !noLease {
		e.stats.WasLeader.ExpireIn(confirmationTTL) // the other program waits for the same time
	}
	kind := reasonKind(reason)
	if e.standbyReason != kind {
		e.log.Info("Standing by: " + reason.Error())
	}
	e.standbyReason = kind
	began := time.Now()
	e.awaitFree(ctx)
	if time.Since(began) < minStandby {
		backoff.Wait(ctx, backoff.Pause(0))
	}
}

// reasonKind returns the kind of a reason to stand by. The reason is logged again when its kind
// changes.
func reasonKind(reason error) string {
	if errors.Is(reason, errNoLease) {
		return errNoLease.Error()
	}
	return ErrExists.Error()
}

// resign stops leading and releases the lock when the program ends.
func (e *elector) resign(ctx context.Context) {
	e.stats.Leader.Store(false)
	e.stats.ActsAsLeader.Store(false)
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	e.release(ctx)
}
