//go:build real

package real

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"
)

// What the workers of the golden files publish.
const (
	loadA = `{"worker": [11, 100, 4, null], "kv": [42, 1000, 0.25, 0.5], "spec": [2, 10, 20, 15, [8, 7]]}`
	loadB = `{"worker": [3, 100, 0, null], "kv": [10, 1000, 0.0625, 0.75]}`

	activeDecodeA = `{"load": {"dp_rank": 0, "active_decode_blocks": 47}}`
	activeDecodeB = `{"load": {"dp_rank": 0, "active_decode_blocks": 10}}`

	activeA = `{"load": {"kv_used_blocks": 47}}`
	activeB = `{"load": {"kv_used_blocks": 10}}`

	// What one forward pass of A computes.
	prefillTokens, decodeRequests = 128, 11
	passA                         = `{"pass": {
		"scheduled_num_prefill_requests": 1, "scheduled_sum_prefill_tokens": 128, "scheduled_sum_prefill_kv_tokens": 64,
		"scheduled_num_decode_requests": 11, "scheduled_sum_decode_kv_tokens": 672,
		"queued_num_prefill_requests": 4, "queued_sum_prefill_tokens": 400,
		"queued_num_decode_requests": 1, "queued_sum_decode_kv_tokens": 16, "wall_time_secs": 0.0125}}`
)

// publisher is a real Dynamo worker of 0.6 or later. It serves backend/generate in the
// namespace dynamo, and publishes what the test writes.
type publisher struct {
	*process.Process
	id   uint64
	file string // contains what to publish
}

// publisher starts a worker and waits until it reads its file.
func (s *servers) publisher(release string, env ...string) *publisher {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "values.json")
	p := process.Start(s.t, append(s.env(), env...), python(s.t, release), filepath.Join("testdata", "event_worker.py"),
		"dynamo", "backend", modelDir(s.t), file)
	text := p.WaitForLine("id: ")
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		s.t.Fatalf("the worker prints %q, want its id: %v", text, err)
	}
	return &publisher{p, id, file}
}

// modelDir returns the directory of a model without weights: 61 words and a chat template.
// Programs look for it where the worker's model card says.
func modelDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("testdata", "model"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// publish writes what the worker is to publish. The worker does not repeat what it has
// already published.
func (p *publisher) publish(values string) {
	p.T.Helper()
	next := p.file + ".next"
	if err := os.WriteFile(next, []byte(values), 0o600); err != nil {
		p.T.Fatal(err)
	}
	if err := os.Rename(next, p.file); err != nil {
		p.T.Fatal(err)
	}
	p.Signal(syscall.SIGUSR1)
}

// seriesOf returns a series of the worker.
func (p *publisher) seriesOf(name string) string {
	return fmt.Sprintf(`%s{component="backend",endpoint="generate",worker_id="%d"}`, name, p.id)
}

// waitForLoad waits until the program receives a load of the worker. Messages are lost
// until a ZeroMQ subscriber has connected.
func (m *metrics) waitForLoad(p *publisher) {
	m.T.Helper()
	used := 0
	testutil.Until(m.T, func() error {
		used++
		p.publish(fmt.Sprintf(`{"load": {"kv_used_blocks": %d}}`, used))
		scraped, err := m.scrape()
		if err != nil {
			return err
		}
		if _, found := scraped[p.seriesOf("llm_kv_blocks_active")]; !found {
			return fmt.Errorf("no load of worker %d after %d", p.id, used)
		}
		return nil
	})
}

// waitForPasses waits until the worker has published this many forward passes.
func (m *metrics) waitForPasses(p *publisher, n int) {
	m.T.Helper()
	testutil.Until(m.T, func() error {
		scraped, err := m.scrape()
		if err != nil {
			return err
		}
		got := scraped[p.seriesOf("llm_forward_passes_total")]
		if done, err := strconv.Atoi(got); err != nil || done < n {
			return fmt.Errorf("%q forward passes of worker %d, want %d", got, p.id, n)
		}
		return nil
	})
}

// isRegistered reports whether the worker is registered.
func (s *servers) isRegistered(p *publisher) bool {
	s.t.Helper()
	if s.files == "" {
		return s.registered(fmt.Sprintf("v1/instances/dynamo/backend/generate/%x", p.id))
	}
	files, err := filepath.Glob(filepath.Join(s.files, "v1", "instances", fmt.Sprintf("*%x", p.id)))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(files) > 0
}

// waitUntilForgotten waits until /metrics has no series of the worker.
func (m *metrics) waitUntilForgotten(p *publisher) {
	m.T.Helper()
	testutil.Until(m.T, func() error {
		scraped, err := m.scrape()
		if err != nil {
			return err
		}
		if series := scraped.ofWorker(p.id); len(series) > 0 {
			return fmt.Errorf("a worker that has left still has\n%s", strings.Join(series, "\n"))
		}
		return nil
	})
}

func TestPublishedEventsAreShown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		release, a, b, golden string
		natsServer            func(*testing.T) string
	}{
		{"0.6.1", loadA, loadB, "load-events", debianNATSServer},
		{"0.9.1", activeDecodeA, activeDecodeB, "active-decode-loads", process.NATSServer},
	} {
		t.Run(c.release, func(t *testing.T) {
			t.Parallel()
			python(t, c.release)
			s := &servers{t: t}
			s.startNATS(c.natsServer(t))
			s.startEtcd()
			a, b := s.publisher(c.release), s.publisher(c.release)
			workers := names{"A": a.id, "B": b.id}
			m := s.metrics("--poll-interval", "0.2")
			m.waitForPolls(2)
			a.publish(c.a)
			b.publish(c.b)
			t.Logf("with two workers of ai-dynamo-runtime %s:\n%s", c.release, withoutGoMetrics(m.waitForGoldenSubset(c.golden, workers)))

			a.Signal(syscall.SIGTERM)
			m.waitUntilForgotten(a)
			b.Kill()
			m.waitUntilForgotten(b)
		})
	}
}

