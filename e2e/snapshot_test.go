package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/mock"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// snapshot is the part of the snapshot that these tests read.
type snapshot struct {
	Connected map[string]struct{ On bool }
	Leader    struct{ Role string }
	Fleet     struct {
		States   map[string]int
		LoadMean float64
	}
	Workers []struct {
		Key, Source, State string
		DP                 *int
		KVUse, Waiting     float64
	}
	Problems []struct {
		ID, Title, Detail, Check string
		Workers                  []string
	}
	History *struct{ LoadMean []*float64 }
	Looking *struct {
		Why, Mock string
		Asks      []string
		Nearest   *struct{ Command string }
	}
}

// problem returns the text of one problem in the snapshot, or "" if there is no such
// problem.
func (s snapshot) problem(id string) string {
	for _, p := range s.Problems {
		if p.ID == id {
			return p.Title + ": " + p.Detail + " " + fmt.Sprint(p.Workers) + " " + p.Check
		}
	}
	return ""
}

// waitForSnapshot waits for a snapshot for which check returns nil.
func (v *server) waitForSnapshot(check func(snapshot) error) {
	v.t.Helper()
	testutil.Until(v.t, func() error {
		status, body := get(v.url + "/api/v1/fleet?history=true")
		var s snapshot
		if err := json.Unmarshal([]byte(body), &s); status != 200 || err != nil {
			return fmt.Errorf("GET /api/v1/fleet: %d %v %s", status, err, body)
		}
		return check(s)
	})
}

// waitForProblem waits until the problem's text contains all of these parts.
func (v *server) waitForProblem(id string, parts ...string) {
	v.t.Helper()
	v.waitForSnapshot(func(s snapshot) error {
		text := s.problem(id)
		for _, p := range parts {
			if text == "" || !strings.Contains(text, p) {
				return fmt.Errorf("%s reads %q, want %q in it", id, text, p)
			}
		}
		return nil
	})
}

// waitForNoProblem waits until the problem has ended.
func (v *server) waitForNoProblem(id string) {
	v.t.Helper()
	v.waitForSnapshot(func(s snapshot) error {
		if text := s.problem(id); text != "" {
			return fmt.Errorf("%s reads %q", id, text)
		}
		return nil
	})
}

// waitForSignals waits until the signals of backend/generate have this status and contain
// this part.
func (v *server) waitForSignals(status int, part string) {
	v.t.Helper()
	testutil.Until(v.t, func() error {
		got, body := get(v.url + "/api/v1/signals?component=backend&endpoint=generate")
		if got != status || !strings.Contains(body, part) {
			return fmt.Errorf("signals: %d %s, want %d and %s", got, body, status, part)
		}
		return nil
	})
}

// startMocksOfEachKind runs three mock workers, by release: one that is polled, and one on
// each event plane. Half of their blocks are in use.
func (s *stack) startMocksOfEachKind(m *server) (scripts map[string]*mockScript, all map[string]*mockWorker) {
	s.t.Helper()
	scripts, all = make(map[string]*mockScript), make(map[string]*mockWorker)
	for _, kind := range [][2]string{{"0.5.1", mock.NATS}, {"0.9.1", mock.NATS}, {"1.6.1", mock.ZMQ}} {
		p := &mockScript{load: loadOf(1, 1, 1)}
		scripts[kind[0]], all[kind[0]] = p, s.mock(p.config(kind[0], kind[1]))
	}
	m.waitForPublishers(2, 0)
	m.waitForNATSEvents()
	for _, p := range scripts {
		p.setLoad(halfFull(10, 2))
	}
	return scripts, all
}

