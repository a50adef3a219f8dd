package mock

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"dynamo-metrics/internal/fleet"
)

// dice is the original's load: every value drawn anew every time, whatever the others.
type randomLoad struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (d *randomLoad) load() fleet.Load {
	d.mu.Lock()
	defer d.mu.Unlock()
	const total = 100
	return fleet.Load{
		ActiveSlots: fleet.Some(d.rng.Uint64N(total + 1)),
		TotalSlots:  fleet.Some[uint64](total),
		Waiting:     fleet.Some(d.rng.Uint64N(total + 1)),
		KVActive:    fleet.Some(d.rng.Uint64N(total + 1)),
		KVTotal:     fleet.Some[uint64](total),
		CacheUsage:  fleet.Some(d.rng.Float64()),
		HitRate:     fleet.Some(d.rng.Float64()),
	}
}

// A walk takes a step each stride of time, however often somebody looks.
const walkStep = 250 * time.Millisecond

// The size of a walking worker.
const (
	walkSlots  = 64
	walkBlocks = 1024
)

// walk is a load that moves like a real worker's: the demand wanders around seven
// tenths of what the worker can serve, what goes beyond waits, and everything else
// follows from it.
type randomWalk struct {
	mu      sync.Mutex
	rng     *rand.Rand
	start   time.Time
	steps   int64
	demand  drift // requests wanted, in parts of the slots
	share   drift // blocks of a full worker's requests, in parts of the blocks
	hitRate drift
}

func newRandomWalk(rng *rand.Rand, start time.Time) *randomWalk {
	w := &randomWalk{
		rng:     rng,
		start:   start,
		demand:  drift{mean: 0.7, spread: 0.3, min: 0.02, max: 1.5, halfLife: 160},
		share:   drift{mean: 0.85, spread: 0.05, min: 0.6, max: 1, halfLife: 80},
		hitRate: drift{mean: 0.5, spread: 0.15, min: 0.02, max: 0.98, halfLife: 240},
	}
	for _, d := range []*drift{&w.demand, &w.share, &w.hitRate} {
		d.now = d.clamp(d.mean + d.spread*rng.NormFloat64())
	}
	return w
}

func (w *randomWalk) load() fleet.Load { return w.loadAt(time.Since(w.start)) }

// at is the load when the walk has gone on for d, which must not decrease.
func (w *randomWalk) loadAt(d time.Duration) fleet.Load {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ; w.steps < int64(d/walkStep); w.steps++ {
		w.demand.step(w.rng)
		w.share.step(w.rng)
		w.hitRate.step(w.rng)
	}
	served := min(w.demand.now, 1)
	blocks := math.Round(served * w.share.now * walkBlocks)
	return fleet.Load{
		ActiveSlots: fleet.Some(uint64(math.Round(served * walkSlots))),
		TotalSlots:  fleet.Some[uint64](walkSlots),
		Waiting:     fleet.Some(uint64((w.demand.now - served) * walkSlots)),
		KVActive:    fleet.Some(uint64(blocks)),
		KVTotal:     fleet.Some[uint64](walkBlocks),
		CacheUsage:  fleet.Some(blocks / walkBlocks),
		HitRate:     fleet.Some(w.hitRate.now),
	}
}

// drift is a value that wanders around its mean (an Ornstein-Uhlenbeck process).
type drift struct {
	mean, spread float64 // spread is its standard deviation in the long run
	min, max     float64
	halfLife     float64 // steps in which half of a distance to the mean is gone
	now          float64
}

func (d *drift) step(rng *rand.Rand) {
	back := 1 - math.Exp2(-1/d.halfLife)
	d.now = d.clamp(d.now + back*(d.mean-d.now) + d.spread*math.Sqrt(2*back)*rng.NormFloat64())
}

func (d *drift) clamp(v float64) float64 { return min(max(v, d.min), d.max) }
