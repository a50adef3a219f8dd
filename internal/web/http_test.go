package web

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire/wiretest"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

var paths = []string{"/metrics", "/", "/-/healthy", "/live", "/-/ready", "/health"}

// readyFleet returns fleettest.Original, connected and polled.
func readyFleet(t *testing.T) *fleet.Fleet {
	f := wiretest.Original(t)
	for _, c := range []*stats.ConnState{&f.Stats.NATS, &f.Stats.Etcd} {
		c.MarkUsed()
		c.SetConnected(true)
	}
	f.Stats.RecordPoll(stats.PollOK, time.Millisecond)
	return f
}

func TestHandlerMetricsParse(t *testing.T) {
	w := testutil.Get(t, handler(wiretest.Original(t)), "/metrics")
	testutil.Equal(t, "content type", w.Header().Get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	for name, family := range parsed {
		if family.GetHelp() == "" || family.GetType() == dto.MetricType_UNTYPED {
			t.Errorf("%s has help %q and type %s", name, family.GetHelp(), family.GetType())
		}
	}
}

func TestHandlerMetricsEscapeNames(t *testing.T) {
	odd := fleet.Endpoint{Component: "a \"b\"\\\n{c=\"d\"} 1", Name: "über\t生成"}
	f := fleettest.New(fleettest.Everything, true)
	f.Register("", fleet.Instance{Endpoint: odd, ID: 1}, fleet.Registration{NATS: true})
	f.RecordPollReply(fleet.PollReply{Endpoint: odd, Worker: fleet.WorkerID{Lease: 1}, Service: "s", Load: fleet.Load{Waiting: fleet.Some[uint64](2)}})
	for _, family := range testutil.Families(t, testutil.Get(t, handler(f), "/metrics").Body, expfmt.NewFormat(expfmt.TypeTextPlain)) {
		if family.GetName() != "llm_requests_waiting" {
			continue
		}
		labels := make(map[string]string)
		for _, l := range family.Metric[0].Label {
			labels[l.GetName()] = l.GetValue()
		}
		testutil.Equal(t, "labels", labels, map[string]string{"component": odd.Component, "endpoint": odd.Name, "worker_id": "1"})
		return
	}
	t.Error("the worker's series is missing")
}

func TestHandlerMetricsProtobuf(t *testing.T) {
	f := wiretest.Original(t)
	h := handler(f)
	w := testutil.Get(t, h, "/metrics", "Accept", string(expfmt.FmtProtoDelim))
	format := expfmt.ResponseFormat(w.Header())
	testutil.Equal(t, "format", format.FormatType(), expfmt.TypeProtoDelim)
	var text strings.Builder
	for _, family := range testutil.Families(t, w.Body, format) {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			t.Fatal(err)
		}
	}
	testutil.Equal(t, "protobuf, as text", text.String(), metricsText(t, f))
}

// OpenMetrics would append _total to the names of the original's two counters.
func TestHandlerMetricsNeverOpenMetrics(t *testing.T) {
	f := wiretest.Original(t)
	for _, accept := range []string{
		"application/openmetrics-text; version=1.0.0; charset=utf-8",
		// What Prometheus 2 and 3 send.
		"application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
		"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,*/*;q=0.1",
	} {
		w := testutil.Get(t, handler(f), "/metrics", "Accept", accept)
		if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=") {
			t.Errorf("Accept: %s: content type %q", accept, got)
		}
		testutil.Equal(t, "metrics for Accept: "+accept, w.Body.String(), metricsText(t, f))
	}
}

func TestHandlerMetricsGzip(t *testing.T) {
	f := wiretest.Original(t)
	plain := testutil.Get(t, handler(f), "/metrics")
	testutil.Equal(t, "encoding without Accept-Encoding", plain.Header().Get("Content-Encoding"), "")
	w := testutil.Get(t, handler(f), "/metrics", "Accept-Encoding", "gzip")
	testutil.Equal(t, "encoding", w.Header().Get("Content-Encoding"), "gzip")
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	testutil.Equal(t, "metrics", string(text), plain.Body.String())
}

func TestHandlerAllowsOnlyGetAndHead(t *testing.T) {
	h := handler(readyFleet(t))
	for _, path := range paths {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect} {
			w := testutil.Request(t, h, method, path)
			testutil.Equal(t, method+" "+path, w.Code, http.StatusMethodNotAllowed)
			testutil.Equal(t, method+" "+path+": Allow", w.Header().Get("Allow"), "GET, HEAD")
		}
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			testutil.Equal(t, method+" "+path, testutil.Request(t, h, method, path).Code, http.StatusOK)
		}
	}
}

func TestHandlerUnknownPathsAreNotFound(t *testing.T) {
	h := handler(readyFleet(t))
	for _, path := range []string{"/metric", "/metrics/", "/metrics/job/x", "/-/", "/-/ready/", "/ready", "/index.html", "/debug/pprof/"} {
		testutil.Equal(t, path, testutil.Get(t, h, path).Code, http.StatusNotFound)
	}
}

func TestHandlerProbes(t *testing.T) {
	h := handler(readyFleet(t))
	for _, path := range []string{"/-/healthy", "/live"} {
		testutil.Equal(t, path, testutil.Get(t, h, path).Body.String(), "healthy\n")
	}
	for _, path := range []string{"/-/ready", "/health"} {
		testutil.Equal(t, path, testutil.Get(t, h, path).Body.String(), "ready\n")
	}
}

func TestHandlerMetricsGatherError(t *testing.T) {
	log, logs := testutil.NewDebugLog()
	f := wiretest.Original(t)
	bad := prometheus.NewDesc("x", "x", nil, nil)
	invalid := collectorFunc(func(ch chan<- prometheus.Metric) { ch <- prometheus.NewInvalidMetric(bad, io.ErrUnexpectedEOF) })
	h := handlerWith(f, func(o *Options) {
		o.Metrics, o.Log = exposition.NewMetrics(exposition.Collector{Fleet: f, Build: build, Now: time.Now}, invalid), log
	})
	for i, accept := range []string{"text/plain", string(expfmt.FmtProtoDelim)} {
		w := testutil.Get(t, h, "/metrics", "Accept", accept)
		testutil.Equal(t, "status", w.Code, http.StatusInternalServerError)
		testutil.Equal(t, "lines of the log", len(logs.Lines("level=ERROR", "unexpected EOF")), i+1)
	}
}

// collectorFunc is a collector without descriptions.
type collectorFunc func(chan<- prometheus.Metric)

func (collectorFunc) Describe(chan<- *prometheus.Desc)      {}
func (f collectorFunc) Collect(ch chan<- prometheus.Metric) { f(ch) }

// TestHandlerServesManyAtOnce is a test for the race detector.
func TestHandlerServesManyAtOnce(t *testing.T) {
	f := readyFleet(t)
	h := handler(f)
	done := make(chan struct{})
	for _, path := range paths {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range uint64(20) {
				f.RecordHit(i, 1, 0)
				if w := testutil.Get(t, h, path); w.Code != http.StatusOK {
					t.Errorf("GET %s: %d", path, w.Code)
				}
			}
		}()
	}
	for range paths {
		<-done
	}
}
