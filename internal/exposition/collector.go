package exposition

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// Build identifies the running build of the program.
type Build struct{ Version, Revision, GoVersion string }

// Collector writes one Snapshot of the Fleet as metrics.
type Collector struct {
	Fleet *fleet.Fleet
	Build Build
	Model string           // label model of llm_worker_info; may be empty
	Now   func() time.Time // advances the Fleet's clock before each Snapshot

	// Standby, if not nil, reports whether another instance serves the Fleet's metrics. A
	// scrape then gets only the program's own metrics, unless it requests all of them.
	Standby func() bool

	descs map[string]*prometheus.Desc
}

// Metrics has all metrics that are served and pushed.
type Metrics struct {
	*prometheus.Registry                         // all metrics, for protobuf and for pushes
	program                 *prometheus.Registry // all but the Fleet's metrics
	cache                   *pageCache
	formats, programFormats map[expfmt.FormatType]*outputFormat // of all metrics, and of all but the Fleet's
	standby                 func() bool
}

// NewMetrics returns the metrics of the Fleet, of the program, and of other collectors.
func NewMetrics(c Collector, others ...prometheus.Collector) *Metrics {
	c.descs = descriptions(c.Fleet.Target().MultipleNamespaces())
	program := programCollector{fleet: c.Fleet, build: c.Build, descs: c.descs, constants: new(constMetrics)}
	m := &Metrics{Registry: prometheus.NewRegistry(), program: prometheus.NewRegistry(), standby: c.Standby}
	for _, o := range append(others, program) {
		m.MustRegister(o)
		m.program.MustRegister(o)
	}
	m.MustRegister(&c)
	m.cache = newPageCache(&c.Fleet.Stats.SlowScrapesCut)
	m.formats, m.programFormats = make(map[expfmt.FormatType]*outputFormat), make(map[expfmt.FormatType]*outputFormat)
	for _, format := range expfmt.DefaultAcceptedFormats() {
		m.formats[format.FormatType()] = newOutputFormat(func(to *bytes.Buffer) error { return encode(m, format, to) })
		m.programFormats[format.FormatType()] = newOutputFormat(func(to *bytes.Buffer) error { return encode(m.program, format, to) })
	}
	texts := sync.Pool{New: func() any { return &textWriter{fleet: c.Fleet, now: c.Now, model: c.Model, rest: m.program} }}
	m.formats[expfmt.TypeTextPlain] = newOutputFormat(func(to *bytes.Buffer) error { // faster, with the same output
		t := texts.Get().(*textWriter)
		defer texts.Put(t)
		return t.writeAll(to)
	})
	return m
}

// encode writes all metrics with the client library.
func encode(metrics prometheus.Gatherer, format expfmt.Format, to *bytes.Buffer) error {
	families, err := metrics.Gather()
	encoder := expfmt.NewEncoder(to, format)
	for _, f := range families {
		err = errors.Join(err, encoder.Encode(f))
	}
	return err
}

// labelledFamily is a metric of the table with its labels.
type labelledFamily struct {
	family
	labels []string
}

// table returns the whole metric table. The labels depend on whether several namespaces are
// watched.
func table(several bool) []labelledFamily {
	ofEndpoint := []string{"component", "endpoint"}
	if several {
		ofEndpoint = append(ofEndpoint, namespaceLabel)
	}
	ofWorker := append(slices.Clip(ofEndpoint), "worker_id")
	var all []labelledFamily
	for _, f := range workerFamilies {
		all = append(all, labelledFamily{f.family, ofWorker})
	}
	for _, f := range rankFamilies {
		all = append(all, labelledFamily{f.family, append(slices.Clip(ofWorker), "dp_rank")})
	}
	for _, f := range timingFamilies {
		all = append(all, labelledFamily{family{name: f.name, help: f.help}, ofWorker})
	}
	for _, f := range endpointFamilies {
		all = append(all, labelledFamily{f.family, ofEndpoint})
	}
	for _, f := range requestFamilies {
		all = append(all, labelledFamily{family{name: f.name, help: f.help}, ofEndpoint})
	}
	for _, f := range programFamilies {
		all = append(all, labelledFamily{f.family, f.labels})
	}
	return append(all,
		labelledFamily{workerInfo, append(slices.Clip(ofWorker), "worker_id_hex", "source", "model")},
		labelledFamily{workersByState, append(slices.Clip(ofEndpoint), "state")},
		labelledFamily{passDuration, ofWorker},
		labelledFamily{subscribed, []string{"subject", "need"}},
		labelledFamily{targetWorkers, []string{"component", "endpoint"}},
		labelledFamily{buildInfo, []string{"version", "revision", "goversion"}},
		labelledFamily{pollDuration, nil},
		labelledFamily{eventLag, nil},
	)
}

// HasLabel reports whether a pushed metric has a label of this name. Such a label cannot be part
// of a grouping key.
func HasLabel(name string) bool {
	others := []string{"job", "quantile", "le"} // labels of the group, of go_* summaries and of histograms
	return slices.Contains(others, name) || slices.ContainsFunc(table(true), func(f labelledFamily) bool {
		return slices.Contains(f.labels, name)
	})
}

// Names lists every metric of the table, sorted.
func Names() []string { return slices.Sorted(maps.Keys(descriptions(false))) }

