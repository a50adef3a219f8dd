//go:build real

package real

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// blockSize is the number of tokens in a block of the pipeline's KV caches.
const blockSize = 16

// pipeline is a complete Dynamo: a frontend that routes by the content of the KV caches of
// two of Dynamo's own mock engines.
type pipeline struct {
	frontend *process.Process
	url      string   // of the frontend
	model    string   // the name in requests
	workers  []uint64 // ids
}

// pipeline starts a pipeline of ai-dynamo, with env for the frontend, and waits until both
// engines can serve requests.
func (s *servers) pipeline(release string, env ...string) *pipeline {
	s.t.Helper()
	return s.pipelineOf(release, env, nil)
}

// pipelineOf is pipeline with env and more flags for the engines.
func (s *servers) pipelineOf(release string, env, engineEnv []string, flags ...string) *pipeline {
	s.t.Helper()
	engines := s.engines(release, engineEnv, flags...)
	p := s.frontend(release, "frontend-0", env...)
	p.waitUntilServing(engines)
	return p
}

// engines starts the two engines of a pipeline.
func (s *servers) engines(release string, env []string, flags ...string) []*process.Process {
	s.t.Helper()
	python := python(s.t, release)
	if err := exec.Command(python, "-c", "import dynamo.frontend, dynamo.mocker").Run(); err != nil {
		process.FailOrSkip(s.t, fmt.Sprintf("%s has no ai-dynamo %s: .ci/run installs it", python, release))
	}
	engines := make([]*process.Process, 2)
	for i := range engines {
		args := append([]string{"-m", "dynamo.mocker", "--model-path", modelDir(s.t),
			"--endpoint", "dyn://dynamo.backend.generate", "--block-size", strconv.Itoa(blockSize),
			"--num-gpu-blocks-override", "512", "--speedup-ratio", "10"}, flags...)
		engines[i] = process.Start(s.t, append(append(s.env(), s.podEnv(fmt.Sprintf("engine-%d", i))...), env...), python, args...)
	}
	return engines
}

// frontend starts a frontend of a pipeline whose engines are running.
func (s *servers) frontend(release, pod string, env ...string) *pipeline {
	s.t.Helper()
	address := process.FreeAddress(s.t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		s.t.Fatal(err)
	}
	frontend := process.Start(s.t, append(append(s.env(), s.podEnv(pod)...), env...), python(s.t, release), "-m", "dynamo.frontend",
		"--router-mode", "kv", "--http-host", host, "--http-port", port)
	return &pipeline{frontend: frontend, url: "http://" + address}
}

// waitUntilServing waits until the frontend can send requests to the engines.
func (p *pipeline) waitUntilServing(engines []*process.Process) {
	p.frontend.T.Helper()
	testutil.Until(p.frontend.T, func() error {
		if p.frontend.HasEnded() {
			p.frontend.T.Fatalf("the frontend at %s has ended", p.url)
		}
		return p.checkEngines()
	})
	for _, engine := range engines {
		// An engine registers before it can serve requests, and panics if it receives one
		// in between.
		engine.WaitForLine("Metrics background tasks started")
	}
}

// checkEngines returns an error unless the frontend has both engines.
func (p *pipeline) checkEngines() error {
	var models struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := getJSON(p.url+"/v1/models", &models); err != nil {
		return err
	}
	if len(models.Data) != 1 {
		return fmt.Errorf("the frontend has the models %v, want one", models.Data)
	}
	p.model = models.Data[0].ID
	var health struct {
		Instances []struct {
			Component string `json:"component"`
			Endpoint  string `json:"endpoint"`
			ID        uint64 `json:"instance_id"`
		} `json:"instances"`
	}
	if err := getJSON(p.url+"/health", &health); err != nil {
		return err
	}
	p.workers = nil
	for _, in := range health.Instances {
		if in.Component == "backend" && in.Endpoint == "generate" {
			p.workers = append(p.workers, in.ID)
		}
	}
	if len(p.workers) != 2 {
		return fmt.Errorf("the frontend knows the workers %v, want two", p.workers)
	}
	return nil
}

// getJSON decodes the response to a GET request.
func getJSON(url string, v any) error {
	text, err := get(url)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return fmt.Errorf("GET %s: %w: %s", url, err, text)
	}
	return nil
}

