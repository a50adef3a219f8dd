package expose

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

// Build says which build of the program is running.
type Build struct{ Version, Revision, GoVersion string }

// Collector writes one Snapshot of the Fleet as metrics.
type Collector struct {
	Fleet *fleet.Fleet
	Build Build
	Model string           // label model of llm_worker_info; may be empty
	Now   func() time.Time // advances the Fleet's clock before each Snapshot

	// Standby, if not nil, reports whether another program shows the Fleet: then a
	// scrape gets what the program itself has done and no more, unless it asks for it.
	Standby func() bool

	descs map[string]*prometheus.Desc
}

// Metrics are all that is served and pushed.
type Metrics struct {
	*prometheus.Registry                             // everything: for protobuf, and to be pushed
	rest                 *prometheus.Registry        // all but the Fleet's
	press                *press                      // of what is served
	forms, without       map[expfmt.FormatType]*form // of everything, and without the Fleet's
	standby              func() bool
}

// NewMetrics are the metrics of the Fleet, of the program, and of others.
func NewMetrics(c Collector, others ...prometheus.Collector) *Metrics {
	c.descs = descriptions(c.Fleet.Target().MultipleNamespaces())
	program := programCollector{fleet: c.Fleet, build: c.Build, descs: c.descs, made: new(constants)}
	m := &Metrics{Registry: prometheus.NewRegistry(), rest: prometheus.NewRegistry(), standby: c.Standby}
	for _, o := range append(others, program) {
		m.MustRegister(o)
		m.rest.MustRegister(o)
	}
	m.MustRegister(&c)
	m.press = newPress(&c.Fleet.Stats.SlowScrapesCut)
	m.forms, m.without = make(map[expfmt.FormatType]*form), make(map[expfmt.FormatType]*form)
	for _, format := range expfmt.DefaultAcceptedFormats() {
		m.forms[format.FormatType()] = newForm(func(to *bytes.Buffer) error { return encode(m, format, to) })
		m.without[format.FormatType()] = newForm(func(to *bytes.Buffer) error { return encode(m.rest, format, to) })
	}
	texts := sync.Pool{New: func() any { return &text{fleet: c.Fleet, now: c.Now, model: c.Model, rest: m.rest} }}
	m.forms[expfmt.TypeTextPlain] = newForm(func(to *bytes.Buffer) error { // the fast way to the same page
		t := texts.Get().(*text)
		defer texts.Put(t)
		return t.page(to)
	})
	return m
}

// encode writes everything as the library does.
func encode(metrics prometheus.Gatherer, format expfmt.Format, to *bytes.Buffer) error {
	families, err := metrics.Gather()
	encoder := expfmt.NewEncoder(to, format)
	for _, f := range families {
		err = errors.Join(err, encoder.Encode(f))
	}
	return err
}

// labelled is a family of the table with its labels.
type labelled struct {
	family
	labels []string
}

// table is the whole metric table, with the labels where one namespace is watched or
// several.
func table(several bool) []labelled {
	ofEndpoint := []string{"component", "endpoint"}
	if several {
		ofEndpoint = append(ofEndpoint, namespaceLabel)
	}
	ofWorker := append(slices.Clip(ofEndpoint), "worker_id")
	var all []labelled
	for _, f := range workerFamilies {
		all = append(all, labelled{f.family, ofWorker})
	}
	for _, f := range rankFamilies {
		all = append(all, labelled{f.family, append(slices.Clip(ofWorker), "dp_rank")})
	}
	for _, f := range timingFamilies {
		all = append(all, labelled{family{name: f.name, help: f.help}, ofWorker})
	}
	for _, f := range endpointFamilies {
		all = append(all, labelled{f.family, ofEndpoint})
	}
	for _, f := range requestFamilies {
		all = append(all, labelled{family{name: f.name, help: f.help}, ofEndpoint})
	}
	for _, f := range programFamilies {
		all = append(all, labelled{f.family, f.labels})
	}
	return append(all,
		labelled{workerInfo, append(slices.Clip(ofWorker), "worker_id_hex", "source", "model")},
		labelled{workersByState, append(slices.Clip(ofEndpoint), "state")},
		labelled{passDuration, ofWorker},
		labelled{subscribed, []string{"subject", "need"}},
		labelled{targetWorkers, []string{"component", "endpoint"}},
		labelled{buildInfo, []string{"version", "revision", "goversion"}},
		labelled{pollDuration, nil},
		labelled{eventLag, nil},
	)
}

// HasLabel reports whether a metric that is pushed has a label of this name, which
// therefore cannot be part of a grouping key.
func HasLabel(name string) bool {
	others := []string{"job", "quantile", "le"} // of the group itself, and of go_* and histograms
	return slices.Contains(others, name) || slices.ContainsFunc(table(true), func(f labelled) bool {
		return slices.Contains(f.labels, name)
	})
}

