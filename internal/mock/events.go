package mock

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"dynamo-metrics/internal/wire"
)

// hit is the content of a hit-rate event.
type hit struct {
	worker       uint64
	isl, overlap int
}

// encodeHit05 encodes the event of all releases up to 0.5, and encodeHit06 that of 0.6.
func encodeHit05(h hit) []byte {
	return fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, h.worker, h.isl, h.overlap)
}

func encodeHit06(h hit) []byte {
	return fmt.Appendf(nil, `{"worker_id":%d,"dp_rank":0,"isl_blocks":%d,"overlap_blocks":%d}`, h.worker, h.isl, h.overlap)
}

// every calls f immediately and then each interval, until ctx ends or f fails.
func every(ctx context.Context, interval time.Duration, f func() error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := f(); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// publishHits publishes what next returns, once in each EventInterval, as releases up to 0.5 do.
func (p *process) publishHits(ctx context.Context, next func() (hit, bool)) error {
	subject := wire.HitRateSubject(p.Namespace)
	return every(ctx, p.EventInterval, func() error {
		h, ok := next()
		if !ok {
			return nil
		}
		return publish(p.nc, subject, encodeHit05(h))
	})
}

// unregisteredHits returns a source of hits like those of the original mock worker, which name a
// worker that does not exist.
func unregisteredHits(rng *rand.Rand) func() (hit, bool) {
	worker := 1 + rng.Uint64N(1000)
	return func() (hit, bool) {
		isl := rng.IntN(101)
		return hit{worker, isl, rng.IntN(isl + 1)}, true
	}
}

// workerHits returns a source of hits of the worker itself. They come from Config.Hit, or
// are random around the worker's hit rate. There are none while it is not registered.
func workerHits(rng *rand.Rand, w *worker) func() (hit, bool) {
	return func() (hit, bool) {
		id := w.id.Load()
		if id == 0 {
			return hit{}, false
		}
		if w.Hit != nil {
			isl, overlap, ok := w.Hit(w.n)
			return hit{id, isl, overlap}, ok
		}
		isl := 1 + rng.IntN(100)
		rate := w.load().HitRate.V + 0.1*rng.NormFloat64()
		return hit{id, isl, int(math.Round(float64(isl) * min(max(rate, 0), 1)))}, true
	}
}
