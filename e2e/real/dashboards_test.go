//go:build real

package real

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"
)

// plot is a panel of a dashboard, with its queries.
type plot struct {
	dashboard, Type, Title, Description string

	FieldConfig struct{ Defaults struct{ Unit string } }
	Targets     []query
	Panels      []plot // the panels of a row
}

type query struct {
	Expr, LegendFormat string
	Instant            bool
}

// legend returns the name of a series in a plot.
func (q query) legend(labels map[string]string) string {
	return regexp.MustCompile(`{{(\w+)}}`).ReplaceAllStringFunc(q.LegendFormat, func(label string) string {
		return labels[strings.Trim(label, "{}")]
	})
}

// output returns what the program prints to standard output.
func output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, "metrics"), args...).Output()
	if err != nil {
		t.Fatalf("metrics %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// plots returns the panels of both dashboards that are not rows, and the expressions of
// their annotations and variables.
func plots(t *testing.T) (all []plot, selectors []string) {
	t.Helper()
	dir := t.TempDir()
	for path := range strings.Lines(output(t, "dashboards", "--output", dir)) {
		text, err := os.ReadFile(strings.TrimSpace(path))
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			UID         string
			Panels      []plot
			Annotations struct{ List []struct{ Expr string } }
			Templating  struct{ List []struct{ Definition string } }
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, p := range append([]plot{p}, p.Panels...) {
				if p.dashboard = d.UID; p.Type != "row" {
					all = append(all, p)
				}
			}
		}
		for _, v := range d.Templating.List[1:] { // the first variable is the data source
			inside, found := strings.CutPrefix(v.Definition, "label_values(")
			if selectors = append(selectors, strings.TrimSuffix(inside, ")")); !found {
				t.Fatalf("%s: variable %q", d.UID, v.Definition)
			}
		}
		for _, a := range d.Annotations.List {
			all = append(all, plot{dashboard: d.UID, Title: annotation, Targets: []query{{Expr: a.Expr}}})
		}
	}
	if len(all) < 50 || len(selectors) < 9 {
		t.Fatalf("%d panels, %d variables", len(all), len(selectors))
	}
	return all, selectors
}

// annotation is used as the title of annotations and variables.
const annotation = "annotation"

// choice is a user's selection of the dashboard's variables.
type choice struct{ component, worker string }

// noChoice is the selection of a user who has made none.
var noChoice = choice{component: ".*", worker: "none"}

// substitute replaces the variables in an expression, as Grafana does.
func (c choice) substitute(expression string) string {
	return strings.NewReplacer(
		"$job", ".*", "$namespace", ".*", "$component", c.component, "$endpoint", ".*", "$worker", c.worker, "$__rate_interval", "10s",
	).Replace(expression)
}

// sample is a series with its value at one time.
type sample struct {
	labels map[string]string
	value  float64
}

// eval returns the result of an expression now, or of a plot of the last ten seconds, from
// which it takes the newest values.
func (p *prometheus) eval(expression string, instant bool) ([]sample, error) {
	type pair [2]any
	var answer struct {
		Result []struct {
			Metric map[string]string
			Value  pair
			Values []pair
		}
	}
	path, parameters := "/api/v1/query", url.Values{"query": {expression}}
	if !instant {
		now, err := p.now()
		if err != nil {
			return nil, err
		}
		path = "/api/v1/query_range"
		parameters["start"], parameters["end"], parameters["step"] = []string{fmt.Sprint(now - 10)}, []string{fmt.Sprint(now)}, []string{"1"}
	}
	if err := p.query(path, parameters, &answer); err != nil {
		return nil, fmt.Errorf("%s: %w", expression, err)
	}
	var samples []sample
	for _, r := range answer.Result {
		if n := len(r.Values); n > 0 {
			r.Value = r.Values[n-1]
		}
		v, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		samples = append(samples, sample{r.Metric, v})
	}
	return samples, nil
}

// now returns Prometheus's current time.
func (p *prometheus) now() (int64, error) {
	var answer struct{ Result [2]any }
	if err := p.query("/api/v1/query", url.Values{"query": {"time()"}}, &answer); err != nil {
		return 0, err
	}
	now, err := strconv.ParseFloat(fmt.Sprint(answer.Result[1]), 64)
	return int64(now), err
}

// checkPanel returns nil if at least one query of the panel has data, and if the panel can
// draw the results of all of them for any number of workers.
func (p *prometheus) checkPanel(v plot, c choice) error {
	n := 0
	legends := make(map[string]bool)
	for _, q := range v.Targets {
		samples, err := p.eval(c.substitute(q.Expr), q.Instant)
		if err != nil {
			return err
		}
		n += len(samples)
		for _, s := range samples {
			legend := q.legend(s.labels)
			again := legends[legend]
			legends[legend] = true
			switch {
			case again && v.Type != "table":
				return fmt.Errorf("more than one series is called %q: %s", legend, q.Expr)
			case s.labels["worker_id"] != "" && v.Type != "table":
				return fmt.Errorf("a line for each worker: %s", q.Expr)
			case s.labels["worker_id"] != "" && !strings.Contains(q.Expr, "topk("):
				return fmt.Errorf("a row for each worker: %s", q.Expr)
			case math.IsNaN(s.value) && !strings.Contains(q.Expr, "histogram_quantile"):
				return fmt.Errorf("%v is not a number: %s", s.labels, q.Expr)
			case v.FieldConfig.Defaults.Unit == "percentunit" && (s.value < 0 || s.value > 1.0001):
				return fmt.Errorf("%v is %v: %s", s.labels, s.value, q.Expr)
			}
		}
	}
	if n == 0 {
		return errors.New("no data")
	}
	return nil
}

// emptyPanels have no data as long as nothing is wrong.
var emptyPanels = []string{annotation, "Firing alerts", "Silent workers"}

// mixedFleet starts mock workers of every release on every event plane, a worker with
// speculative decoding, and a worker with two ranks.
func mixedFleet(s *servers) (ids []string) {
	for _, flags := range [][]string{
		{"0.1.0"}, {"0.1.1"}, {"0.2.1"}, {"0.3.0"}, {"0.5.1"}, {"0.6.1"},
		{"0.9.1", "nats"}, {"0.9.1", "zmq"}, {"1.6.1", "nats"}, {"1.6.1", "zmq"},
	} {
		args := []string{"--correlated", "--event-interval", "0.1", "--release", flags[0]}
		if len(flags) > 1 {
			args = append(args, "--event-plane", flags[1])
		}
		process.Start(s.t, s.env(), filepath.Join(bin, "mock_worker"), args...)
	}
	captured := filepath.Join("testdata", "0.5.1")
	speculative := s.replay(filepath.Join(captured, "stats_reply_1.json"), filepath.Join(captured, "etcd_keys.json"))
	ranked := s.replayOriginals()[0]
	return []string{fmt.Sprint(speculative.id), fmt.Sprint(ranked.id)}
}

// publishRanks publishes the loads of two data parallel ranks of a worker.
func (s *servers) publishRanks(worker string) {
	for rank := range 2 {
		event := fmt.Sprintf(`{"worker_id":%s,"data":{"worker_stats":{"data_parallel_rank":%d,"request_active_slots":3,"request_total_slots":8,"num_requests_waiting":0},`+
			`"kv_stats":{"kv_active_blocks":20,"kv_total_blocks":100,"gpu_cache_usage_perc":0.2,"gpu_prefix_cache_hit_rate":0.5},"spec_decode_stats":null}}`, worker, rank)
		if err := s.nats.Publish("namespace.dynamo.kv_metrics", []byte(event)); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := s.nats.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

func TestDashboardsHaveDataOfAMixedFleet(t *testing.T) {
	t.Parallel()
	process.Installed(t, "prometheus", "prometheus")
	gateway := startGateway(t)
	s := startServers(t)
	special := mixedFleet(s)
	m := s.metrics("--poll-interval", "0.5", "--push", "--push-url", gateway.url, "--push-interval", "1")
	m.waitForPolls(2)
	s.publishRanks(special[1])
	p := startPrometheusWithRules(t, output(t, "rules"), m.url)
	all, selectors := plots(t)

	// Each panel of the worker's dashboard has data for some worker.
	choices := map[string][]choice{"dynamo-fleet": {noChoice, {component: "backend|other"}}}
	testutil.Until(t, func() error {
		workers, err := p.eval(`llm_worker_up == 1`, true)
		if err != nil || len(workers) < 10+2 {
			return fmt.Errorf("%d workers, %v", len(workers), err)
		}
		choices["dynamo-worker"] = nil
		for _, w := range workers {
			choices["dynamo-worker"] = append(choices["dynamo-worker"], choice{component: ".*", worker: w.labels["worker_id"]})
		}
		return nil
	})
	for _, v := range all {
		testutil.Until(t, func() error {
			var data int
			for _, c := range choices[v.dashboard] {
				err := p.checkPanel(v, c)
				if err == nil {
					data++
				} else if err.Error() != "no data" {
					return err
				}
			}
			switch none := slices.Contains(emptyPanels, v.Title); {
			case none && data > 0:
				t.Errorf("%s: %q has data although nothing is wrong in the fleet", v.dashboard, v.Title)
			case !none && (data == 0 || v.dashboard == "dynamo-fleet" && data < len(choices[v.dashboard])):
				return fmt.Errorf("%s: %q has no data", v.dashboard, v.Title)
			}
			return nil
		})
	}
	p.waitForVariables(selectors)
	p.waitForRules()
}

// waitForVariables waits until the variables of the dashboards have values. The variable of
// the namespace has none if no series has that label.
func (p *prometheus) waitForVariables(selectors []string) {
	p.T.Helper()
	for _, s := range selectors {
		at := strings.LastIndex(s, ", ")
		selector, label := noChoice.substitute(s[:at]), s[at+2:]
		testutil.Until(p.T, func() error {
			var values []string
			err := p.query("/api/v1/label/"+label+"/values", url.Values{"match[]": {selector}}, &values)
			if err == nil && (len(values) == 0) != (label == "dynamo_namespace") {
				err = fmt.Errorf("label_values(%s, %s): %v", selector, label, values)
			}
			return err
		})
	}
}

// recorded are the recording rules that have data for any fleet.
var recorded = []string{
	"worker:llm_kv_usage:ratio", "endpoint:llm_worker_up:count", "endpoint:llm_requests_waiting:avg", "endpoint:llm_requests_waiting:avg5m",
	"endpoint:llm_kv_hit_rate_isl_blocks:rate15m", "endpoint:llm_kv_hit_rate:ratio15m",
	"instance:dynamo_metrics_lost:increase10m", "instance:dynamo_metrics_heard:increase10m",
}

// waitForRules waits until every rule has been evaluated without an error, and the
// recording rules have data. No alert fires, because nothing is wrong.
func (p *prometheus) waitForRules() {
	p.T.Helper()
	testutil.Until(p.T, func() error {
		var answer struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError, State string }
			}
		}
		if err := p.query("/api/v1/rules", nil, &answer); err != nil {
			return err
		}
		n := 0
		for _, g := range answer.Groups {
			for _, r := range g.Rules {
				if n++; r.Health != "ok" {
					return fmt.Errorf("%s: %s %s", r.Name, r.Health, r.LastError)
				}
				if r.State == "firing" {
					p.T.Errorf("%s fires", r.Name)
				}
			}
		}
		if n != strings.Count(output(p.T, "rules"), "expr: ") {
			return fmt.Errorf("%d rules", n)
		}
		for _, name := range recorded {
			if samples, err := p.eval(name, true); err != nil || len(samples) == 0 {
				return fmt.Errorf("%s: %d series, %v", name, len(samples), err)
			}
		}
		return nil
	})
}