// descriptions returns the descriptions of the whole table, by name.
func descriptions(several bool) map[string]*prometheus.Desc {
	descs := make(map[string]*prometheus.Desc)
	for _, f := range table(several) {
		descs[f.name] = prometheus.NewDesc(f.name, f.help, f.labels, nil)
	}
	return descs
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for name, d := range c.descs {
		if !isProgramMetric(name) {
			ch <- d
		}
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	c.Fleet.Advance(c.Now())
	s := c.Fleet.Snapshot()
	send := func(f family, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(c.descs[f.name], f.kind, v, labels...)
	}
	distribution := func(name string, h *stats.Histogram, labels ...string) {
		ch <- newHistogram(c.descs[name], h, labels...)
	}
	for i := range s.Workers {
		c.sendWorker(&s.Workers[i], send)
		c.sendDurations(&s.Workers[i], ch)
	}
	for i := range s.Endpoints {
		sendEndpoint(&s.Endpoints[i], send, distribution)
	}
}

// labelValues returns the label values of an endpoint, followed by others.
func labelValues(e fleet.Endpoint, others ...string) []string {
	if e.Namespace == "" {
		return append([]string{e.Component, e.Name}, others...)
	}
	return append([]string{e.Component, e.Name, e.Namespace}, others...)
}

// programCollector collects the program's own metrics.
type programCollector struct {
	fleet     *fleet.Fleet
	build     Build
	descs     map[string]*prometheus.Desc
	constants *constMetrics
}

// isProgramMetric reports whether a metric of the table is one of the program's own.
func isProgramMetric(name string) bool { return strings.HasPrefix(name, "dynamo_metrics_") }

// Describe implements prometheus.Collector.
func (c programCollector) Describe(ch chan<- *prometheus.Desc) {
	for name, d := range c.descs {
		if isProgramMetric(name) {
			ch <- d
		}
	}
}

// Collect implements prometheus.Collector.
func (c programCollector) Collect(ch chan<- prometheus.Metric) {
	st := &c.fleet.Stats
	for _, f := range programFamilies {
		for _, p := range f.points(st) {
			ch <- c.constants.metric(c.descs[f.name], f.family, p.value, p.labels...)
		}
	}
	for _, s := range c.fleet.Diagnostics.Subjects() {
		ch <- prometheus.MustNewConstMetric(c.descs[subscribed.name], subscribed.kind, boolValue(!s.Refused), s.Name, needOf(s))
	}
	if n := c.fleet.TargetWorkers(); n.OK {
		target := c.fleet.Target()
		ch <- prometheus.MustNewConstMetric(c.descs[targetWorkers.name], targetWorkers.kind, float64(n.V), target.Component, target.Name)
	}
	ch <- prometheus.MustNewConstMetric(c.descs[buildInfo.name], buildInfo.kind, 1, c.build.Version, c.build.Revision, c.build.GoVersion)
	polls, lags := st.PollDurations(), st.Lags()
	ch <- newHistogram(c.descs[pollDuration.name], &polls)
	ch <- newHistogram(c.descs[eventLag.name], &lags)
}

type (
	sender          func(f family, v float64, labels ...string)
	histogramSender func(name string, h *stats.Histogram, labels ...string)
)

func (c *Collector) sendWorker(w *fleet.WorkerState, send sender) {
	for _, f := range workerFamilies {
		if v := f.value(w); v.OK {
			send(f.family, v.V, labelValues(w.Endpoint, w.Label)...)
		}
	}
	for _, r := range w.Ranks {
		for _, f := range rankFamilies {
			if v := f.value(r); v.OK {
				send(f.family, v.V, labelValues(w.Endpoint, w.Label, strconv.FormatUint(uint64(r.Number), 10))...)
			}
		}
	}
	if w.Load.OK {
		send(workerInfo, 1, labelValues(w.Endpoint, w.Label, w.ID.Hex(), w.Source.String(), cmp.Or(w.Model, c.Model))...)
	}
}

// sendDurations sends the worker's histogram and summaries.
func (c *Collector) sendDurations(w *fleet.WorkerState, ch chan<- prometheus.Metric) {
	if w.Passes.OK {
		ch <- newHistogram(c.descs[passDuration.name], &w.Passes.V.Seconds, labelValues(w.Endpoint, w.Label)...)
	}
	for _, f := range timingFamilies {
		if t := f.value(&w.Timings); t.Count > 0 {
			ch <- prometheus.MustNewConstSummary(c.descs[f.name], t.Count, t.Sum, nil, labelValues(w.Endpoint, w.Label)...)
		}
	}
}

func sendEndpoint(e *fleet.EndpointState, send sender, distribution histogramSender) {
	for _, f := range endpointFamilies {
		if v := f.value(e); v.OK {
			send(f.family, v.V, labelValues(e.Endpoint)...)
		}
	}
	if e.Requests != nil {
		for _, f := range requestFamilies {
			distribution(f.name, f.value(e.Requests), labelValues(e.Endpoint)...)
		}
	}
	if !e.Counted {
		return
	}
	for _, state := range workerStates {
		send(workersByState, float64(state.count(e)), labelValues(e.Endpoint, state.name)...)
	}
}