// eventPlanes are the event planes, and registries, of workers of 1.6.1.
var eventPlanes = []struct {
	name  string
	start func(*servers)
	env   []string // of the workers
	flags []string // of the program
}{
	{"NATS", func(s *servers) { s.startNATS(process.NATSServer(s.t)); s.startEtcd() }, []string{"DYN_EVENT_PLANE=nats"}, nil},
	{"ZMQ", (*servers).startEtcd, nil, []string{"--nats-server", "none"}},
	{"files", func(s *servers) { s.files = s.t.TempDir() }, nil, []string{"--nats-server", "none"}},
}

// forEachPlane runs a test on each plane at the same time, with two workers of 1.6.1 each.
func forEachPlane(t *testing.T, test func(s *servers, m *metrics, a, b *publisher)) {
	t.Parallel()
	for _, plane := range eventPlanes {
		t.Run(plane.name, func(t *testing.T) {
			t.Parallel()
			python(t, "1.6.1")
			s := &servers{t: t}
			plane.start(s)
			m := s.metrics(append([]string{"--poll-interval", "0.2"}, plane.flags...)...)
			test(s, m, s.publisher("1.6.1", plane.env...), s.publisher("1.6.1", plane.env...))
		})
	}
}

func TestPublishedEventsAreShownOnEachPlane(t *testing.T) {
	forEachPlane(t, func(_ *servers, m *metrics, a, b *publisher) {
		workers := names{"A": a.id, "B": b.id}
		m.waitForLoad(a)
		m.waitForLoad(b)
		a.publish(activeA)
		b.publish(activeB)
		// An idle worker publishes a forward pass once a second, so that these are counted,
		// too.
		m.T.Logf("with two workers of ai-dynamo-runtime 1.6.1:\n%s", withoutGoMetrics(m.waitForGoldenSubset("active-loads", workers)))

		a.publish(passA)
		m.waitForGoldenSubset("at-work", workers)
		m.waitForPasses(a, 20)
		a.publish(`{}`)
		logged := a.WaitForLine("forward passes: ")
		passes, err := strconv.Atoi(logged)
		if err != nil {
			m.T.Fatalf("the worker prints %q, want the number of its forward passes: %v", logged, err)
		}
		m.waitForGoldenSubset("active-loads", workers)
		scraped, err := m.scrape()
		if err != nil {
			m.T.Fatal(err)
		}
		for series, want := range map[string]int{
			a.seriesOf("llm_forward_passes_total"):                passes,
			a.seriesOf("llm_forward_pass_prefill_tokens_total"):   passes * prefillTokens,
			a.seriesOf("llm_forward_pass_decode_tokens_total"):    passes * decodeRequests,
			a.seriesOf("llm_forward_passes_missed_total"):         0,
			b.seriesOf("llm_forward_passes_total"):                0,
			a.seriesOf("llm_forward_pass_duration_seconds_count"): passes,
		} {
			if got := scraped[series]; got != strconv.Itoa(want) {
				m.T.Errorf("%s: got %q, want %d", series, got, want)
			}
		}
	})
}

func TestPublishedWorkerGoneWithItsRegistration(t *testing.T) {
	forEachPlane(t, func(s *servers, m *metrics, a, b *publisher) {
		m.waitForLoad(a)
		m.waitForLoad(b)
		a.Signal(syscall.SIGTERM)
		m.waitUntilForgotten(a)
		a.Kill()
		b.Kill()
		m.waitUntilForgotten(b)
		// The last worker's files stay, because no other worker is left to remove them.
		if left := s.files != ""; s.isRegistered(b) != left {
			m.T.Errorf("worker %x is registered: %v, want %v", b.id, !left, left)
		}
	})
}

// A worker that was stopped for too long continues its work and is never registered again:
// neither etcd's lease nor a file comes back.
func TestPublishedWorkerResumedWithoutRegistration(t *testing.T) {
	forEachPlane(t, func(s *servers, m *metrics, a, b *publisher) {
		m.waitForLoad(a)
		m.waitForLoad(b)
		a.Signal(syscall.SIGSTOP)
		m.waitUntilForgotten(a)
		// Other workers remove the files of a stopped worker some time after they are too
		// old. Until then it can come back.
		testutil.Until(m.T, func() error {
			if s.isRegistered(a) {
				return fmt.Errorf("worker %x is still registered", a.id)
			}
			return nil
		})
		a.Signal(syscall.SIGCONT)
		a.publish(passA)
		a.WaitForLine("at work")
		b.publish(passA)
		m.waitForPasses(b, 10)
		m.waitUntilForgotten(a)
		if s.isRegistered(a) {
			m.T.Errorf("worker %x is registered again", a.id)
		}
	})
}