func TestSnapshotShowsTheFleet(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.waitForSignals(200, `"workers":0,`)
	m.waitForSnapshot(func(g snapshot) error {
		if l := g.Looking; l == nil || l.Why != "" || len(l.Asks) != 3 || !strings.HasPrefix(l.Mock, "mock_worker --component backend --endpoint generate --nats-server nats://127.0.0.1:") {
			return fmt.Errorf("empty state %+v", l)
		}
		return nil
	})

	scripts, all := s.startMocksOfEachKind(m)
	m.waitForSnapshot(func(g snapshot) error {
		sources := make(map[string]string)
		for _, w := range g.Workers {
			sources[w.Key] = fmt.Sprint(w.Source, " ", w.State, " ", w.KVUse)
		}
		for release, want := range map[string]string{"0.5.1": "stats answering 0.5", "0.9.1": "active_load answering 0.5", "1.6.1": "active_load answering 0.5"} {
			if got := sources[fmt.Sprint(all[release].id)]; got != want {
				return fmt.Errorf("the worker of %s is %q, want %q: %v", release, got, want, sources)
			}
		}
		if g.Leader.Role != "leader" || !g.Connected["nats"].On || !g.Connected["etcd"].On || !g.Connected["zmq"].On || g.Looking != nil {
			return fmt.Errorf("leader %v, connected %v, empty state %v", g.Leader, g.Connected, g.Looking)
		}
		return nil
	})
	m.waitForSignals(200, `"workers":3,`)
	m.waitForSignals(200, `"kv_usage_mean":0.5,"kv_usage_max":0.5,`)

	scripts["1.6.1"].setLoad(loadOf(60, 9, 930))
	m.waitForProblem("full:backend/generate", fmt.Sprintf("%x at 93\u00a0%%", all["1.6.1"].id), fmt.Sprintf("[%d]", all["1.6.1"].id))
	m.waitForSignals(200, `"kv_usage_max":0.93,`)

	// One worker is registered and never answers. Another one has replies that cannot be
	// decoded.
	s.register(wire.LayoutInstances, instance("generate", 0x77))
	m.waitForProblem("silent:backend/generate", "1 worker of backend/generate is registered but silent", ": 77.", "[119]")
	s.responder("dynamo_backend", reply("dynamo_backend", "generate", 0x77, `{"kv_active_blocks":"many"}`))
	m.waitForProblem("malformed:backend/generate", ": 77.", "[119]")
	m.waitForNoProblem("silent:backend/generate")
}

func TestSnapshotShowsLostWorkers(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	scripts, all := s.startMocksOfEachKind(m)
	m.waitForSignals(200, `"workers":3,`)

	// One event is lost.
	lost := 1
	scripts["0.9.1"].change(func(p *mockScript) {
		p.step = func(l *fleet.Load) { l.KVActive.V = min(l.KVActive.V+1, 510) }
		p.lose = func(topic string) bool { lost--; return topic == wire.TopicLoad && lost >= 0 }
	})
	m.waitForProblem("gaps", "1 event is missing", fmt.Sprintf("%x skipped from", all["0.9.1"].id))

	s.StopNATS()
	m.waitForSignals(503, "NATS is not connected")
	m.waitForProblem("connection:nats", "NATS is not connected", "nats://127.0.0.1:")
	s.StartNATS(t)
	m.waitForNoProblem("connection:nats")
	m.waitForSignals(200, `"workers":3,`)

	all["0.5.1"].end(nil)
	m.waitForProblem("lost:backend/generate", "1 worker of backend/generate has deregistered", fmt.Sprintf("%x", all["0.5.1"].id))
}

// TestSnapshotStreamEndsWithTheProgram checks that streams do not delay the end of the
// program, however many are open.
func TestSnapshotStreamEndsWithTheProgram(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	leader := s.metrics("--standby")
	testutil.Until(t, func() error {
		if _, body := get(leader.url + "/api/v1/fleet"); !strings.Contains(body, `"role":"leader"`) {
			return fmt.Errorf("not the leader: %.300s", body)
		}
		return nil
	})
	standby := s.metrics("--standby")
	standby.WaitForLine("Standing by: ")
	standby.waitUntilReady()
	for _, c := range []struct {
		*server
		role string
	}{{standby, "standby"}, {leader, "leader"}} {
		m, role := c.server, c.role
		var streams []*bufio.Reader
		for range 3 {
			resp, err := http.Get(m.url + "/events") // the client requests gzip, and decodes it
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { resp.Body.Close() })
			streams = append(streams, bufio.NewReader(resp.Body))
		}
		for i, r := range streams {
			line, err := r.ReadString('\n')
			var g snapshot
			if err != nil || json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &g) != nil || g.Leader.Role != role || g.History == nil {
				t.Fatalf("stream %d of the %s begins with %q, %v", i, role, line, err)
			}
			if line, err = r.ReadString('\n'); err != nil || line != "\n" {
				t.Fatalf("stream %d continues with %q, %v", i, line, err)
			}
			if line, err = r.ReadString('\n'); err != nil || !strings.HasPrefix(line, `data: {"namespace":"dynamo"`) {
				t.Fatalf("stream %d continues with %q, %v", i, line, err)
			}
		}
		m.waitForSamples(samples{"dynamo_metrics_page_streams": "3"})
		m.Terminate()
	}
}

