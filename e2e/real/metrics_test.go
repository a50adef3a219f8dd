//go:build real

package real

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"

	"github.com/google/go-cmp/cmp"
)

// metrics is a running metrics program.
type metrics struct {
	*process.Process
	url string
}

// metrics starts the program on a free port.
func (s *servers) metrics(args ...string) *metrics {
	s.t.Helper()
	args = append([]string{"--host", "127.0.0.1", "--metrics-port", "0"}, args...)
	p := process.Start(s.t, s.env(), filepath.Join(bin, "metrics"), args...)
	return &metrics{p, "http://" + strings.TrimSuffix(p.WaitForLine("Prometheus metrics server started at "), "/metrics")}
}

// samples are the values in a scrape of /metrics, as they are written, by series.
type samples map[string]string

func (m *metrics) scrape() (samples, error) {
	text, err := get(m.url + "/metrics")
	return process.ParseSamples(text), err
}

// ofWorker returns the series that mention a worker.
func (p samples) ofWorker(id uint64) (series []string) {
	label := fmt.Sprintf(`worker_id="%d"`, id)
	for name := range p {
		if strings.Contains(name, label) {
			series = append(series, name)
		}
	}
	slices.Sort(series)
	return series
}

// polls returns the number of completed polls.
func (p samples) polls() (n int) {
	for _, result := range []string{"ok", "empty", "error"} {
		count, _ := strconv.Atoi(p[`dynamo_metrics_polls_total{result="`+result+`"}`])
		n += count
	}
	return n
}

// waitForPolls waits until n more polls have completed. After two of them, the server has
// certainly received earlier subscriptions.
func (m *metrics) waitForPolls(n int) {
	m.T.Helper()
	first := -1
	testutil.Until(m.T, func() error {
		p, err := m.scrape()
		if err != nil {
			return err
		}
		if first < 0 {
			first = p.polls()
		}
		if done := p.polls() - first; done < n {
			return fmt.Errorf("%d polls done, want %d", done, n)
		}
		return nil
	})
}

// names are the workers' names in the golden files, because real workers have other ids
// each time.
type names map[string]uint64

// waitForGolden waits until the llm_ series are exactly those of a golden file, and returns
// the whole response. In the golden file, names replace ids, and "…" replaces the age of a
// load, which differs in each scrape.
func (m *metrics) waitForGolden(golden string, workers names) (whole string) {
	m.T.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", golden+".prom"))
	if err != nil {
		m.T.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Sort(want)
	testutil.Until(m.T, func() error {
		var err error
		if whole, err = get(m.url + "/metrics"); err != nil {
			return err
		}
		if diff := cmp.Diff(want, workers.golden(process.ParseSamples(whole))); diff != "" {
			return fmt.Errorf("/metrics is not %s (-want +got):\n%s", golden, diff)
		}
		return nil
	})
	return whole
}

// waitForSamples waits until these series have these values. An empty value means that the
// series is absent.
func (m *metrics) waitForSamples(want map[string]string) {
	m.T.Helper()
	testutil.Until(m.T, func() error {
		p, err := m.scrape()
		if err != nil {
			return err
		}
		for series, value := range want {
			if p[series] != value {
				return fmt.Errorf("%s is %q, want %q", series, p[series], value)
			}
		}
		return nil
	})
}

// waitForGoldenSubset waits until every series of a golden file is served with its value,
// and returns the whole response. There may be more series: histograms, and what depends on
// time.
func (m *metrics) waitForGoldenSubset(golden string, workers names) (whole string) {
	m.T.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", golden+".prom"))
	if err != nil {
		m.T.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(b)), "\n")
	testutil.Until(m.T, func() error {
		var err error
		if whole, err = get(m.url + "/metrics"); err != nil {
			return err
		}
		got := workers.golden(process.ParseSamples(whole))
		missing := slices.DeleteFunc(slices.Clone(want), func(line string) bool { return slices.Contains(got, line) })
		if len(missing) > 0 {
			return fmt.Errorf("/metrics lacks, of %s,\n%s\nand has\n%s", golden, strings.Join(missing, "\n"), strings.Join(got, "\n"))
		}
		return nil
	})
	return whole
}

// withoutGoMetrics removes the Go client library's own metrics from a response.
func withoutGoMetrics(whole string) string {
	var lines []string
	for line := range strings.Lines(whole) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// golden returns the llm_ series in the form of the golden files, sorted.
func (n names) golden(p samples) (lines []string) {
	var ids []string
	for name, id := range n {
		ids = append(ids,
			fmt.Sprintf(`worker_id="%d"`, id), `worker_id="`+name+`"`,
			fmt.Sprintf(`worker_id_hex="%x"`, id), `worker_id_hex="`+name+`"`)
	}
	rename := strings.NewReplacer(ids...)
	for series, value := range p {
		if !strings.HasPrefix(series, "llm_") {
			continue
		}
		if strings.HasPrefix(series, "llm_worker_load_age_seconds{") {
			value = "…"
		}
		lines = append(lines, rename.Replace(series)+" "+value)
	}
	slices.Sort(lines)
	return lines
}