// usage is the number of tokens of a request.
type usage struct {
	Prompt int `json:"prompt_tokens"`
	Cached struct {
		Tokens int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"` // from 0.7 on
}

// sendChat sends a chat request and waits for the response.
func (p *pipeline) sendChat(prompt string) (usage, error) {
	body, err := json.Marshal(map[string]any{
		"model": p.model, "max_tokens": 20,
		"messages": []map[string]string{{"role": "user", "content": prompt}},
	})
	if err != nil {
		return usage{}, err
	}
	client := http.Client{Timeout: testutil.WaitTimeout}
	resp, err := client.Post(p.url+"/v1/chat/completions", "application/json", bytes.NewReader(body))
	if err != nil {
		return usage{}, err
	}
	defer resp.Body.Close()
	var answer struct {
		Usage usage `json:"usage"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK {
		return usage{}, fmt.Errorf("the frontend answers %s (%v)", resp.Status, err)
	}
	return answer.Usage, nil
}

// conversationTotals are the totals of conversations that ran at the same time.
type conversationTotals struct {
	requests, inputBlocks, cachedTokens int
}

// runConversations runs conversations. Each request begins with the whole request before,
// so that most of it is in the cache of the worker that served that one.
func (p *pipeline) runConversations(t *testing.T) conversationTotals {
	t.Helper()
	const conversations, turns, first, more = 6, 5, 200, 50 // words
	var mu sync.Mutex
	var sum conversationTotals
	var g errgroup.Group
	for c := range conversations {
		g.Go(func() error {
			var prompt strings.Builder
			words := 0
			for turn := range turns {
				for ; words < first+turn*more; words++ {
					fmt.Fprintf(&prompt, "w%d ", (c+words*(c+1))%61)
				}
				u, err := p.sendChat(prompt.String())
				if err != nil {
					return err
				}
				mu.Lock()
				sum.requests++
				sum.inputBlocks += (u.Prompt + blockSize - 1) / blockSize
				sum.cachedTokens += u.Cached.Tokens
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return sum
}

// runUntilHits runs conversations until cached reports that something was found in a cache. The
// router learns from events what the caches hold, and on a busy machine these arrive after the
// requests.
func (p *pipeline) runUntilHits(t *testing.T, cached func(requests int) int) (sum conversationTotals) {
	t.Helper()
	testutil.Until(t, func() error {
		more := p.runConversations(t)
		sum.requests += more.requests
		sum.inputBlocks += more.inputBlocks
		sum.cachedTokens += more.cachedTokens
		if cached(sum.requests) == 0 {
			return errors.New("no cache had any hit: the requests prove nothing")
		}
		return nil
	})
	return sum
}

// routerCachedTokens returns how many tokens the router has found in caches, by its own metric.
func (p *pipeline) routerCachedTokens(t *testing.T) int {
	t.Helper()
	text, err := get(p.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	return samples(process.ParseSamples(text)).sum("dynamo_component_router_kv_selected_cached_prefix_tokens_total")
}

// hits are the totals of the hit-rate counters in a scrape.
type hits struct{ events, isl, overlap int }

func (p samples) hits() hits {
	return hits{p.sum("llm_kv_hit_rate_events_total"), p.sum("llm_kv_hit_rate_isl_blocks"), p.sum("llm_kv_hit_rate_overlap_blocks")}
}

// sum adds up the series of a metric whose values are integers.
func (p samples) sum(metric string) (sum int) {
	for series, value := range p {
		if strings.HasPrefix(series, metric+"{") {
			n, _ := strconv.ParseFloat(value, 64)
			sum += int(n)
		}
	}
	return sum
}

// waitForHitEvents waits until there are as many hit-rate events as there were requests.
func (m *metrics) waitForHitEvents(requests int) (p samples) {
	m.T.Helper()
	testutil.Until(m.T, func() error {
		var err error
		if p, err = m.scrape(); err != nil {
			return err
		}
		if n := p.hits().events; n != requests {
			return fmt.Errorf("%d hit-rate events of %d requests", n, requests)
		}
		return nil
	})
	return p
}

// waitForWorkers waits until the metric has a series for each of the workers.
func (m *metrics) waitForWorkers(metric string, workers []uint64) {
	m.T.Helper()
	testutil.Until(m.T, func() error {
		p, err := m.scrape()
		if err != nil {
			return err
		}
		for _, id := range workers {
			series := fmt.Sprintf(`%s{component="backend",endpoint="generate",worker_id="%d"}`, metric, id)
			if _, found := p[series]; !found {
				return fmt.Errorf("/metrics lacks %s", series)
			}
		}
		return nil
	})
}

// hitCounter counts the hits that a NATS subscriber receives.
type hitCounter struct {
	t *testing.T

	mu   sync.Mutex
	hits hits
}

// countMessage counts a hit-rate event, which is JSON up to 0.6 and msgpack from 0.9 on.
func (h *hitCounter) countMessage(msg *nats.Msg) {
	r, err := wire.ParseHitRate(msg.Data)
	if wire.IsEnvelope(msg.Data) {
		var e wire.Envelope
		if e, err = wire.ParseEnvelope(msg.Data); err == nil {
			r, err = wire.ParseHitRateMsgpack(e.Payload)
		}
	}
	if err != nil {
		h.t.Errorf("hit-rate event %q: %v", msg.Data, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hits = hits{h.hits.events + 1, h.hits.isl + int(r.ISLBlocks), h.hits.overlap + int(r.OverlapBlocks)}
}

func TestPipelineHitsAreWhatTheRouterPublishes(t *testing.T) {
	t.Parallel()
	for release, natsServer := range map[string]func(*testing.T) string{"0.6.1": debianNATSServer, "0.9.1": process.NATSServer} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			python(t, release)
			s := &servers{t: t}
			s.startNATS(natsServer(t))
			s.startEtcd()
			h := &hitCounter{t: t}
			if _, err := s.nats.Subscribe("namespace.dynamo.kv-hit-rate", h.countMessage); err != nil {
				t.Fatal(err)
			}
			m := s.metrics("--poll-interval", "0.2")
			m.waitForPolls(2)
			pipeline := s.pipeline(release)
			var got hits
			talks := pipeline.runUntilHits(t, func(requests int) int {
				got = m.waitForHitEvents(requests).hits()
				return got.overlap
			})
			testutil.Until(t, func() error {
				h.mu.Lock()
				defer h.mu.Unlock()
				if got != h.hits || got.isl != talks.inputBlocks {
					return fmt.Errorf("got hits %+v, want %+v of %d input blocks", got, h.hits, talks.inputBlocks)
				}
				return nil
			})
			m.waitForWorkers("llm_kv_blocks_total", pipeline.workers)
			if got.overlap == 0 {
				t.Error("no cache had any hit: the requests prove nothing")
			}
			t.Logf("ai-dynamo %s, %+v: %+v", release, talks, got)
		})
	}
}

// checkTraces compares the totals from traces with those of the requests and with the
// router's own metric.
func (p *pipeline) checkTraces(t *testing.T, requested conversationTotals, traced hits) {
	t.Helper()
	router := p.routerCachedTokens(t)
	if traced.isl != requested.inputBlocks || traced.overlap*blockSize != router {
		t.Errorf("got hits %+v, want %d input blocks, and of them in caches %d tokens", traced, requested.inputBlocks, router)
	}
	if router == 0 {
		t.Error("no cache had any hit: the requests prove nothing")
	}
	t.Logf("requests %+v, traces %+v, router %d tokens", requested, traced, router)
}

func TestPipelineTracesMatchTheRoutersMetric(t *testing.T) {
	t.Parallel()
	python(t, "1.6.1")
	s := &servers{t: t}
	s.startNATS(process.NATSServer(t))
	s.startEtcd()
	m := s.metrics("--poll-interval", "0.2")
	m.waitForPolls(2)
	pipeline := s.pipeline("1.6.1", "DYN_REQUEST_TRACE=1", "DYN_REQUEST_TRACE_SINKS=nats")
	m.waitForWorkers("llm_requests_active_slots", pipeline.workers)
	talks := pipeline.runUntilHits(t, func(int) int { return pipeline.routerCachedTokens(t) })
	p := m.waitForHitEvents(talks.requests)

	pipeline.checkTraces(t, talks, p.hits())
	for _, metric := range []string{
		"llm_request_ttft_seconds", "llm_request_inter_token_seconds", "llm_request_duration_seconds",
		"llm_worker_request_ttft_seconds", "llm_worker_request_inter_token_seconds", "llm_worker_request_duration_seconds",
	} {
		if n := p.sum(metric + "_count"); n != talks.requests {
			t.Errorf("%s has %d requests, want %d", metric, n, talks.requests)
		}
	}
}
