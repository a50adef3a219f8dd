package exposition

import (
	"math/rand/v2"
	"testing"

	"dynamo-metrics/internal/stats"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/testing/protocmp"
)

// The oracle is the client library's own histogram, which takes one observation at a time.
func TestHistogramMatchesLibrary(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		h := stats.NewHistogram(stats.PassBounds)
		parts := []stats.Histogram{stats.NewHistogram(stats.PassBounds), stats.NewHistogram(stats.PassBounds)}
		oracle := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "x", Help: "x", Buckets: stats.PassBounds,
			NativeHistogramBucketFactor: 1.1, NativeHistogramZeroThreshold: stats.NativeZeroThreshold,
		})
		for range random.IntN(200) {
			seconds := []float64{0, stats.NativeZeroThreshold, 0.025, 1, random.Float64(), random.ExpFloat64() * 0.01, random.Float64() * 8000}[random.IntN(7)]
			h.Observe(seconds)
			parts[random.IntN(2)].Observe(seconds)
			oracle.Observe(seconds)
		}
		parts[0].Add(&parts[1])
		want := written(t, oracle)
		want.Histogram.CreatedTimestamp = nil
		desc := prometheus.NewDesc("x", "x", nil, nil)
		for name, m := range map[string]prometheus.Metric{"observed": newHistogram(desc, &h), "added": newHistogram(desc, &parts[0])} {
			got := written(t, m)
			if sum := got.Histogram.GetSampleSum() - want.Histogram.GetSampleSum(); sum*sum < 1e-9 {
				got.Histogram.SampleSum = want.Histogram.SampleSum // added in another order
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
}

func written(t *testing.T, m prometheus.Metric) *dto.Metric {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return &out
}
