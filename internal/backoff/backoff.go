// Package backoff computes how long to wait before a failed call is retried, and waits.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Policy is a pause that doubles with each failure. Part of it is random, so that the clients of
// a server do not all retry at the same moment.
type Policy struct {
	First   time.Duration // after the first failure
	Longest time.Duration // the limit
	Jitter  int           // a divisor: 5 shortens a pause by up to a fifth, at random
}

// Server is the policy for NATS and etcd. With a limit of half a second, the program works again
// within two seconds of the server's return.
var Server = Policy{First: 100 * time.Millisecond, Longest: 500 * time.Millisecond, Jitter: 5}

// Pause returns how long to wait after the nth failure in a row, counted from 0.
func (p Policy) Pause(n int) time.Duration {
	full := p.Longest
	if n = max(n, 0); n < 20 { // beyond that the shift could overflow
		full = min(p.First<<n, p.Longest)
	}
	return full - rand.N(full/time.Duration(p.Jitter))
}

// Pause returns Server.Pause(n).
func Pause(n int) time.Duration { return Server.Pause(n) }

// Wait waits for d. It reports false if ctx ended before that. If d is not positive, it creates
// no timer: two timers that fire as soon as they are created, in one bubble of testing/synctest,
// crash Go's race detector (go.dev/issue/78156).
func Wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
