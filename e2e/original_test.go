package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"dynamo-metrics/internal/testutil"

	"github.com/google/go-cmp/cmp"
)

// The steps of the original's README.

const backend = `component="backend",endpoint="generate"`

func TestOriginalQuickstart(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--namespace", "dynamo", "--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")

	m.WaitForLine(" INFO metrics: Creating unique instance of Metrics at dynamo/components/metrics/instance")
	m.WaitForLine(" INFO metrics: Scraping service dynamo_backend_020af9f2 and filtering on subject dynamo_backend_020af9f2.generate")
	const warning = " WARN metrics: No endpoints found matching subject dynamo_backend_020af9f2.generate"
	m.WaitForLine(warning)
	m.WaitForLine("Nothing is registered in namespace dynamo")
	line := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [ A-Z]{5} [a-z]+: .`)
	for _, l := range m.Lines() {
		if !line.MatchString(l) {
			t.Errorf("not the original's line: %q", l)
		}
	}

	first := start(t, "mock_worker", s.env(), "--seed", "1", "--event-interval", "0.05")
	m.waitForSamples(samples{`llm_workers{` + backend + `,state="answering"}`: "1"})
	m.WaitForLine(" INFO metrics: Found endpoints matching subject dynamo_backend_020af9f2.generate")
	start(t, "mock_worker", s.env(), "--seed", "2", "--event-interval", "0.05")
	m.waitForSamples(samples{`llm_workers{` + backend + `,state="answering"}`: "2"})
	m.waitFor(matchAggregates)
	m.waitFor(func(p samples) error {
		if n := len(p.filter("llm_kv_hit_rate_isl_blocks{"+backend, "worker_id=")); n != 2 {
			return fmt.Errorf("%d workers with hits, want the mock workers' two ids: %v", n, p.filter("hit_rate"))
		}
		return nil
	})

	first.Terminate()
	m.waitForSamples(samples{`llm_workers{` + backend + `,state="answering"}`: "1", `llm_workers{` + backend + `,state="silent"}`: "0"})
	m.Terminate()
	if key := s.key(t.Context(), "dynamo/components/metrics/instance"); key != "" {
		t.Errorf("the instance's key is still there: %s", key)
	}
}

// matchAggregates checks that llm_load_avg is the mean of the loads in the same scrape.
func matchAggregates(p samples) error {
	var sum float64
	active := p.filter("llm_kv_blocks_active{" + backend)
	for _, v := range active {
		n, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return err
		}
		sum += n
	}
	got, err := strconv.ParseFloat(p[`llm_load_avg{`+backend+`}`], 64)
	if err != nil {
		return err
	}
	if want := sum / float64(len(active)); got != want {
		return fmt.Errorf("llm_load_avg is %v, the mean of %v is %v", got, active, want)
	}
	return nil
}

func TestOriginalCustomPort(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	port := freePort(t)
	for _, flag := range []string{"--metrics-port", "--port"} {
		m := start(t, "metrics", s.env(), "--component", "backend", "--endpoint", "generate", "--host", "127.0.0.1", flag, port)
		m.WaitForLine("Prometheus metrics server started at 127.0.0.1:" + port + "/metrics")
		if status, body := get("http://127.0.0.1:" + port + "/metrics"); status != 200 {
			t.Errorf("%s: GET /metrics: %d %s", flag, status, body)
		}
		m.Terminate()
	}
}

// gateway is a Pushgateway that records its requests.
type gateway struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string // methods and paths
	bodies   []string
	answer   int
}

func newGateway(t *testing.T) *gateway {
	g := &gateway{answer: http.StatusOK}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.requests = append(g.requests, r.Method+" "+r.URL.Path)
		g.bodies = append(g.bodies, string(body))
		w.WriteHeader(g.answer)
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *gateway) seen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.requests...)
}

func TestOriginalPushMode(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	g := newGateway(t)
	host, port, _ := strings.Cut(strings.TrimPrefix(g.URL, "http://"), ":")
	for _, where := range [][]string{{"--push-url", g.URL}, {"--host", host, "--port", port}} {
		before := len(g.seen())
		m := start(t, "metrics", s.env(), append([]string{"--component", "backend", "--endpoint", "generate", "--push", "--push-interval", "1"}, where...)...)
		m.WaitForLine("Started pushing metrics to Pushgateway at " + g.URL + " with job name 'dynamo_push_metrics'")
		testutil.Until(t, func() error {
			if len(g.seen()) < before+2 {
				return fmt.Errorf("pushed %v, want twice", g.seen())
			}
			return nil
		})
		m.Terminate()
		for _, r := range g.seen() {
			if r != "PUT /metrics/job/dynamo_push_metrics" {
				t.Errorf("%v: request %q", where, r)
			}
		}
		if len(m.LinesWith("Prometheus metrics server started")) > 0 {
			t.Errorf("%v: it listens, though the gateway has the port", where)
		}
	}
	if body := g.bodies[len(g.bodies)-1]; !strings.Contains(body, "llm_workers") {
		t.Errorf("no series of the fleet in the push: %q", body)
	}
}

func TestOriginalPushModeServesToo(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	g := newGateway(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--push", "--push-url", g.URL, "--push-interval", "1", "--push-grouping", "instance=a", "--push-delete-on-exit")
	m.waitFor(func(p samples) error {
		if p[`dynamo_metrics_push_total{result="ok"}`] == "0" {
			return fmt.Errorf("the push is empty: %v", p.filter("push"))
		}
		return nil
	})
	m.Terminate()
	requests := g.seen()
	if last := requests[len(requests)-1]; last != "DELETE /metrics/job/dynamo_push_metrics/instance/a" {
		t.Errorf("last request %q, want the deletion of the group", last)
	}
}

func TestOriginalRefusesASecondInstance(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--model-name", "tiny")
	testutil.Until(t, func() error {
		if s.key(t.Context(), "dynamo/components/metrics/instance") == "" {
			return fmt.Errorf("no key yet")
		}
		return nil
	})
	var got map[string]string
	if err := json.Unmarshal([]byte(s.key(t.Context(), "dynamo/components/metrics/instance")), &got); err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	want := map[string]string{"component_name": "backend", "endpoint_name": "generate", "model_name": "tiny", "host": host}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("value of the key (-want +got):\n%s", diff)
	}
	code, last := runToFailure(t, "metrics", s.env(), "--component", "other", "--endpoint", "generate", "--host", "127.0.0.1", "--metrics-port", "0")
	for _, part := range []string{"dynamo/components/metrics/instance", "another instance exists on host " + host + ", ", `"component_name": "backend"`, "--standby"} {
		if code != 1 || !strings.Contains(last, part) {
			t.Errorf("exit code %d, last line %q; want 1 and %s", code, last, part)
		}
	}
	m.waitForSamples(samples{"dynamo_metrics_leader": "1"})
}

func TestOriginalKilledWorkerIsGoneAfterTwoPolls(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	w := start(t, "mock_worker", s.env(), "--event-interval", "0")
	m.waitForSamples(samples{workersSeries("generate", "answering"): "1"})
	w.Signal(syscall.SIGKILL)
	m.waitForSamples(samples{workersSeries("generate", "answering"): "0", workersSeries("generate", "silent"): "1"})
	m.waitFor(func(p samples) error {
		if rest := p.filter("llm_kv_blocks", `component="backend"`); len(rest) > 0 {
			return fmt.Errorf("still there: %v", rest)
		}
		if up := p.filter("llm_worker_up{"); len(up) != 1 {
			return fmt.Errorf("want one worker that is registered and not up: %v", up)
		}
		return nil
	})
}

func TestOriginalRefusedInstanceDoesNotPush(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	g := newGateway(t)
	push := []string{"--component", "backend", "--push", "--push-url", g.URL, "--push-interval", "1"}
	start(t, "metrics", s.env(), push...)
	testutil.Until(t, func() error {
		if len(g.seen()) == 0 {
			return fmt.Errorf("nothing pushed")
		}
		return nil
	})
	code, _ := runToFailure(t, "metrics", s.env(), append(push, "--push-grouping", "who=second", "--push-delete-on-exit")...)
	if code != 1 {
		t.Errorf("exit code %d of the second instance, want 1", code)
	}
	for _, r := range g.seen() {
		if strings.Contains(r, "second") {
			t.Errorf("the second instance requested %q", r)
		}
	}
}
