package glance

import (
	"math"
	"time"
)

// The history: so many samples, one each step.
const (
	step    = 5 * time.Second
	samples = 180 // 15 minutes
)

// ring is the history of one value in 16 bits a sample: fractions in ten-thousandths,
// as they are shown, or counts. A nil ring has never had a value.
type ring [samples]uint16

const (
	missing  = math.MaxUint16 // no value was reported
	most     = missing - 1    // what is larger is drawn as this
	fraction = 10_000
)

// put writes the sample of a slot, and makes the ring for its first value.
func (r *ring) put(slot int, v uint16) *ring {
	if r == nil {
		if v == missing {
			return nil
		}
		r = new(ring)
		for i := range r {
			r[i] = missing
		}
	}
	r[slot] = v
	return r
}

// share is a fraction as a sample.
func share(v number) uint16 {
	if !v.OK || math.IsNaN(v.V) || v.V < 0 {
		return missing
	}
	return uint16(min(math.Round(v.V*fraction), most))
}

// tally is a count as a sample.
func tally(v number) uint16 {
	if !v.OK || math.IsNaN(v.V) || v.V < 0 {
		return missing
	}
	return uint16(min(v.V, most))
}

// floats is the history of one value of the whole fleet or of an endpoint. NaN is none.
type floats [samples]float32

func (f *floats) put(slot int, v number) {
	f[slot] = float32(math.NaN())
	if v.OK {
		f[slot] = float32(v.V)
	}
}

// clock counts the samples that were taken.
type clock struct {
	taken int    // in all
	last  moment // when the last one was due
}

// kept is how many samples there are.
func (c *clock) kept() int { return min(c.taken, samples) }

// slot is where the sample of so many steps ago is.
func (c *clock) slot(ago int) int { return (c.taken - 1 - ago + samples) % samples }
