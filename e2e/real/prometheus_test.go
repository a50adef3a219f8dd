//go:build real

package real

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"

	"github.com/google/go-cmp/cmp"
)

// prometheus is a running Prometheus.
type prometheus struct {
	*process.Process
	url string
}

// startPrometheus starts a Prometheus that scrapes target every second. settings are more
// lines of its scrape configuration.
func startPrometheus(t *testing.T, target string, settings ...string) *prometheus {
	t.Helper()
	return startPrometheusWithRules(t, "", target, settings...)
}

// startPrometheusWithRules is startPrometheus with rules, which are evaluated every second.
func startPrometheusWithRules(t *testing.T, rules, target string, settings ...string) *prometheus {
	t.Helper()
	path := process.Installed(t, "prometheus", "prometheus")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	lines := []string{
		"global: {scrape_interval: 1s, evaluation_interval: 1s}",
		"rule_files: [rules.yaml]",
		"scrape_configs:",
		"- job_name: scraped",
		"  static_configs:",
		"  - targets: ['" + strings.TrimPrefix(target, "http://") + "']",
		"    labels: {instance: here}",
	}
	for _, s := range settings {
		lines = append(lines, "  "+s)
	}
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	address := process.FreeAddress(t)
	p := &prometheus{process.Start(t, nil, path, "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", address), "http://" + address}
	waitUntilServing(t, p.url+"/-/ready")
	return p
}

// query decodes the data in a response of the HTTP API.
func (p *prometheus) query(path string, parameters url.Values, data any) error {
	body, err := get(p.url + path + "?" + parameters.Encode())
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(body), &struct {
		Data any `json:"data"`
	}{data})
}

// series returns the results of a query by worker. The key of a result without a worker is
// empty. Every series must have these labels, except those over which the query aggregates.
func (p *prometheus) series(query string, labels map[string]string) (map[string]string, error) {
	var answer struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any // time and value
		}
	}
	if err := p.query("/api/v1/query", url.Values{"query": {query}}, &answer); err != nil {
		return nil, err
	}
	values := make(map[string]string)
	for _, r := range answer.Result {
		worker := r.Metric["worker_id"]
		delete(r.Metric, "worker_id")
		delete(r.Metric, "__name__")
		if len(r.Metric) > 0 && !maps.Equal(r.Metric, labels) {
			return nil, fmt.Errorf("%s: labels %v, want %v", query, r.Metric, labels)
		}
		if _, again := values[worker]; again {
			return nil, fmt.Errorf("%s: more than one series for worker %q", query, worker)
		}
		values[worker] = fmt.Sprint(r.Value[1])
	}
	return values, nil
}

// The workers of the original's capture.
const (
	workerA = "9041998838276177453"
	workerB = "9041998838276177456"
	workerC = "9041998838276177458"
)

// dashboards are the queries of existing dashboards for the original, with their results
// for the original's workers and events. {s} stands for the endpoint.
var dashboards = []struct {
	query string
	want  map[string]string
}{
	{`100 * llm_kv_blocks_active{s} / llm_kv_blocks_total{s}`,
		map[string]string{workerA: "25", workerB: "5", workerC: "40"}},
	{`100 * llm_requests_active_slots{s} / llm_requests_total_slots{s}`,
		map[string]string{workerA: "10.9375", workerB: "15.625", workerC: "18.75"}},
	{`100 * avg(llm_kv_blocks_active{s}) / avg(llm_kv_blocks_total{s})`, map[string]string{"": "21.428571428571427"}},
	{`llm_load_avg{s}`, map[string]string{"": "50"}},
	{`llm_load_std{s}`, map[string]string{"": "37.416573867739416"}},
	{`sum(llm_kv_blocks_total{s} - llm_kv_blocks_active{s})`, map[string]string{"": "550"}},
	{`sum(llm_requests_total_slots{s} - llm_requests_active_slots{s})`, map[string]string{"": "97"}},
	{`100 * sum(llm_kv_hit_rate_overlap_blocks{s}) / sum(llm_kv_hit_rate_isl_blocks{s})`,
		map[string]string{"": "24.242424242424242"}}, // 16 of 66
	{`100 * llm_kv_hit_rate_percent{s}`, map[string]string{workerA: "50", workerB: "75", workerC: "25"}},
}

// waitForDashboards waits until every query has exactly its values.
func (p *prometheus) waitForDashboards(labels map[string]string) {
	p.T.Helper()
	for _, d := range dashboards {
		query := strings.ReplaceAll(d.query, "{s}", `{component="backend",endpoint="load_metrics"}`)
		testutil.Until(p.T, func() error {
			got, err := p.series(query, labels)
			if err != nil {
				return err
			}
			if diff := cmp.Diff(d.want, got); diff != "" {
				return fmt.Errorf("%s (-want +got):\n%s", query, diff)
			}
			return nil
		})
	}
	p.waitForLabelValue("component", `llm_kv_blocks_active`, "backend")
	p.waitForLabelValue("endpoint", `llm_kv_blocks_active{component="backend"}`, "load_metrics")
}

// waitForLabelValue waits until label_values(selector, label) is one value, with each of
// the two requests that Grafana can make for it.
func (p *prometheus) waitForLabelValue(label, selector, want string) {
	p.T.Helper()
	testutil.Until(p.T, func() error {
		var values []string
		if err := p.query("/api/v1/label/"+label+"/values", url.Values{"match[]": {selector}}, &values); err != nil {
			return err
		}
		if diff := cmp.Diff([]string{want}, values); diff != "" {
			return fmt.Errorf("label_values(%s, %s) (-want +got):\n%s", selector, label, diff)
		}
		var series []map[string]string
		if err := p.query("/api/v1/series", url.Values{"match[]": {selector}}, &series); err != nil {
			return err
		}
		for _, s := range series {
			if s[label] != want {
				return fmt.Errorf("series %v of %s: want %s=%q", s, selector, label, want)
			}
		}
		if len(series) != 3 {
			return fmt.Errorf("%d series of %s, want 3", len(series), selector)
		}
		return nil
	})
}

func TestPrometheusScrapingTheProgramFillsDashboards(t *testing.T) {
	t.Parallel()
	process.Installed(t, "prometheus", "prometheus")
	s := startServers(t)
	s.replayOriginals()
	m := s.metrics(watchFlags("--poll-interval", "0.5")...)
	m.waitForPolls(2)
	s.publishOriginalHits()
	startPrometheus(t, m.url).waitForDashboards(map[string]string{
		"component": "backend", "endpoint": "load_metrics", "job": "scraped", "instance": "here",
	})
}

func TestPrometheusScrapingThePushgatewayFillsDashboards(t *testing.T) {
	t.Parallel()
	process.Installed(t, "prometheus", "prometheus")
	gateway := startGateway(t)
	s := startServers(t)
	s.replayOriginals()
	m := s.metrics(watchFlags("--poll-interval", "0.5", "--push", "--push-url", gateway.url, "--push-interval", "1")...)
	m.waitForPolls(2)
	s.publishOriginalHits()
	startPrometheus(t, gateway.url, "honor_labels: true").waitForDashboards(map[string]string{
		"component": "backend", "endpoint": "load_metrics", "job": "dynamo_push_metrics",
	})
}
