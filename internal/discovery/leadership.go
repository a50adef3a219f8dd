package discovery

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
type holding struct {
	tally   *stats.Stats
	standby bool

	mu     sync.Mutex
	begins time.Time // when the program may take itself for the only one
	asked  time.Time // when the newest confirmation was asked for; zero: there was none
	beaten time.Time // when it last showed that the process does not stand still
	doubt  time.Time // when it was found that the process had stood still; zero: nothing was lost by that
	lost   bool
}

// newHolding begins with taking the place.
func newHolding(tally *stats.Stats, standby bool) *holding {
	now := time.Now()
	return &holding{tally: tally, standby: standby, begins: now.Add(claimFor), beaten: now}
}

// resigned says that the program that held the place before has given it back, and need not
// be waited for.
func (h *holding) resigned() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begins = time.Now()
	h.claim()
}

// confirmed says that the place was ours at some time after that was asked.
func (h *holding) confirmed(asked time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if asked.Before(h.asked) {
		return // answers may come in any order
	}
	h.asked = asked
	if asked.After(h.doubt) {
		h.doubt = time.Time{}
	}
	h.claim()
}

// claim lets the program be the only one, as long as what is known allows.
func (h *holding) claim() {
	if h.lost || h.asked.IsZero() {
		return
	}
	if !h.standby {
		h.tally.Leader.StoreFor(leaseTTL*time.Second, h.asked)
		return
	}
	h.tally.Leader.StoreFor(claimFor, h.asked)
	if !time.Now().Before(h.begins) {
		h.tally.ActsAsLeader.StoreFor(claimFor, h.asked)
		h.tally.WasLeader.Store(true)
	}
}

// beat lets a program that may not stand by be the only one while it does not know that it
// has lost the place: a fleet whose etcd is away is still to be seen. It ends by itself
// when the process stands still, since all may have changed meanwhile.
func (h *holding) beat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if now.Sub(h.beaten) >= claimFor {
		h.doubt = now
	}
	h.beaten = now
	if !h.lost && h.doubt.IsZero() && !now.Before(h.begins) {
		h.tally.ActsAsLeader.StoreFor(claimFor, now)
		h.tally.WasLeader.Store(true)
	}
}

// away says that the servers cannot be reached: whether it is lost cannot be known.
func (h *holding) away() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.doubt = time.Time{}
}

// lose says that the place is not ours any more, and why. The error is errLost.
func (h *holding) lose(why string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = true
	h.tally.Leader.Store(false)
	h.tally.ActsAsLeader.Store(false)
	return fmt.Errorf("%w: %s", errLost, why)
}

// confirm asks again and again whether the place is ours, until ctx ends or an answer is an
// error. An answer may also be that nothing is known.
func (h *holding) confirm(ctx context.Context, ask func(context.Context) (ours bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var asking sync.WaitGroup // no more than confirmIn/confirmEvery and one at once
	defer asking.Wait()
	defer cancel(nil)
	for {
		asking.Go(func() {
			asked := time.Now()
			within, done := context.WithTimeout(ctx, confirmIn)
			defer done()
			ours, err := ask(within)
			if ours {
				h.confirmed(asked)
			}
			if err != nil {
				cancel(err)
			}
		})
		if !backoff.Wait(ctx, confirmEvery) {
			return context.Cause(ctx)
		}
	}
}

// together runs parts of something until the first of them ends, which ends the others, and
// returns why.
func together(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, part := range parts {
		running.Go(func() { cancel(part(ctx)) })
	}
	running.Wait()
	return context.Cause(ctx)
}