// Names lists every metric of the table, sorted.
func Names() []string { return slices.Sorted(maps.Keys(descriptions(false))) }

// descriptions are those of the whole table, by name.
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
		if !ofProgram(name) {
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
		c.worker(&s.Workers[i], send)
		c.durations(&s.Workers[i], ch)
	}
	for i := range s.Endpoints {
		endpoint(&s.Endpoints[i], send, distribution)
	}
}

// labelsOf are the values of the labels of an endpoint, and those that follow them.
func labelsOf(e fleet.Endpoint, others ...string) []string {
	if e.Namespace == "" {
		return append([]string{e.Component, e.Name}, others...)
	}
	return append([]string{e.Component, e.Name, e.Namespace}, others...)
}

// programCollector writes what the program itself has done.
type programCollector struct {
	fleet *fleet.Fleet
	build Build
	descs map[string]*prometheus.Desc
	made  *constants
}

// ofProgram reports whether a family of the table is of the program itself.
func ofProgram(name string) bool { return strings.HasPrefix(name, "dynamo_metrics_") }

// Describe implements prometheus.Collector.
func (c programCollector) Describe(ch chan<- *prometheus.Desc) {
	for name, d := range c.descs {
		if ofProgram(name) {
			ch <- d
		}
	}
}

// Collect implements prometheus.Collector.
func (c programCollector) Collect(ch chan<- prometheus.Metric) {
	t := &c.fleet.Stats
	for _, f := range programFamilies {
		for _, p := range f.points(t) {
			ch <- c.made.metric(c.descs[f.name], f.family, p.value, p.labels...)
		}
	}
	for _, s := range c.fleet.Diagnostics.Subjects() {
		ch <- prometheus.MustNewConstMetric(c.descs[subscribed.name], subscribed.kind, truth(!s.Refused), s.Name, needOf(s))
	}
	if n := c.fleet.TargetWorkers(); n.OK {
		target := c.fleet.Target()
		ch <- prometheus.MustNewConstMetric(c.descs[targetWorkers.name], targetWorkers.kind, float64(n.V), target.Component, target.Name)
	}
	ch <- prometheus.MustNewConstMetric(c.descs[buildInfo.name], buildInfo.kind, 1, c.build.Version, c.build.Revision, c.build.GoVersion)
	polls, lags := t.PollDurations(), t.Lags()
	ch <- newHistogram(c.descs[pollDuration.name], &polls)
	ch <- newHistogram(c.descs[eventLag.name], &lags)
}

type (
	sender      func(f family, v float64, labels ...string)
	distributor func(name string, h *stats.Histogram, labels ...string)
)

func (c *Collector) worker(w *fleet.WorkerState, send sender) {
	for _, f := range workerFamilies {
		if v := f.value(w); v.OK {
			send(f.family, v.V, labelsOf(w.Endpoint, w.Label)...)
		}
	}
	for _, r := range w.Ranks {
		for _, f := range rankFamilies {
			if v := f.value(r); v.OK {
				send(f.family, v.V, labelsOf(w.Endpoint, w.Label, strconv.FormatUint(uint64(r.Number), 10))...)
			}
		}
	}
	if w.Load.OK {
		send(workerInfo, 1, labelsOf(w.Endpoint, w.Label, w.ID.Hex(), w.Source.String(), cmp.Or(w.Model, c.Model))...)
	}
}

// durations are the worker's histogram and summaries.
func (c *Collector) durations(w *fleet.WorkerState, ch chan<- prometheus.Metric) {
	if w.Passes.OK {
		ch <- newHistogram(c.descs[passDuration.name], &w.Passes.V.Seconds, labelsOf(w.Endpoint, w.Label)...)
	}
	for _, f := range timingFamilies {
		if t := f.value(&w.Timings); t.Count > 0 {
			ch <- prometheus.MustNewConstSummary(c.descs[f.name], t.Count, t.Sum, nil, labelsOf(w.Endpoint, w.Label)...)
		}
	}
}

func endpoint(e *fleet.EndpointState, send sender, distribution distributor) {
	for _, f := range endpointFamilies {
		if v := f.value(e); v.OK {
			send(f.family, v.V, labelsOf(e.Endpoint)...)
		}
	}
	if e.Requests != nil {
		for _, f := range requestFamilies {
			distribution(f.name, f.value(e.Requests), labelsOf(e.Endpoint)...)
		}
	}
	if !e.Counted {
		return
	}
	for _, state := range workerStates {
		send(workersByState, float64(state.count(e)), labelsOf(e.Endpoint, state.name)...)
	}
}
