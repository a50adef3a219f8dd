package exposition

import (
	"dynamo-metrics/internal/stats"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// histogram is a histogram with both classic and native buckets. The client library's const
// histograms have only one kind.
type histogram struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	source *stats.Histogram
}

func newHistogram(desc *prometheus.Desc, h *stats.Histogram, labels ...string) prometheus.Metric {
	return histogram{desc: desc, labels: prometheus.MakeLabelPairs(desc, labels), source: h}
}

// Desc implements prometheus.Metric.
func (m histogram) Desc() *prometheus.Desc { return m.desc }

// Write implements prometheus.Metric.
func (m histogram) Write(out *dto.Metric) error {
	h := &dto.Histogram{
		SampleCount:   proto.Uint64(m.source.Count),
		SampleSum:     proto.Float64(m.source.Sum),
		Schema:        proto.Int32(stats.NativeSchema),
		ZeroThreshold: proto.Float64(stats.NativeZeroThreshold),
		ZeroCount:     proto.Uint64(m.source.ZeroCount),
	}
	cumulative := uint64(0)
	for i, bound := range m.source.Bounds {
		cumulative += m.source.Counts[i]
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: proto.Float64(bound), CumulativeCount: proto.Uint64(cumulative)})
	}
	h.PositiveSpan, h.PositiveDelta = spans(m.source.FirstNative, m.source.NativeCounts)
	out.Label, out.Histogram = m.labels, h
	return nil
}

// spans encodes counts, which are those of the native buckets from the index first on. A run is a
// series of buckets without long gaps, and a delta is the difference from the count before.
func spans(first int, counts []uint64) (runs []*dto.BucketSpan, deltas []int64) {
	var before int64
	next := 0 // index after the last run
	count := func(n int64) {
		*runs[len(runs)-1].Length++
		deltas = append(deltas, n-before)
		before = n
		next++
	}
	for i, n := range counts {
		index := first + i
		if n == 0 {
			continue
		}
		if len(runs) == 0 || index-next > 2 { // a new span takes more bytes than two empty buckets
			runs = append(runs, &dto.BucketSpan{Offset: proto.Int32(int32(index - next)), Length: proto.Uint32(0)})
			next = index
		}
		for next < index {
			count(0)
		}
		count(int64(n))
	}
	return runs, deltas
}
