package collect

import (
	"context"
	"time"

	"dynamo-metrics/internal/backoff"
)

// throttle returns a function that passes messages to deliver, and after each burst waits for
// the rest of its period. So a publisher that sends too much takes no processor time from the
// others.
func throttle(ctx context.Context, deliver func([][]byte)) func([][]byte) {
	n, since := 0, time.Now()
	return func(frames [][]byte) {
		deliver(frames)
		if n++; n < burstSize {
			return
		}
		if rest := burstPeriod - time.Since(since); rest > 0 {
			backoff.Wait(ctx, rest)
		}
		n, since = 0, time.Now()
	}
}
