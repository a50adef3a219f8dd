package monitor

import (
	"math"
	"time"
	"unsafe"
)

// The history: so many samples, one each step.
const (
	historyStep   = 5 * time.Second
	historyLength = 180 // 15 minutes
)

// floats is the history of one value of the whole fleet or of an endpoint. NaN is none.
type floatHistory [historyLength]float32

func (f *floatHistory) put(slot int, v number) {
	f[slot] = float32(math.NaN())
	if v.OK {
		f[slot] = float32(v.V)
	}
}

// newFloats has no value yet.
func newFloatHistory() (f floatHistory) {
	for i := range f {
		f.put(i, number{})
	}
	return f
}

// ring is the history of one value of a row, of which there may be many: fractions in
// one byte, counts in two. A nil ring has never had a value.
type compactHistory[T uint8 | uint16] [historyLength]T

// shares is how many steps a fraction has to 1: two hundred and fiftieths.
const fractionSteps = 250

// put writes the sample of a slot, in so many parts of one, and makes the ring for its
// first value. What is too large is drawn as the largest; all ones are no value.
func putSample[T uint8 | uint16](r **compactHistory[T], slot int, v number, parts float64) (grown int64) {
	missing := ^T(0)
	n := missing
	if v.OK && v.V >= 0 { // a NaN is not
		n = T(min(math.Round(v.V*parts), float64(missing-1)))
	}
	if *r == nil {
		if n == missing {
			return 0
		}
		*r = new(compactHistory[T])
		for i := range *r {
			(*r)[i] = missing
		}
		grown = int64(unsafe.Sizeof(**r))
	}
	(*r)[slot] = n
	return grown
}

// at is the sample of a slot; NaN if there is none.
func (r *compactHistory[T]) at(slot int, parts float64) float64 {
	if r == nil || r[slot] == ^T(0) {
		return math.NaN()
	}
	return float64(r[slot]) / parts
}

func (r *compactHistory[T]) bytes() int64 {
	if r == nil {
		return 0
	}
	return int64(unsafe.Sizeof(*r))
}

// clock counts the samples that were taken.
type historyClock struct {
	total   int  // in all
	lastDue tick // when the last one was due
}

// kept is how many samples there are.
func (c *historyClock) kept() int { return min(c.total, historyLength) }

// slot is where the sample of so many steps ago is.
func (c *historyClock) slot(ago int) int { return (c.total - 1 - ago + historyLength) % historyLength }