// TestDashboardsWorkWithTheOriginalsMetrics scrapes the original's metrics, with hits that
// increase. Panels that need more say so in their descriptions.
func TestDashboardsWorkWithTheOriginalsMetrics(t *testing.T) {
	t.Parallel()
	p := startPrometheus(t, serveOriginalMetrics(t))
	all, selectors := plots(t)
	p.waitForVariables(selectors)
	fed := 0
	for _, v := range all {
		if v.Title == annotation || strings.Contains(v.Description, "Needs ") {
			continue
		}
		fed++
		c := noChoice
		if v.dashboard == "dynamo-worker" {
			c.worker = workerA
		}
		testutil.Until(t, func() error {
			if err := p.checkPanel(v, c); err != nil {
				return fmt.Errorf("%s: %q: %w", v.dashboard, v.Title, err)
			}
			return nil
		})
	}
	if fed < 15 {
		t.Errorf("%d panels need only the original's nine metrics, want more", fed)
	}
}

// serveOriginalMetrics serves the original's captured metrics. The two counters increase
// with each scrape.
func serveOriginalMetrics(t *testing.T) (url string) {
	t.Helper()
	text, err := os.ReadFile("../testdata/original/page.prom")
	if err != nil {
		t.Fatal(err)
	}
	counter := regexp.MustCompile(`(?m)^(llm_kv_hit_rate_(?:isl|overlap)_blocks\{.*\}) (\d+)$`)
	if n := len(counter.FindAll(text, -1)); n != 8 {
		t.Fatalf("%d counters in the original's metrics", n)
	}
	var scrapes atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		scrape := scrapes.Add(1)
		w.Write(counter.ReplaceAllFunc(text, func(line []byte) []byte {
			m := counter.FindSubmatch(line)
			n, _ := strconv.ParseInt(string(m[2]), 10, 64) // digits
			return fmt.Appendf(nil, "%s %d", m[1], n*scrape)
		}))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestDashboardsShowTheServedValues compares the panels with the original's constant loads.
func TestDashboardsShowTheServedValues(t *testing.T) {
	t.Parallel()
	p := startPrometheus(t, serveOriginalMetrics(t))
	all, _ := plots(t)
	for _, want := range []struct {
		dashboard, title string
		query            int
		value            float64
	}{
		{"dynamo-fleet", "Workers answering", 0, 3},
		{"dynamo-fleet", "KV cache in use", 0, 150.0 / 700},
		{"dynamo-fleet", "Fullest worker", 0, 0.4},
		{"dynamo-fleet", "KV hit rate", 0, 16.0 / 66},
		{"dynamo-fleet", "Load imbalance", 0, 2},
		{"dynamo-fleet", "KV cache in use, by endpoint", 1, 0.4},
		{"dynamo-fleet", "Load in blocks", 0, 50},
		{"dynamo-fleet", "Load in blocks", 1, math.Sqrt(1400)},
		{"dynamo-fleet", "Free KV blocks", 0, 550},
		{"dynamo-fleet", "Requests being served", 0, 15},
		{"dynamo-fleet", "Requests being served", 1, 112},
		{"dynamo-worker", "State", 0, 1},
		{"dynamo-worker", "KV cache in use", 0, 0.25},
		{"dynamo-worker", "KV cache in use, compared with the others", 1, 150.0 / 700},
		{"dynamo-worker", "KV cache in use, compared with the others", 2, 0.4},
		{"dynamo-worker", "KV blocks", 1, 400},
		{"dynamo-worker", "Hit rate reported by the engine", 0, 0.5},
	} {
		i := slices.IndexFunc(all, func(v plot) bool { return v.dashboard == want.dashboard && v.Title == want.title })
		if i < 0 {
			t.Errorf("%s: no panel %q", want.dashboard, want.title)
			continue
		}
		testutil.Until(t, func() error {
			c := choice{component: "backend", worker: workerA}
			samples, err := p.eval(c.substitute(all[i].Targets[want.query].Expr), all[i].Targets[want.query].Instant)
			if err != nil {
				return err
			}
			if len(samples) != 1 || math.Abs(samples[0].value-want.value) > 1e-9 {
				return fmt.Errorf("%s: %q: %v, want %v", want.dashboard, want.title, samples, want.value)
			}
			return nil
		})
	}
}
