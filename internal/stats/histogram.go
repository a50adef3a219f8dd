package stats

import (
	"math"
	"slices"
)

// Histogram is a distribution of durations in seconds, in two resolutions: a few
// classic buckets, and those of a Prometheus native histogram.
type Histogram struct {
	Count uint64
	Sum   float64

	Bounds []float64 // upper bounds of the classic buckets, ascending
	Counts []uint64  // in each of them alone; what is above the last Bound is in none

	FirstNative  int      // index of the first native bucket
	NativeCounts []uint64 // in each native bucket alone; index i is for (2^((i-1)/8), 2^(i/8)]
	ZeroCount    uint64   // at most NativeZero
}

const (
	// NativeSchema is the resolution of the native buckets: 2^3 for each doubling.
	NativeSchema = 3
	// NativeZero is, in seconds, what is as good as nothing. It bounds the native
	// buckets from below, as nativeTop does from above.
	NativeZeroThreshold = 1e-6
	nativeMax           = 1 << 13 // seconds: more than two hours
)

// Bounds of the histograms, in seconds.
var (
	PollBounds       = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5}
	LagBounds        = []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30}
	PassBounds       = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1}
	FirstTokenBounds = []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
	InterTokenBounds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1}
	RequestBounds    = []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300}
)

// NewHistogram is an empty one with these upper bounds, which stay the caller's.
func NewHistogram(bounds []float64) Histogram {
	return Histogram{Bounds: bounds, Counts: make([]uint64, len(bounds))}
}

// Reset makes h an empty one with these upper bounds in the memory that it has.
func (h *Histogram) Reset(bounds []float64) {
	counts := slices.Grow(h.Counts[:0], len(bounds))[:len(bounds)]
	clear(counts)
	*h = Histogram{Bounds: bounds, Counts: counts, NativeCounts: h.NativeCounts[:0]}
}

// Observe books one duration. It must be finite and not negative.
func (h *Histogram) Observe(seconds float64) {
	h.Count++
	h.Sum += seconds
	if i, _ := slices.BinarySearch(h.Bounds, seconds); i < len(h.Bounds) {
		h.Counts[i]++
	}
	if seconds <= NativeZeroThreshold {
		h.ZeroCount++
		return
	}
	h.addNative(nativeBucket(min(seconds, nativeMax)), 1)
}

// observeFine books n in the native bucket of index i.
func (h *Histogram) addNative(i int, n uint64) {
	if len(h.NativeCounts) == 0 {
		h.FirstNative = i
	}
	if i < h.FirstNative {
		h.NativeCounts = slices.Insert(h.NativeCounts, 0, make([]uint64, h.FirstNative-i)...)
		h.FirstNative = i
	}
	if n := i - h.FirstNative + 1 - len(h.NativeCounts); n > 0 {
		h.NativeCounts = append(h.NativeCounts, make([]uint64, n)...) // at once: one by one it would take twice the memory
	}
	h.NativeCounts[i-h.FirstNative] += n
}

// Add books all of o, which has the same bounds.
func (h *Histogram) Add(o *Histogram) {
	h.Count += o.Count
	h.Sum += o.Sum
	h.ZeroCount += o.ZeroCount
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
	for i, n := range o.NativeCounts {
		if n > 0 {
			h.addNative(o.FirstNative+i, n)
		}
	}
}

// Clone is a copy that shares nothing that changes.
func (h *Histogram) Clone() Histogram {
	c := *h
	c.Counts, c.NativeCounts = slices.Clone(h.Counts), slices.Clone(h.NativeCounts)
	return c
}

// steps are the upper bounds of the native buckets between 1/2 and 1.
var nativeBounds = func() (s [1 << NativeSchema]float64) {
	for i := range s {
		s[i] = math.Exp2(float64(i)/float64(len(s)) - 1)
	}
	return s
}()

// nativeBucket is the index of the native bucket of a positive number.
func nativeBucket(v float64) int {
	fraction, exponent := math.Frexp(v)
	i, _ := slices.BinarySearch(nativeBounds[:], fraction)
	return i + (exponent-1)*len(nativeBounds)
}
