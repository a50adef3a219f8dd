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

// program is the running program.
type program struct {
	*process.Process
	url string
}

// run starts the program with a page on a free port, by way of another if prefix names one.
func startProgram(t *testing.T, env, prefix []string, args ...string) *program {
	t.Helper()
	command := append(append([]string{}, prefix...), filepath.Join(bin, "metrics"), "--host", "127.0.0.1", "--metrics-port", "0")
	command = append(command, args...)
	p := process.Start(t, env, command[0], command[1:]...)
	return &program{p, "http://" + strings.TrimSuffix(p.WaitForLine("Prometheus metrics server started at "), "/metrics")}
}

// page is what is served: values, as they are written, by series.
type samples map[string]string

func (m *program) scrape() (samples, error) {
	text, err := body(m.url + "/metrics")
	if err != nil && m.HasEnded() {
		err = errEnded
	}
	return process.ParseSamples(text), err
}

// number is the value of a series, 0 if there is none.
func (p samples) number(series string) float64 {
	v, _ := strconv.ParseFloat(p[series], 64)
	return v
}

// count is how many series hold text.
func (p samples) count(text string) (n int) {
	for s := range p {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

// families are how many series each has.
func (p samples) families() map[string]int {
	all := make(map[string]int)
	for s := range p {
		name, _, _ := strings.Cut(s, "{")
		all[name]++
	}
	return all
}

// has complains unless these series have these values; an empty one means absent.
func (p samples) match(want samples) error {
	for s, value := range want {
		if p[s] != value {
			return fmt.Errorf("%s is %q, want %q", s, p[s], value)
		}
	}
	return nil
}

// right complains unless the program is ready and its page has what is wanted.
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

// hasStill complains unless the page has what is wanted, ready or not.
func (m *program) matchKept(want samples) error {
	p, err := m.scrape()
	if err == nil {
		err = p.match(want)
	}
	return err
}

// isAway complains unless the program is not ready, and shows what is wanted still.
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

// shows waits until right has nothing to complain about.
func (m *program) waitForSamples(want samples) {
	m.T.Helper()
	m.waitFor(func(samples) error { return m.matchReady(want) })
}

// until waits for a page that check does not complain about.
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

// polls waits until n more polls have been answered.
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

// rule is what must hold on every page, seen after another.
type rule func(before, now samples) error

// always says that these series have these values.
func always(want samples) rule { return func(_, now samples) error { return now.match(want) } }

// countersOf says that the program's own counters, and these workers', never go back:
// what was shown once is there for good, and no less.
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
				return fmt.Errorf("%s goes from %s back to %q", s, before[s], now[s])
			}
		}
		return nil
	}
}

// pairs says that input and overlap of a worker are of the same events, which all had
// four times as much input as overlap.
func pairedHits(but func(series string) bool) rule {
	return func(_, now samples) error {
		for s, v := range now {
			rest, input := strings.CutPrefix(s, isl)
			if !input || but != nil && but(s) {
				continue
			}
			if now[overlap+rest] == "" || 4*now.number(overlap+rest) != now.number(s) {
				return fmt.Errorf("%s is %s beside an overlap of %q", s, v, now[overlap+rest])
			}
		}
		return nil
	}
}

// witness looks at the page again and again until it is told to stop.
type sampler struct {
	m       *program
	rules   []rule
	stopped chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
	pages   int
}

// witnessed has a witness for these rules until the end of the test, or stop.
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
			if w.pages > 0 { // at least one, however soon it is stopped
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
			w.m.T.Errorf("page %d: %v", w.pages, err)
			return
		}
		before = now
		w.pages++
		select {
		case <-ticker.C:
		case <-w.stopped:
			return
		}
	}
}

// stop ends it; a test that has looked at nothing has proved nothing.
func (w *sampler) stop() {
	w.once.Do(func() {
		w.m.T.Helper()
		close(w.stopped)
		w.wg.Wait()
		if w.pages == 0 {
			w.m.T.Error("the witness has seen no page")
		}
		w.m.T.Logf("%d pages witnessed", w.pages)
	})
}

func merged(pages ...samples) samples {
	all := make(samples)
	for _, p := range pages {
		maps.Copy(all, p)
	}
	return all
}
