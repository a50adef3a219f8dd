//go:build real

package real

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/deploy"
)

// scrapes are the samples of one program at regular times.
type scrapes []samples

// padding is the time for which the first scrape is repeated before, and the last one after
// the series. It is longer than any alert looks back or waits, except for alerts that
// compare with the day before.
const padding = 70 * time.Minute

// paddingSamples is the number of samples in padding.
const paddingSamples = int(padding / sampleInterval)

// with returns a copy of the scrapes, in which change has changed each scrape. The argument half is
// 0 in the first half of the scrapes, and 1 in the second.
func (f scrapes) with(change func(p samples, half int)) scrapes {
	changed := make(scrapes, len(f))
	for i, p := range f {
		changed[i] = maps.Clone(p)
		change(changed[i], 2*i/len(f))
	}
	return changed
}

// silentRouters adds three routers as silent workers, and two in the second half.
func silentRouters(p samples, half int) {
	for id := range 3 - half {
		p[fmt.Sprintf(`llm_worker_up{component="kv-router",endpoint="generate",worker_id="%d"}`, id)] = "0"
	}
	p[`llm_workers{component="kv-router",endpoint="generate",state="silent"}`] = strconv.Itoa(3 - half)
}

// silentWorker makes one of the workers silent.
func silentWorker(p samples, _ int) {
	p[`llm_worker_up{component="backend",endpoint="generate",worker_id="1"}`] = "0"
	p[`llm_workers{component="backend",endpoint="generate",state="silent"}`] = "1"
}

// checkAlerts fails the test unless exactly these of our alerts fire, at any time from the
// first sample to the last.
func (f scrapes) checkAlerts(t *testing.T, alerts ...string) {
	t.Helper()
	var test strings.Builder
	fmt.Fprintf(&test, "rule_files: [../rules.yaml]\nevaluation_interval: 1m\ntests:\n  - interval: %v\n    input_series:\n", sampleInterval)
	for _, series := range f.names() {
		fmt.Fprintf(&test, "      - {series: '%s', values: '%s'}\n", labelled(series), f.values(series))
	}
	length := 2*padding + time.Duration(len(f))*sampleInterval
	fmt.Fprintf(&test, "    promql_expr_test:\n      - expr: group by (alertname) (count_over_time(ALERTS{alertstate=\"firing\"}[1d]))\n        eval_time: %v\n", length)
	for i, alert := range alerts {
		if i == 0 {
			test.WriteString("        exp_samples:\n")
		}
		fmt.Fprintf(&test, "          - {labels: '{alertname=%q}', value: 1}\n", alert)
	}
	if report, err := unitTest(t, deploy.Rules(), test.String()); err != nil {
		t.Errorf("want the alerts %q and no other: %v\n%s", alerts, err, report)
	}
}

// names returns the names of all series that the rules may read, sorted.
func (f scrapes) names() []string {
	all := make(map[string]bool)
	for _, p := range f {
		for series := range p {
			if name, _, _ := strings.Cut(series, "{"); strings.Contains(deploy.Rules(), name) {
				all[series] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// labelled returns a series in the form of Prometheus.
func labelled(series string) string {
	name, labels, found := strings.Cut(series, "{")
	if !found {
		labels = "}"
	}
	return name + `{job="dynamo",instance="a",` + labels
}

// values returns the values of a series in promtool's notation.
func (f scrapes) values(series string) string {
	if series == "process_start_time_seconds" {
		return fmt.Sprintf("0x%d", 2*paddingSamples+len(f)) // the process has run since the first sample
	}
	values := make([]string, len(f))
	for i, p := range f {
		if values[i] = p[series]; values[i] == "" {
			values[i] = "_"
			if i > 0 && f[i-1][series] != "" {
				values[i] = "stale"
			}
		}
	}
	return repeat(values[0]) + " " + strings.Join(values, " ") + " " + repeat(values[len(values)-1])
}

// repeat repeats a value, or its absence.
func repeat(value string) string {
	switch value {
	case "_", "stale":
		return fmt.Sprintf("_x%d", paddingSamples)
	}
	return fmt.Sprintf("%sx%d", value, paddingSamples-1) // in addition to the value itself
}
