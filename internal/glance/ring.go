package glance

import (
	"math"
	"time"
	"unsafe"
)

// The history: so many samples, one each step.
const (
	step    = 5 * time.Second
	samples = 180 // 15 minutes
)

// floats is the history of one value of the whole fleet or of an endpoint. NaN is none.
type floats [samples]float32

func (f *floats) put(slot int, v number) {
	f[slot] = float32(math.NaN())
	if v.OK {
		f[slot] = float32(v.V)
	}
}

// newFloats has no value yet.
func newFloats() (f floats) {
	for i := range f {
		f.put(i, number{})
	}
	return f
}

// ring is the history of one value of a row, of which there may be many: fractions in
// one byte, counts in two. A nil ring has never had a value.
type ring[T uint8 | uint16] [samples]T

// shares is how many steps a fraction has to 1: two hundred and fiftieths.
const shares = 250

// put writes the sample of a slot, in so many parts of one, and makes the ring for its
// first value. What is too large is drawn as the largest; all ones are no value.
func put[T uint8 | uint16](r **ring[T], slot int, v number, parts float64) (grown int64) {
	missing := ^T(0)
	n := missing
	if v.OK && v.V >= 0 { // a NaN is not
		n = T(min(math.Round(v.V*parts), float64(missing-1)))
	}
	if *r == nil {
		if n == missing {
			return 0
		}
		*r = new(ring[T])
		for i := range *r {
			(*r)[i] = missing
		}
		grown = int64(unsafe.Sizeof(**r))
	}
	(*r)[slot] = n
	return grown
}

// at is the sample of a slot; NaN if there is none.
func (r *ring[T]) at(slot int, parts float64) float64 {
	if r == nil || r[slot] == ^T(0) {
		return math.NaN()
	}
	return float64(r[slot]) / parts
}

func (r *ring[T]) bytes() int64 {
	if r == nil {
		return 0
	}
	return int64(unsafe.Sizeof(*r))
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
