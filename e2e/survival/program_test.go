//go:build real

package survival

import (
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// program is a running metrics program.
type program struct {
	*process.Process
	url string
}

// startProgram starts the program on a free port, with prefix, if any, as the command that
// runs it.
func startProgram(t *testing.T, env, prefix []string, args ...string) *program {
	t.Helper()
	command := append(append([]string{}, prefix...), filepath.Join(bin, "metrics"), "--host", "127.0.0.1", "--metrics-port", "0")
	command = append(command, args...)
	p := process.Start(t, env, command[0], command[1:]...)
	return &program{p, "http://" + strings.TrimSuffix(p.WaitForLine("Prometheus metrics server started at "), "/metrics")}
}

// samples are the values in a scrape of /metrics, as they are written, by series.
type samples map[string]string

func (m *program) scrape() (samples, error) {
	text, err := body(m.url + "/metrics")
	if err != nil && m.HasEnded() {
		err = errEnded
	}
	return process.ParseSamples(text), err
}

// number returns the value of a series, or 0 if it does not exist.
func (p samples) number(series string) float64 {
	v, _ := strconv.ParseFloat(p[series], 64)
	return v
}

// count returns how many series contain text.
func (p samples) count(text string) (n int) {
	for s := range p {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

// families returns the number of series of each family.
func (p samples) families() map[string]int {
	all := make(map[string]int)
	for s := range p {
		name, _, _ := strings.Cut(s, "{")
		all[name]++
	}
	return all
}

// match returns an error unless these series have these values. An empty value means that
// the series is absent.
func (p samples) match(want samples) error {
	for s, value := range want {
		if p[s] != value {
			return fmt.Errorf("%s is %q, want %q", s, p[s], value)
		}
	}
	return nil
}

// matchReady returns an error unless the program is ready and has these samples.
func (m *program) matchReady(want samples) error {
	p, err := m.scrape()
	if err != nil {
		return err
	}
	if err := p.match(want); err != nil {
		return err
	}
	status, text, err := get(m.url + "/-/ready?strict=true")
	if err == nil && status != 200 {
		err = fmt.Errorf("GET /-/ready?strict=true: %d %s", status, text)
	}
	return err
}

// matchKept returns an error unless the program has these samples, ready or not.
func (m *program) matchKept(want samples) error {
	p, err := m.scrape()
	if err == nil {
		err = p.match(want)
	}
	return err
}

// matchUnready returns an error unless the program is not ready, and still has these
// samples.
func (m *program) matchUnready(want samples) error {
	status, text, err := get(m.url + "/-/ready?strict=true")
	if err == nil && status != 503 {
		err = fmt.Errorf("GET /-/ready?strict=true: %d %s, want 503", status, text)
	}
	if err != nil {
		return err
	}
	return m.matchKept(want)
}

// waitForSamples waits until matchReady returns nil.
func (m *program) waitForSamples(want samples) {
	m.T.Helper()
	m.waitFor(func(samples) error { return m.matchReady(want) })
}

// waitFor waits for a scrape for which check returns nil.
func (m *program) waitFor(check func(samples) error) {
	m.T.Helper()
	testutil.Until(m.T, func() error {
		p, err := m.scrape()
		if err == errEnded {
			m.T.Fatal(err)
		}
		if err != nil {
			return err
		}
		return check(p)
	})
}

// waitForPolls waits until n more polls have been answered.
func (m *program) waitForPolls(n float64) {
	m.T.Helper()
	const series = `dynamo_metrics_polls_total{result="ok"}`
	first := -1.0
	m.waitFor(func(p samples) error {
		if first < 0 {
			first = p.number(series)
		}
		if done := p.number(series) - first; done < n {
			return fmt.Errorf("%v polls, want %v", done, n)
		}
		return nil
	})
}

// The series of one worker of backend/generate, and of the program's own counters.
func workerSeries(metric string, id uint64) string {
	return fmt.Sprintf(`%s{component="backend",endpoint="generate",worker_id="%d"}`, metric, id)
}

func workersSeries(state string) string {
	return fmt.Sprintf(`llm_workers{component="backend",endpoint="generate",state=%q}`, state)
}

func connectedSeries(system string) string {
	return fmt.Sprintf("dynamo_metrics_connected{system=%q}", system)
}

func messagesSeries(k stats.Kind) string {
	return fmt.Sprintf("dynamo_metrics_messages_total{kind=%q}", k)
}

func rejectedSeries(k stats.Kind, r stats.Reason) string {
	return fmt.Sprintf("dynamo_metrics_rejected_messages_total{kind=%q,reason=%q}", k, r)
}

const (
	isl       = "llm_kv_hit_rate_isl_blocks"
	overlap   = "llm_kv_hit_rate_overlap_blocks"
	active    = "llm_kv_blocks_active"
	total     = "llm_kv_blocks_total"
	overLimit = "dynamo_metrics_workers_over_limit_total"
	queueFull = `dynamo_metrics_dropped_messages_total{reason="queue_full"}`
	resident  = "process_resident_memory_bytes"
)

// rule is what must hold for every scrape, given the one before.
type rule func(before, now samples) error

// always is the rule that these series have these values.
func always(want samples) rule { return func(_, now samples) error { return now.match(want) } }

// monotonicCounters is the rule that the program's own counters and those of these workers
// neither decrease nor disappear.
func monotonicCounters(workers ...*worker) rule {
	kept := make(map[string]bool)
	for _, w := range workers {
		kept[workerSeries(isl, w.id)], kept[workerSeries(overlap, w.id)] = true, true
	}
	return func(before, now samples) error {
		for s := range before {
			name, _, _ := strings.Cut(s, "{")
			own := strings.HasPrefix(name, "dynamo_metrics_") && strings.HasSuffix(name, "_total")
			if (own || kept[s] || name == "llm_kv_hit_rate_events_total") && (now[s] == "" || now.number(s) < before.number(s)) {
				return fmt.Errorf("%s decreases from %s to %q", s, before[s], now[s])
			}
		}
		return nil
	}
}

// pairedHits is the rule that input and overlap of a worker are from the same events, which
// all have four times as much input as overlap.
func pairedHits(but func(series string) bool) rule {
	return func(_, now samples) error {
		for s, v := range now {
			rest, input := strings.CutPrefix(s, isl)
			if !input || but != nil && but(s) {
				continue
			}
			if now[overlap+rest] == "" || 4*now.number(overlap+rest) != now.number(s) {
				return fmt.Errorf("%s is %s with an overlap of %q", s, v, now[overlap+rest])
			}
		}
		return nil
	}
}

// sampler scrapes continuously until stop.
type sampler struct {
	m       *program
	rules   []rule
	stopped chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
	scrapes int
}

// startSampler checks these rules in every scrape until the end of the test, or stop.
func (m *program) startSampler(rules ...rule) *sampler {
	w := &sampler{m: m, rules: rules, stopped: make(chan struct{})}
	w.wg.Go(w.run)
	m.T.Cleanup(w.stop)
	return w
}

func (w *sampler) run() {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for before := (samples)(nil); ; {
		now, err := w.m.scrape()
		select {
		case <-w.stopped:
			if w.scrapes > 0 { // at least one, however soon it is stopped
				return
			}
		default:
		}
		for _, r := range w.rules {
			if err == nil {
				err = r(before, now)
			}
		}
		if err != nil {
			w.m.T.Errorf("scrape %d: %v", w.scrapes, err)
			return
		}
		before = now
		w.scrapes++
		select {
		case <-ticker.C:
		case <-w.stopped:
			return
		}
	}
}

// stop ends it. A sampler without a scrape has proved nothing, so that this is an error.
func (w *sampler) stop() {
	w.once.Do(func() {
		w.m.T.Helper()
		close(w.stopped)
		w.wg.Wait()
		if w.scrapes == 0 {
			w.m.T.Error("the sampler has not scraped")
		}
		w.m.T.Logf("%d scrapes checked", w.scrapes)
	})
}

func merged(pages ...samples) samples {
	all := make(samples)
	for _, p := range pages {
		maps.Copy(all, p)
	}
	return all
}
