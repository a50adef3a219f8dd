package discovery

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
)

// leaseTTL is that of Dynamo's own processes to 0.9, in seconds: what a program that
// was killed holds is free again after it.
const leaseTTL = 10

// unsure is how long after its last renewal a lease is still alive for certain: beyond
// it a standby may hold the place before we hear of it.
const unsure = (leaseTTL - 2) * time.Second

// farewell bounds what is said to the servers when the program ends.
const farewell = 1500 * time.Millisecond

// ErrExists says that another program holds the unique instance's place.
var ErrExists = errors.New("another instance exists")

// errMayExist says that another program held it, and that it is not known yet whether
// it is alive.
var errMayExist = errors.New("another instance may exist")

// errLost says that a place is not ours any more.
var errLost = errors.New("lost")

// place is what one program of its kind can hold: a key of etcd, or a Lease of
// Kubernetes.
type place interface {
	// take makes it ours, for leaseTTL from when it was called at least. It fails with
	// ErrExists where another program holds it.
	take(ctx context.Context) error
	// renew keeps it ours for another leaseTTL. It fails with errLost where it is not.
	renew(ctx context.Context) error
	// await returns when it may be free, and from time to time.
	await(ctx context.Context)
	// release gives it back.
	release(ctx context.Context)
	// hopeless reports whether an error will come again whatever is done.
	hopeless(err error) bool
	// String is its name.
	String() string
}

// unique makes this the one program of its kind in what it watches.
type unique struct {
	place
	renewEvery time.Duration
	tally      *fleet.Tally
	log        *slog.Logger
	standby    bool // waits where another program holds the place

	stoodBy bool      // another held it when last tried
	renewed time.Time // when that was last asked for, with success
}

// hold holds the place until ctx ends; then gives it back. Losing it is no end: it is
// taken again. It fails with ErrExists where another program has it, unless it may
// stand by, and where that is hopeless.
//
// Where programs stand by, at most one of them takes itself for the unique instance at
// any time: one that may have lost the place unheard does not.
func (u *unique) hold(ctx context.Context) error {
	u.log.Info("Creating unique instance of Metrics at " + u.String())
	defer u.giveBack(context.WithoutCancel(ctx))
	for again := false; ; again = true {
		if err := u.acquire(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		switch {
		case again:
			u.log.Info("Holding the unique instance at " + u.String() + " again")
		case u.stoodBy:
			u.log.Info("Holding the unique instance at " + u.String())
		}
		u.stoodBy = false
		u.tally.Leader.Store(true)
		u.keep(ctx)
		u.tally.Leader.Store(false)
		if ctx.Err() != nil {
			return nil
		}
		u.log.Warn("Lost the lease of the unique instance at " + u.String())
	}
}

// keep renews until the place is lost or ctx ends. Not by the etcd client's own loop: its
// answers do not say when they were asked for, and one that waited while the process
// was stopped would seem to be new.
func (u *unique) keep(ctx context.Context) {
	for u.claim(); ctx.Err() == nil; {
		connect.Wait(ctx, u.renewEvery)
		err := u.ask(ctx, u.renewEvery, u.renew)
		switch {
		case err == nil:
			u.claim()
		case errors.Is(err, errLost), time.Since(u.renewed) > leaseTTL*time.Second:
			return
		}
	}
}

// ask takes or renews, in the time it may take.
func (u *unique) ask(ctx context.Context, within time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	asked := time.Now()
	err := f(ctx)
	if err == nil {
		u.renewed = asked
	}
	return err
}

// claim says that the place was ours when it was last renewed.
func (u *unique) claim() {
	if u.standby {
		u.tally.Unique.For(unsure, u.renewed)
	} else {
		u.tally.Unique.Store(true)
	}
}

// acquire takes the place, however long the servers take to come.
func (u *unique) acquire(ctx context.Context) error {
	said := false
	for attempt := 0; ctx.Err() == nil; attempt++ {
		err := u.ask(ctx, callTimeout, u.take)
		if err == nil {
			return nil
		}
		if u.standby && errors.Is(err, ErrExists) || errors.Is(err, errMayExist) {
			u.standBy(ctx, err)
			attempt = 0
			continue
		}
		if errors.Is(err, ErrExists) || u.hopeless(err) {
			u.tally.Unique.Store(false)
			return err
		}
		if u.tally.RegistryUp() && !said { // else Watch speaks of the connection
			u.log.Warn("Failed to create the unique instance; trying goes on", "error", err)
			said = true
		}
		connect.Wait(ctx, connect.Pause(attempt))
	}
	return nil
}

// standBy waits until the place that another program holds may be free.
func (u *unique) standBy(ctx context.Context, reason error) {
	u.tally.Unique.Store(false)
	if !u.stoodBy {
		u.log.Info("Standing by: " + reason.Error())
	}
	u.stoodBy = true
	u.await(ctx)
}

// giveBack is the last word to the servers.
func (u *unique) giveBack(ctx context.Context) {
	u.tally.Leader.Store(false)
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	u.release(ctx)
}
