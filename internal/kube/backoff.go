package kube

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"dynamo-metrics/internal/backoff"
)

const (
	deniedPause   = 2 * time.Second  // before what was refused is asked for again
	maxPause      = 30 * time.Second // after many answers that the server cannot do it now
	maxRetryAfter = time.Minute      // that the server may ask for
)

// overloaded is the policy for a server that has too much to do.
var overloaded = backoff.Policy{First: 500 * time.Millisecond, Longest: maxPause, Jitter: 2}

// Backoff is how long to wait after calls that failed. The zero Backoff has seen none fail.
type Backoff struct{ failures int }

// Reset says that a call has succeeded.
func (b *Backoff) Reset() { b.failures = 0 }

// After is how long to wait after one more call that failed: while there is no answer not
// long, since the server may be back any time; where the server has too much to do (429), or cannot
// (5xx), longer each time, and at least as long as it asks for. Some time is added, so that
// not all its clients come back at once.
func (b *Backoff) Next(err error) time.Duration {
	n := b.failures
	b.failures++
	var refused *StatusError
	switch {
	case !errors.As(err, &refused):
		return backoff.Pause(n)
	case !refused.isOverload():
		return deniedPause
	}
	pause := max(overloaded.Pause(n), refused.RetryAfter)
	return pause + rand.N(pause/10)
}

// busy reports whether the same request may be answered later.
func (e *StatusError) isOverload() bool {
	return e.Code == http.StatusTooManyRequests || e.Code >= http.StatusInternalServerError
}

// retryAfter is what a server asks for: a number of seconds, or a time.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil {
		return clampRetryAfter(time.Duration(min(seconds, 3600)) * time.Second)
	}
	if at, err := http.ParseTime(header); err == nil {
		return clampRetryAfter(time.Until(at))
	}
	return 0
}

func clampRetryAfter(d time.Duration) time.Duration { return min(max(d, 0), maxRetryAfter) }
