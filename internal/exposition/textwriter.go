package exposition

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// textWriter writes the metrics in the Prometheus text format. It writes the Fleet's metrics
// straight from a Snapshot, whose memory is reused, and the few other metrics with the client
// library. The output is what the library alone would write, which tests compare. The price of
// the speed is that this file repeats the order and the escapes of the format.
type textWriter struct {
	fleet *fleet.Fleet
	now   func() time.Time // advances the Fleet's clock before each Snapshot
	model string
	rest  prometheus.Gatherer // all metrics but the Fleet's

	snapshot *fleet.Snapshot
	body     *bytes.Buffer
	series   []series
	info     []*fleet.WorkerState
}

// series is a series that must be sorted before it is written.
type series struct {
	labels string
	sort   [5]string // the labels' values
	value  float64
}

// writeAll writes all metrics.
func (t *textWriter) writeAll(to *bytes.Buffer) error {
	others, err := t.rest.Gather() // sorted by name
	if err != nil {
		return err
	}
	t.fleet.Advance(t.now())
	t.snapshot = t.fleet.AcquireSnapshot(false)
	defer t.fleet.ReleaseSnapshot(t.snapshot)
	t.body = to
	encoder := expfmt.NewEncoder(to, expfmt.NewFormat(expfmt.TypeTextPlain))
	families := textFamilies
	for _, other := range others {
		for len(families) > 0 && families[0].name < other.GetName() {
			t.writeFamily(families[0])
			families = families[1:]
		}
		if err := encoder.Encode(other); err != nil {
			return err
		}
	}
	for _, f := range families {
		t.writeFamily(f)
	}
	return nil
}

// textFamily is one of the Fleet's metrics with the function that writes its series.
type textFamily struct {
	name, head string
	write      func(t *textWriter, b []byte, name string) []byte
}

// textFamilies are all metrics of the table that come from a Snapshot, sorted by name.
var textFamilies = func() (all []textFamily) {
	add := func(f family, kind string, write func(t *textWriter, b []byte, name string) []byte) {
		head := "# HELP " + f.name + " " + escapeHelp(f.help) + "\n# TYPE " + f.name + " " + kind + "\n"
		all = append(all, textFamily{f.name, head, write})
	}
	for _, f := range workerFamilies {
		add(f.family, kindName(f.kind), func(t *textWriter, b []byte, name string) []byte { return t.workers(b, name, f.value) })
	}
	for _, f := range endpointFamilies {
		add(f.family, kindName(f.kind), func(t *textWriter, b []byte, name string) []byte { return t.endpoints(b, name, f.value) })
	}
	for _, f := range rankFamilies {
		add(f.family, kindName(f.kind), func(t *textWriter, b []byte, name string) []byte { return t.ranks(b, name, f.value) })
	}
	for _, f := range timingFamilies {
		add(family{name: f.name, help: f.help}, "summary", func(t *textWriter, b []byte, name string) []byte { return t.timings(b, name, f.value) })
	}
	for _, f := range requestFamilies {
		add(family{name: f.name, help: f.help}, "histogram", func(t *textWriter, b []byte, name string) []byte { return t.requests(b, name, f.value) })
	}
	add(passDuration, "histogram", (*textWriter).passes)
	add(workersByState, "gauge", (*textWriter).states)
	add(workerInfo, "gauge", (*textWriter).infos)
	slices.SortFunc(all, func(a, b textFamily) int { return strings.Compare(a.name, b.name) })
	return all
}()

func kindName(v prometheus.ValueType) string {
	if v == prometheus.CounterValue {
		return "counter"
	}
	return "gauge"
}

// writeFamily writes one metric, unless it has no series.
func (t *textWriter) writeFamily(f textFamily) {
	before := t.body.Len()
	b := append(t.body.AvailableBuffer(), f.head...)
	head := len(b)
	b = f.write(t, b, f.name)
	if len(b) == head {
		return
	}
	t.body.Truncate(before)
	t.body.Write(b)
}

// eachEndpoint calls f with each endpoint and its workers.
func (t *textWriter) eachEndpoint(f func(e *fleet.EndpointState, rows []fleet.WorkerState)) {
	rows := t.snapshot.Workers
	for i := range t.snapshot.Endpoints {
		e := &t.snapshot.Endpoints[i]
		f(e, rows[:e.Rows])
		rows = rows[e.Rows:]
	}
}

func (t *textWriter) workers(b []byte, name string, value func(*fleet.WorkerState) optFloat) []byte {
	t.eachEndpoint(func(e *fleet.EndpointState, rows []fleet.WorkerState) {
		start := name + "{" + endpointLabels(e.Endpoint) + `,worker_id="`
		for i := range rows {
			if v := value(&rows[i]); v.OK {
				b = append(b, start...)
				b = appendEscaped(b, rows[i].Label)
				b = append(b, `"} `...)
				b = append(appendNumber(b, v.V), '\n')
			}
		}
	})
	return b
}

func (t *textWriter) endpoints(b []byte, name string, value func(*fleet.EndpointState) optFloat) []byte {
	for i := range t.snapshot.Endpoints {
		e := &t.snapshot.Endpoints[i]
		if v := value(e); v.OK {
			b = appendSeries(b, name, endpointLabels(e.Endpoint), v.V)
		}
	}
	return b
}

func (t *textWriter) states(b []byte, name string) []byte {
	for i := range t.snapshot.Endpoints {
		e := &t.snapshot.Endpoints[i]
		if !e.Counted {
			continue
		}
		for _, s := range workerStates {
			b = appendSeries(b, name, endpointLabels(e.Endpoint)+`,state="`+s.name+`"`, float64(s.count(e)))
		}
	}
	return b
}

