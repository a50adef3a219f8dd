package stats

import (
	"testing"

	"dynamo-metrics/internal/testutil"
)

// TestHistogramIsBounded checks that no durations give a histogram more than 264 native
// buckets (2.1 kB). With it a rank takes up to 3 kB.
func TestHistogramIsBounded(t *testing.T) {
	h := NewHistogram(PassBounds)
	for _, seconds := range []float64{0, 1e-9, 1e-6, 1.001e-6, 1e-3, 1, 8191, 8193, 1e9, 1e300} {
		h.Observe(seconds)
	}
	testutil.Equal(t, "native buckets", len(h.NativeCounts), 264)
	testutil.Equal(t, "values in the zero bucket", h.ZeroCount, 3)
	testutil.Equal(t, "values in the last bucket", h.NativeCounts[263], 4)
}
