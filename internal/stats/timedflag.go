package stats

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// TimedFlag is a flag that is set for ever or for some time. It expires without a timer, so that
// a process that was suspended does not continue with an outdated flag. The zero TimedFlag is not
// set.
type TimedFlag struct{ until atomic.Int64 } // nanoseconds since epoch; 0 if not set

const forever = math.MaxInt64

// epoch is earlier than every time in a TimedFlag. It has a monotonic clock reading.
var epoch = time.Now().Add(-time.Hour)

// Store sets the flag for ever, or clears it.
func (f *TimedFlag) Store(holds bool) {
	if holds {
		f.until.Store(forever)
	} else {
		f.until.Store(0)
	}
}

// StoreFor sets the flag until d after from.
func (f *TimedFlag) StoreFor(d time.Duration, from time.Time) {
	f.until.Store(int64(from.Add(d).Sub(epoch)))
}

// ExpireIn makes a flag that is set for ever expire after this time. It does not change others.
func (f *TimedFlag) ExpireIn(in time.Duration) {
	f.until.CompareAndSwap(forever, int64(time.Since(epoch)+in))
}

// Load reports whether the flag is set.
func (f *TimedFlag) Load() bool {
	until := f.until.Load()
	return until == forever || until != 0 && int64(time.Since(epoch)) < until
}

// Wait returns when Load reports holds, or when ctx ends.
func (f *TimedFlag) Wait(ctx context.Context, holds bool) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for f.Load() != holds {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
