package expose

import (
	"maps"
	"slices"
	"time"

	"dynamo-metrics/internal/fleet"

	"github.com/prometheus/client_golang/prometheus"
)

// Build says which build of the program is running.
type Build struct{ Version, Revision, GoVersion string }

// Collector writes one Snapshot of the Fleet as metrics.
type Collector struct {
	Fleet *fleet.Fleet
	Build Build
	Model string           // label model of llm_worker_info; may be empty
	Now   func() time.Time // advances the Fleet's clock before each Snapshot

	descs map[string]*prometheus.Desc
}

// NewRegistry is a registry with the Fleet's metrics and none else.
func NewRegistry(c Collector) *prometheus.Registry {
	c.descs = descriptions()
	r := prometheus.NewRegistry()
	r.MustRegister(&c)
	return r
}

// labelled is a family of the table with its labels.
type labelled struct {
	family
	labels []string
}

// table is the whole metric table.
func table() []labelled {
	var all []labelled
	for _, f := range workerFamilies {
		all = append(all, labelled{f.family, []string{"component", "endpoint", "worker_id"}})
	}
	for _, f := range endpointFamilies {
		all = append(all, labelled{f.family, []string{"component", "endpoint"}})
	}
	for _, f := range programFamilies {
		all = append(all, labelled{f.family, f.labels})
	}
	return append(all,
		labelled{workerInfo, []string{"component", "endpoint", "worker_id", "worker_id_hex", "source", "model"}},
		labelled{workersByState, []string{"component", "endpoint", "state"}},
		labelled{buildInfo, []string{"version", "revision", "goversion"}},
		labelled{pollDuration, nil},
	)
}

// HasLabel reports whether a metric that is pushed has a label of this name, which
// therefore cannot be part of a grouping key.
func HasLabel(name string) bool {
	others := []string{"job", "quantile", "le"} // of the group itself, and of go_* and histograms
	return slices.Contains(others, name) || slices.ContainsFunc(table(), func(f labelled) bool {
		return slices.Contains(f.labels, name)
	})
}

// Names lists every metric of the table, sorted.
func Names() []string { return slices.Sorted(maps.Keys(descriptions())) }

// descriptions are those of the whole table, by name.
func descriptions() map[string]*prometheus.Desc {
	descs := make(map[string]*prometheus.Desc)
	for _, f := range table() {
		descs[f.name] = prometheus.NewDesc(f.name, f.help, f.labels, nil)
	}
	return descs
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	c.Fleet.Advance(c.Now())
	s := c.Fleet.Snapshot()
	send := func(f family, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(c.descs[f.name], f.kind, v, labels...)
	}
	for i := range s.Workers {
		c.worker(&s.Workers[i], send)
	}
	for i := range s.Endpoints {
		endpoint(&s.Endpoints[i], send)
	}
	t := &c.Fleet.Tally
	for _, f := range programFamilies {
		for _, p := range f.points(t) {
			send(f.family, p.value, p.labels...)
		}
	}
	send(buildInfo, 1, c.Build.Version, c.Build.Revision, c.Build.GoVersion)
	ch <- pollHistogram(c.descs[pollDuration.name], t.PollDurations())
}

type sender func(f family, v float64, labels ...string)

func (c *Collector) worker(w *fleet.WorkerState, send sender) {
	for _, f := range workerFamilies {
		if v := f.value(w); v.OK {
			send(f.family, v.V, w.Component, w.Name, w.Label)
		}
	}
	if w.Load.OK {
		send(workerInfo, 1, w.Component, w.Name, w.Label, w.ID.Hex(), "stats", c.Model)
	}
}

func endpoint(e *fleet.EndpointState, send sender) {
	for _, f := range endpointFamilies {
		if v := f.value(e); v.OK {
			send(f.family, v.V, e.Component, e.Name)
		}
	}
	if !e.Counted {
		return
	}
	for _, state := range workerStates {
		send(workersByState, float64(state.count(e)), e.Component, e.Name, state.name)
	}
}

func pollHistogram(desc *prometheus.Desc, h fleet.Histogram) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Buckets))
	for i, bound := range fleet.PollBuckets {
		buckets[bound] = h.Buckets[i]
	}
	return prometheus.MustNewConstHistogram(desc, h.Count, h.Sum, buckets)
}