// TestSnapshotNeedsTheWebConfigPassword checks that TLS and basic auth protect the snapshot
// and its stream, over HTTP/1.1 and HTTP/2.
func TestSnapshotNeedsTheWebConfigPassword(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	ca := testutil.NewAuthorityWithCertificates(t)
	config := filepath.Join(t.TempDir(), "web.yml")
	const hash = "$2a$04$BWSdB/BnnmmxHeExxmRRi.cPwBEWp.R.l7p4.VPdlMKQNnuH/0HzW" // the hash of "secret"
	content := fmt.Sprintf("tls_server_config: {cert_file: %s, key_file: %s}\nbasic_auth_users: {u: %s}\n", ca.File("server.crt"), ca.File("server.key"), hash)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	m := s.metrics("--web.config.file", config)
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(readFile(t, ca.File("ca.crt")))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), testutil.WaitTimeout)
	defer cancel()
	ask := func(path string, known bool) *http.Response {
		var resp *http.Response
		testutil.Until(t, func() error {
			r, err := http.NewRequestWithContext(ctx, "GET", strings.Replace(m.url, "http:", "https:", 1)+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if known {
				r.SetBasicAuth("u", "secret")
			}
			resp, err = client.Do(r)
			return err
		})
		return resp
	}
	for _, path := range []string{"/events", "/worker?key=1", "/api/v1/fleet", "/api/v1/signals", "/api/v1/openapi.json"} {
		resp := ask(path, false)
		resp.Body.Close()
		if resp.StatusCode != 401 || resp.ProtoMajor != 2 {
			t.Errorf("%s without a password: %s over %s", path, resp.Status, resp.Proto)
		}
	}
	resp := ask("/events", true)
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Fatalf("with a password: %s over %s", resp.Status, resp.Proto)
	}
	lines, start := bufio.NewReader(resp.Body), time.Now()
	for events := 0; events < 12; { // longer than the timeout for reading a request
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("after %d events and %v: %v", events, time.Since(start), err)
		}
		if strings.HasPrefix(line, "data: ") {
			events++
		}
	}
}

// TestSnapshotOfARollingUpdateInKubernetes has workers in two namespaces, and an API server
// that goes down.
func TestSnapshotOfARollingUpdateInKubernetes(t *testing.T) {
	t.Parallel()
	for _, namespaces := range []string{"lab-*", "*"} {
		t.Run(namespaces, func(t *testing.T) {
			t.Parallel()
			testSnapshotOfBothGenerations(t, namespaces)
		})
	}
}

func testSnapshotOfBothGenerations(t *testing.T, namespaces string) {
	c := newCluster(t)
	old, next := c.startWorker("lab-0c1d2e3f", "pod-old"), c.startWorker("lab-4b5c6d7e", "pod-new")
	c.ready(old, true)
	c.ready(next, true)
	m := c.metrics("--namespace", namespaces)
	m.waitForPublishers(4, 0)
	old.setLoad(loadOf(3, 2, 200))
	next.setLoad(loadOf(5, 4, 950))
	m.waitForSignals(200, `"workers":2,"workers_answering":2,"workers_silent":0,"workers_malformed":0,"kv_usage_mean":0.575,"kv_usage_max":0.95,"requests_running":8,"requests_waiting":6,`)
	status, body := get(m.url + "/api/v1/signals?component=backend&endpoint=generate&dynamo_namespace=lab-0c1d2e3f")
	if status != 200 || !strings.Contains(body, `"workers":1,`) || !strings.Contains(body, `"kv_usage_max":0.2,`) {
		t.Errorf("signals of one namespace: %d %s", status, body)
	}
	m.waitForProblem("full:lab-4b5c6d7e/backend/generate", fmt.Sprintf("lab-4b5c6d7e/backend/generate: %x at 95", next.id))
	m.waitForSnapshot(func(g snapshot) error {
		_, nats := g.Connected["nats"]
		if !g.Connected["kubernetes"].On || nats || g.Leader.Role != "leader" {
			return fmt.Errorf("connected %v, leader %v", g.Connected, g.Leader)
		}
		return nil
	})
	c.stopAPI()
	m.waitForProblem("connection:kubernetes", "The Kubernetes API cannot be read", "namespace team-a")
	m.waitForSignals(503, "the Kubernetes API cannot be read")
	c.restartAPI()
	m.waitForNoProblem("connection:kubernetes")
	m.waitForSignals(200, `"workers":2,`)
}
