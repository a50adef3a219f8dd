package expose

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

var (
	loadMetrics = fleet.Endpoint{Component: "backend", Name: "load_metrics"}
	everything  = fleet.Target{}

	severalNamespaces = fleet.Target{Namespace: "*"}
)

const maxTestWorkers = 1000

// reported is when every load of these tests is received, served when its page is read.
var (
	reported = time.Date(2025, 2, 26, 18, 45, 5, 0, time.UTC)
	served   = reported.Add(1500 * time.Millisecond)
)

var build = Build{Version: "1.2.3", Revision: "0123456789abcdef", GoVersion: "go1.26"}

func fleetAt(target fleet.Target, registry bool) *fleet.Fleet {
	f := fleet.New(target, maxTestWorkers, registry)
	f.Sync(fleet.Listing{})
	f.Advance(reported)
	return f
}

func metricsOf(f *fleet.Fleet) *Metrics {
	return NewMetrics(Collector{Fleet: f, Build: build, Now: func() time.Time { return served }})
}

// edited are captured bytes with old replaced by new, which must be there.
func replaced(t testing.TB, b []byte, old, new string) []byte {
	t.Helper()
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%q is not in %s", old, b)
	}
	return bytes.ReplaceAll(b, []byte(old), []byte(new))
}

// reports is what one worker's answer says of each endpoint of the component.
func reports(t testing.TB, component string, answer []byte) []fleet.PollReply {
	t.Helper()
	reply, err := wire.ParseStatsReply(answer)
	if err != nil {
		t.Fatal(err)
	}
	var rs []fleet.PollReply
	for _, e := range reply.Endpoints {
		name, lease, ok := wire.SplitSubject(reply.Service, e.Subject, func(string) bool { return false })
		if !ok {
			t.Fatalf("subject %q is not one of the service %q", e.Subject, reply.Service)
		}
		r := fleet.PollReply{
			Endpoint: fleet.Endpoint{Component: component, Name: name},
			Worker:   fleet.WorkerID{Lease: lease}, Service: reply.Service, Outcome: fleet.NoLoad,
		}
		if lease == 0 {
			r.Worker.Static = reply.ID
		}
		load, rank, found, err := wire.ParseLoad(e.Data)
		switch {
		case err != nil:
			r.Outcome = fleet.Malformed
		case found:
			r.Outcome, r.Load, r.Rank = fleet.Reported, load, rank
		}
		rs = append(rs, r)
	}
	return rs
}

// registerAll registers every worker of these answers that has a lease.
func registerAll(t testing.TB, f *fleet.Fleet, component string, answers ...[]byte) {
	t.Helper()
	for _, a := range answers {
		for _, r := range reports(t, component, a) {
			if !r.Worker.IsStatic() {
				f.Register("", fleet.Instance{Endpoint: r.Endpoint, ID: r.Worker.Lease}, fleet.Registration{NATS: true})
			}
		}
	}
}

// poll is one poll with these answers.
func poll(t testing.TB, f *fleet.Fleet, component string, answers ...[]byte) {
	t.Helper()
	f.BeginPoll()
	for _, a := range answers {
		f.RecordPollReply(reports(t, component, a)...)
	}
	f.EndPoll(true)
}

// originalFleet is the fleet that the original's page was taken from.
func originalFleet(t testing.TB) *fleet.Fleet {
	t.Helper()
	f := fleetAt(fleet.Target(loadMetrics), true)
	answers := originalAnswers(t)
	registerAll(t, f, "backend", answers...)
	poll(t, f, "backend", answers...)
	var events []json.RawMessage
	if err := json.Unmarshal(testutil.Captured(t, "original", "hit_rate_events.json"), &events); err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		hit, err := wire.ParseHitRate(e)
		if err != nil {
			t.Fatal(err)
		}
		f.RecordHit(hit.Worker, hit.ISLBlocks, hit.OverlapBlocks)
	}
	return f
}

func originalAnswers(t testing.TB) [][]byte {
	t.Helper()
	return [][]byte{
		testutil.Captured(t, "original", "stats_reply_1.json"),
		testutil.Captured(t, "original", "stats_reply_2.json"),
		testutil.Captured(t, "original", "stats_reply_3.json"),
	}
}

// get asks the handler for a path, with header name, value pairs.
func get(t testing.TB, h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t, h, http.MethodGet, path, header...)
}

func ask(t testing.TB, h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func handler(f *fleet.Fleet) http.Handler {
	return Handler(f, "dynamo", sampleOf(f), metricsOf(f), slog.New(slog.DiscardHandler))
}

// sampleOf looks at the fleet whenever it is asked.
func sampleOf(f *fleet.Fleet) func() Sample {
	var looks atomic.Uint64
	return func() Sample { return Sample{looks.Add(1), f.Snapshot().Endpoints} }
}

// pageOf is the metrics page of the fleet, as text. It is also held against what the
// library would write.
func metricsText(t testing.TB, f *fleet.Fleet) string {
	t.Helper()
	w := get(t, handler(f), "/metrics")
	if w.Code != http.StatusOK {
		t.Fatalf("GET /metrics: %d: %s", w.Code, w.Body)
	}
	page := w.Body.String()
	if diff := cmp.Diff(strings.Split(libraryText(t, metricsOf(f)), "\n"), strings.Split(page, "\n")); diff != "" {
		t.Errorf("the page is not what the library writes (-library +ours):\n%s", diff)
	}
	return page
}

// libraryPage is the page as text, written by the library alone.
func libraryText(t testing.TB, m prometheus.Gatherer) string {
	t.Helper()
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&b, family); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("error: %v, want none", err)
	}
}

// logbook keeps what is logged.
type logBuffer struct {
	mu    sync.Mutex
	lines []string
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// with lists the lines that have all of these in them.
func (l *logBuffer) with(parts ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.lines {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

// newLog returns a log without times, and what it keeps.
func newLog() (*slog.Logger, *logBuffer) {
	var logs logBuffer
	return slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})), &logs
}
