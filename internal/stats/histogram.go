package stats

import (
	"math"
	"slices"
)

// Histogram is a histogram of durations in seconds, with both a few classic buckets and the
// buckets of a Prometheus native histogram.
type Histogram struct {
	Count uint64
	Sum   float64

	Bounds []float64 // upper bounds of the classic buckets, ascending
	Counts []uint64  // of each classic bucket, not cumulative; values above the last bound are in none

	FirstNative  int      // index of the first native bucket
	NativeCounts []uint64 // of each native bucket, not cumulative; the bucket with index i is (2^((i-1)/8), 2^(i/8)]
	ZeroCount    uint64   // values up to NativeZeroThreshold
}

const (
	// NativeSchema is the schema of the native buckets: 2^3 buckets for each power of two.
	NativeSchema = 3
	// NativeZeroThreshold is the width of the zero bucket in seconds. It bounds the native
	// buckets from below, as nativeMax does from above.
	NativeZeroThreshold = 1e-6
	nativeMax           = 1 << 13 // seconds: more than two hours
)

// Upper bounds of the classic buckets in seconds.
var (
	PollBounds       = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5}
	LagBounds        = []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30}
	PassBounds       = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1}
	FirstTokenBounds = []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
	InterTokenBounds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1}
	RequestBounds    = []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300}
)

// NewHistogram returns an empty histogram with these upper bounds. The caller must not change
// them afterwards.
func NewHistogram(bounds []float64) Histogram {
	return Histogram{Bounds: bounds, Counts: make([]uint64, len(bounds))}
}

// Reset makes h an empty histogram with these upper bounds, and reuses its memory.
func (h *Histogram) Reset(bounds []float64) {
	counts := slices.Grow(h.Counts[:0], len(bounds))[:len(bounds)]
	clear(counts)
	*h = Histogram{Bounds: bounds, Counts: counts, NativeCounts: h.NativeCounts[:0]}
}

// Observe adds one duration, which must be finite and not negative.
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

// addNative adds n to the native bucket with index i.
func (h *Histogram) addNative(i int, n uint64) {
	if len(h.NativeCounts) == 0 {
		h.FirstNative = i
	}
	if i < h.FirstNative {
		h.NativeCounts = slices.Insert(h.NativeCounts, 0, make([]uint64, h.FirstNative-i)...)
		h.FirstNative = i
	}
	if n := i - h.FirstNative + 1 - len(h.NativeCounts); n > 0 {
		h.NativeCounts = append(h.NativeCounts, make([]uint64, n)...) // in one step: single appends would use twice the memory
	}
	h.NativeCounts[i-h.FirstNative] += n
}

// Add adds the values of o, which must have the same bounds.
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

// Clone returns a deep copy, which shares only Bounds.
func (h *Histogram) Clone() Histogram {
	c := *h
	c.Counts, c.NativeCounts = slices.Clone(h.Counts), slices.Clone(h.NativeCounts)
	return c
}

// nativeBounds has the upper bounds of the native buckets between 1/2 and 1.
var nativeBounds = func() (s [1 << NativeSchema]float64) {
	for i := range s {
		s[i] = math.Exp2(float64(i)/float64(len(s)) - 1)
	}
	return s
}()

// nativeBucket returns the index of the native bucket of a positive number.
func nativeBucket(v float64) int {
	fraction, exponent := math.Frexp(v)
	i, _ := slices.BinarySearch(nativeBounds[:], fraction)
	return i + (exponent-1)*len(nativeBounds)
}
