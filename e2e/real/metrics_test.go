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

// metrics is the running program.
type metrics struct {
	*process.Process
	url string
}

// metrics starts the program with a page on a free port.
func (s *servers) metrics(args ...string) *metrics {
	s.t.Helper()
	args = append([]string{"--host", "127.0.0.1", "--metrics-port", "0"}, args...)
	p := process.Start(s.t, s.env(), filepath.Join(bin, "metrics"), args...)
	return &metrics{p, "http://" + strings.TrimSuffix(p.WaitForLine("Prometheus metrics server started at "), "/metrics")}
}

// page is what is served: values, as they are written, by series.
type samples map[string]string

func (m *metrics) scrape() (samples, error) {
	text, err := get(m.url + "/metrics")
	return process.ParseSamples(text), err
}

// about is the part of the page that says anything of a worker.
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

// polls is how many polls have been done.
func (p samples) polls() (n int) {
	for _, result := range []string{"ok", "empty", "error"} {
		count, _ := strconv.Atoi(p[`dynamo_metrics_polls_total{result="`+result+`"}`])
		n += count
	}
	return n
}

// polls waits until n more polls have been done. After two it is certain that what
// the program had subscribed to before is known to the server.
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

// names are what workers are called in the golden pages, since real ones have
// other ids each time.
type names map[string]uint64

// shows waits until the llm_ series are exactly those of a golden page, and returns
// the whole page. In the golden page ids are names, and the age of a load, which
// is another at each look, is "…".
func (m *metrics) waitForGolden(golden string, workers names) (whole string) {
	m.T.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "pages", golden+".prom"))
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
			return fmt.Errorf("the page is not %s (-want +got):\n%s", golden, diff)
		}
		return nil
	})
	return whole
}

// has waits until the page has these series with these values; an empty value means absent.
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

// holds waits until every series of a golden page is there, with its value, and
// returns the whole page. There may be more: histograms, and what depends on time.
func (m *metrics) waitForGoldenSubset(golden string, workers names) (whole string) {
	m.T.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "pages", golden+".prom"))
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
			return fmt.Errorf("the page lacks, of %s,\n%s\nand has\n%s", golden, strings.Join(missing, "\n"), strings.Join(got, "\n"))
		}
		return nil
	})
	return whole
}

// ours leaves of a page what is not the Go client library's own.
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

// called are the llm_ series of a page as golden pages have them, sorted.
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
