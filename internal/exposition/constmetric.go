package exposition

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// constMetric is a value with its labels. The client library's const metric builds the labels
// again for each scrape, which would be most of what a scrape of the program's own metrics
// allocates.
type constMetric struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	value  float64
	labels []*dto.LabelPair
}

// Desc implements prometheus.Metric.
func (c *constMetric) Desc() *prometheus.Desc { return c.desc }

// Write implements prometheus.Metric.
func (c *constMetric) Write(out *dto.Metric) error {
	out.Label = c.labels
	if c.kind == prometheus.CounterValue {
		out.Counter = &dto.Counter{Value: &c.value}
	} else {
		out.Gauge = &dto.Gauge{Value: &c.value}
	}
	return nil
}

// constMetrics makes const metrics and caches their labels. The program's own metrics have few
// label sets.
type constMetrics struct {
	mu     sync.Mutex
	labels map[string][]*dto.LabelPair // by the metric's name and the label values
}

func (c *constMetrics) metric(desc *prometheus.Desc, f family, v float64, values ...string) prometheus.Metric {
	return &constMetric{desc, f.kind, v, c.labelPairs(desc, f.name, values)}
}

func (c *constMetrics) labelPairs(desc *prometheus.Desc, name string, values []string) []*dto.LabelPair {
	if len(values) == 0 {
		return nil
	}
	key := name + "\xff" + strings.Join(values, "\xff")
	c.mu.Lock()
	defer c.mu.Unlock()
	pairs, known := c.labels[key]
	if !known {
		if c.labels == nil {
			c.labels = make(map[string][]*dto.LabelPair)
		}
		pairs = prometheus.MakeLabelPairs(desc, values)
		c.labels[key] = pairs
	}
	return pairs
}
