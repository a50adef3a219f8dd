package monitor

import (
	"math"
	"time"
	"unsafe"
)

// The history has historyLength samples, one each step.
const (
	historyStep   = 5 * time.Second
	historyLength = 180 // 15 minutes
)

// floatHistory is the history of one value of the fleet or of an endpoint. NaN means no value.
type floatHistory [historyLength]float32

func (f *floatHistory) put(slot int, v number) {
	f[slot] = float32(math.NaN())
	if v.OK {
		f[slot] = float32(v.V)
	}
}

// newFloatHistory returns a history without values.
func newFloatHistory() (f floatHistory) {
	for i := range f {
		f.put(i, number{})
	}
	return f
}

// compactHistory is the history of one value of a row. There may be many of these, so fractions
// take one byte and counts two. A nil history has never had a value.
type compactHistory[T uint8 | uint16] [historyLength]T

// fractionSteps is how many steps a stored fraction has from 0 to 1.
const fractionSteps = 250

// putSample writes the sample of a slot as v*parts, and allocates the history for its first
// value. A value that is too large is stored as the largest. All bits set means no value.
func putSample[T uint8 | uint16](r **compactHistory[T], slot int, v number, parts float64) (grown int64) {
	missing := ^T(0)
	n := missing
	if v.OK && v.V >= 0 { // NaN is never larger
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

// at returns the sample of a slot, or NaN if there is none.
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

// historyClock counts the steps of the history.
type historyClock struct {
	total   int  // since the start
	lastDue tick // when the last step ended
}

// kept returns how many steps the history has.
func (c *historyClock) kept() int { return min(c.total, historyLength) }

// slot returns the index of the sample from this many steps ago.
func (c *historyClock) slot(ago int) int { return (c.total - 1 - ago + historyLength) % historyLength }
