package mock

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"dynamo-metrics/internal/fleet"
)

// randomLoad makes loads like those of the original mock worker. Every value is random, and
// independent of the others and of the last load.
type randomLoad struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (r *randomLoad) load() fleet.Load {
	r.mu.Lock()
	defer r.mu.Unlock()
	const total = 100
	return fleet.Load{
		ActiveSlots: fleet.Some(r.rng.Uint64N(total + 1)),
		TotalSlots:  fleet.Some[uint64](total),
		Waiting:     fleet.Some(r.rng.Uint64N(total + 1)),
		KVActive:    fleet.Some(r.rng.Uint64N(total + 1)),
		KVTotal:     fleet.Some[uint64](total),
		CacheUsage:  fleet.Some(r.rng.Float64()),
		HitRate:     fleet.Some(r.rng.Float64()),
	}
}

// walkStep is the time between two steps of a randomWalk, however often it is read.
const walkStep = 250 * time.Millisecond

// The capacity of a worker whose load is a randomWalk.
const (
	walkSlots  = 64
	walkBlocks = 1024
)

// randomWalk makes loads that change like those of a real worker. The demand varies around 70 %
// of the worker's capacity. Requests beyond the capacity wait, and all other values follow from
// the demand.
type randomWalk struct {
	mu      sync.Mutex
	rng     *rand.Rand
	start   time.Time
	steps   int64
	demand  drift // requested slots, as a fraction of all slots
	share   drift // blocks in use when all slots are, as a fraction of all blocks
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

// loadAt returns the load at time d after the start. D must not decrease between calls.
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

// drift is a value that varies around its mean (an Ornstein-Uhlenbeck process).
type drift struct {
	mean, spread float64 // spread is the standard deviation in the long run
	min, max     float64
	halfLife     float64 // steps in which the distance to the mean halves
	now          float64
}

func (d *drift) step(rng *rand.Rand) {
	back := 1 - math.Exp2(-1/d.halfLife)
	d.now = d.clamp(d.now + back*(d.mean-d.now) + d.spread*math.Sqrt(2*back)*rng.NormFloat64())
}

func (d *drift) clamp(v float64) float64 { return min(max(v, d.min), d.max) }
