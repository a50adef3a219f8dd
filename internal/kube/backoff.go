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
	deniedPause   = 2 * time.Second  // before a request that was denied is retried
	maxPause      = 30 * time.Second // after many responses that the server is overloaded
	maxRetryAfter = time.Minute      // the longest pause that a server may ask for
)

// overloaded is the policy for a server that has too much to do.
var overloaded = backoff.Policy{First: 500 * time.Millisecond, Longest: maxPause, Jitter: 2}

// Backoff computes how long to wait after requests that failed. The zero Backoff has seen no
// failure.
type Backoff struct{ failures int }

// Reset records that a request has succeeded.
func (b *Backoff) Reset() { b.failures = 0 }

// Next records that a request has failed, and returns how long to wait before the next one.
// Without a response the pause is short, because the server may be back at any time. If the
// server is overloaded (429) or fails (5xx), the pause grows with each failure, and is at least
// as long as the server asks for. Part of it is random, so that not all clients retry at
// once.
func (b *Backoff) Next(err error) time.Duration {
	n := b.failures
	b.failures++
	var status *StatusError
	switch {
	case !errors.As(err, &status):
		return backoff.Pause(n)
	case !status.isOverload():
		return deniedPause
	}
	pause := max(overloaded.Pause(n), status.RetryAfter)
	return pause + rand.N(pause/10)
}

// isOverload reports whether the same request may succeed later without a change.
func (e *StatusError) isOverload() bool {
	return e.Code == http.StatusTooManyRequests || e.Code >= http.StatusInternalServerError
}

// retryAfter parses the header Retry-After: a number of seconds, or a time.
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
