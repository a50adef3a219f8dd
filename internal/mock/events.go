package mock

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// hit is what a hit-rate event says.
type hit struct {
	worker       uint64
	isl, overlap int
}

// publish publishes what next gives, at once and then every interval, until ctx ends
// or the connection is closed by its owner. What cannot be published now is lost:
// nobody wants to hear of it later.
func publish(ctx context.Context, nc *nats.Conn, namespace string, interval time.Duration, next func() (hit, bool)) error {
	subject := wire.HitRateSubject(namespace)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if h, ok := next(); ok {
			err := nc.Publish(subject, fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, h.worker, h.isl, h.overlap))
			if err != nil && nc.IsClosed() {
				return fmt.Errorf("publish on %s: %w", subject, err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// strangeHits are the original's: of a worker that does not exist.
func strangeHits(rng *rand.Rand) func() (hit, bool) {
	worker := 1 + rng.Uint64N(1000)
	return func() (hit, bool) {
		isl := rng.IntN(101)
		return hit{worker, isl, rng.IntN(isl + 1)}, true
	}
}

// ownHits are of the worker itself, scattered around its hit rate. There are none
// while it is not registered.
func ownHits(rng *rand.Rand, w *worker) func() (hit, bool) {
	return func() (hit, bool) {
		id := w.id.Load()
		if id == 0 {
			return hit{}, false
		}
		isl := 1 + rng.IntN(100)
		part := w.load().HitRate.V + 0.1*rng.NormFloat64()
		return hit{id, isl, int(math.Round(float64(isl) * min(max(part, 0), 1)))}, true
	}
}