// ranks appends the series of ranks, sorted by component, dp_rank, namespace, endpoint and
// worker_id.
func (t *textWriter) ranks(b []byte, name string, value func(fleet.RankState) optFloat) []byte {
	t.series = t.series[:0]
	for i := range t.snapshot.Workers {
		w := &t.snapshot.Workers[i]
		for _, r := range w.Ranks {
			if v := value(r); v.OK {
				rank := strconv.FormatUint(uint64(r.Number), 10)
				labels := label("component", w.Component) + "," + label("dp_rank", rank) + ","
				if w.Namespace != "" {
					labels += label(namespaceLabel, w.Namespace) + ","
				}
				t.series = append(t.series, series{
					labels: labels + label("endpoint", w.Name) + "," + label("worker_id", w.Label),
					sort:   [5]string{w.Component, rank, w.Namespace, w.Name, w.Label},
					value:  v.V,
				})
			}
		}
	}
	slices.SortFunc(t.series, func(a, b series) int { return slices.Compare(a.sort[:], b.sort[:]) })
	for _, s := range t.series {
		b = appendSeries(b, name, s.labels, s.value)
	}
	return b
}

// infos appends the series of workerInfo. Model and source sort before worker_id.
func (t *textWriter) infos(b []byte, name string) []byte {
	t.eachEndpoint(func(e *fleet.EndpointState, rows []fleet.WorkerState) {
		t.info = t.info[:0]
		for i := range rows {
			if rows[i].Load.OK {
				t.info = append(t.info, &rows[i])
			}
		}
		slices.SortStableFunc(t.info, func(a, b *fleet.WorkerState) int {
			return cmp.Or(strings.Compare(cmp.Or(a.Model, t.model), cmp.Or(b.Model, t.model)), strings.Compare(a.Source.String(), b.Source.String()))
		})
		start := name + "{" + endpointLabels(e.Endpoint) + `,model="`
		for _, w := range t.info {
			b = appendEscaped(append(b, start...), cmp.Or(w.Model, t.model))
			b = append(append(b, `",source="`...), w.Source.String()...)
			b = appendEscaped(append(b, `",worker_id="`...), w.Label)
			b = append(b, `",worker_id_hex="`...)
			if !w.ID.IsStatic() {
				b = strconv.AppendUint(b, w.ID.Lease, 16)
			}
			b = append(b, "\"} 1\n"...)
		}
	})
	return b
}

func (t *textWriter) passes(b []byte, name string) []byte {
	for i := range t.snapshot.Workers {
		if w := &t.snapshot.Workers[i]; w.Passes.OK {
			b = appendHistogram(b, name, workerLabels(w), &w.Passes.V.Seconds)
		}
	}
	return b
}

func (t *textWriter) timings(b []byte, name string, value func(*fleet.Timings) fleet.Timing) []byte {
	for i := range t.snapshot.Workers {
		w := &t.snapshot.Workers[i]
		if v := value(&w.Timings); v.Count > 0 {
			labels := workerLabels(w)
			b = appendSeries(b, name+"_sum", labels, v.Sum)
			b = appendSeries(b, name+"_count", labels, float64(v.Count))
		}
	}
	return b
}

func (t *textWriter) requests(b []byte, name string, value func(*fleet.Histograms) *stats.Histogram) []byte {
	for i := range t.snapshot.Endpoints {
		if e := &t.snapshot.Endpoints[i]; e.Requests != nil {
			b = appendHistogram(b, name, endpointLabels(e.Endpoint), value(e.Requests))
		}
	}
	return b
}

func appendHistogram(b []byte, name, labels string, h *stats.Histogram) []byte {
	bucket := func(bound float64, n uint64) {
		b = append(append(append(b, name...), "_bucket{"...), labels...)
		b = appendNumber(append(b, `,le="`...), bound)
		b = append(appendNumber(append(b, `"} `...), float64(n)), '\n')
	}
	cumulative := uint64(0)
	for i, bound := range h.Bounds {
		cumulative += h.Counts[i]
		bucket(bound, cumulative)
	}
	bucket(math.Inf(1), h.Count)
	b = appendSeries(b, name+"_sum", labels, h.Sum)
	return appendSeries(b, name+"_count", labels, float64(h.Count))
}

func appendSeries(b []byte, name, labels string, value float64) []byte {
	b = append(append(append(b, name...), '{'), labels...)
	return append(appendNumber(append(b, "} "...), value), '\n')
}

// appendNumber writes a number as the client library does: as short as possible, with an exponent
// from a million on.
func appendNumber(b []byte, v float64) []byte {
	if v >= 0 && v < 1e6 && v == math.Trunc(v) {
		return strconv.AppendUint(b, uint64(v), 10)
	}
	if math.IsInf(v, 1) {
		return append(b, "+Inf"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

func workerLabels(w *fleet.WorkerState) string {
	return endpointLabels(w.Endpoint) + "," + label("worker_id", w.Label)
}

func endpointLabels(e fleet.Endpoint) string {
	labels := label("component", e.Component) + ","
	if e.Namespace != "" {
		labels += label(namespaceLabel, e.Namespace) + ","
	}
	return labels + label("endpoint", e.Name)
}

func label(name, value string) string {
	return string(appendEscaped([]byte(name+`="`), value)) + `"`
}

// appendEscaped writes a label value.
func appendEscaped(b []byte, value string) []byte {
	if !strings.ContainsAny(value, "\\\"\n") {
		return append(b, value...)
	}
	return append(b, strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value)...)
}

func escapeHelp(s string) string { return strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(s) }
