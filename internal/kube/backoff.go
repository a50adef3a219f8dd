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
	refusedIn    = 2 * time.Second  // before what was refused is asked for again
	longestPause = 30 * time.Second // after many answers that the server cannot do it now
	longestAfter = time.Minute      // that the server may ask for
)

// overloaded is the policy for a server that has too much to do.
var overloaded = backoff.Policy{First: 500 * time.Millisecond, Longest: longestPause, Jitter: 2}

// Backoff is how long to wait after calls that failed. The zero Backoff has seen none fail.
type Backoff struct{ failed int }

// Reset says that a call has succeeded.
func (b *Backoff) Reset() { b.failed = 0 }

// After is how long to wait after one more call that failed: while there is no answer not
// long, since the server may be back any time; where the server has too much to do (429), or cannot
// (5xx), longer each time, and at least as long as it asks for. Some time is added, so that
// not all its clients come back at once.
func (b *Backoff) After(err error) time.Duration {
	n := b.failed
	b.failed++
	var refused *Refused
	switch {
	case !errors.As(err, &refused):
		return backoff.Pause(n)
	case !refused.busy():
		return refusedIn
	}
	pause := max(overloaded.Pause(n), refused.After)
	return pause + rand.N(pause/10)
}

// busy reports whether the same request may be answered later.
func (e *Refused) busy() bool {
	return e.Code == http.StatusTooManyRequests || e.Code >= http.StatusInternalServerError
}

// retryAfter is what a server asks for: a number of seconds, or a time.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil {
		return after(time.Duration(min(seconds, 3600)) * time.Second)
	}
	if at, err := http.ParseTime(header); err == nil {
		return after(time.Until(at))
	}
	return 0
}

func after(d time.Duration) time.Duration { return min(max(d, 0), longestAfter) }
