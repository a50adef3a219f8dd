package web

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor/monitortest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// request sends one request to the handler, without a network.
func (h *harness) request(method, path string, header ...string) *httptest.ResponseRecorder {
	h.t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	return w
}

// requestError returns the error of a response with this status.
func (h *harness) requestError(method, path string, status int) string {
	h.t.Helper()
	w := h.request(method, path)
	var e struct{ Error string }
	if w.Code != status || w.Header().Get("Content-Type") != "application/json" || json.Unmarshal(w.Body.Bytes(), &e) != nil || e.Error == "" {
		h.t.Errorf("%s %s: %d %s %s, want %d and an error in JSON", method, path, w.Code, w.Header().Get("Content-Type"), w.Body, status)
	}
	return e.Error
}

func TestAPIServesLatestSnapshot(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1)
		h.setReplies(pollReply(generate, 1, 250, 2))
		h.ticks(12 * time.Second)
		plain := h.request("GET", "/api/v1/fleet")
		testutil.Equal(t, "status", plain.Code, 200)
		testutil.Equal(t, "headers", []string{plain.Header().Get("Content-Type"), plain.Header().Get("Vary"), plain.Header().Get("Cache-Control"), plain.Header().Get("X-Content-Type-Options")},
			[]string{"application/json", "Accept-Encoding", "no-store", "nosniff"})
		var s snapshotJSON
		monitortest.Decode(t, plain.Body.Bytes(), &s)
		testutil.Equal(t, "mean load", monitortest.FormatOptional(s.Fleet.LoadMean), "0.25")
		testutil.Equal(t, "history", s.History, nil)
		packed := h.request("GET", "/api/v1/fleet?history=true", "Accept-Encoding", "gzip")
		testutil.Equal(t, "encoding", packed.Header().Get("Content-Encoding"), "gzip")
		r, err := gzip.NewReader(packed.Body)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		monitortest.Decode(t, body, &s)
		testutil.Equal(t, "samples", len(s.History.LoadMean), 3)
		head := h.request("HEAD", "/api/v1/fleet")
		testutil.Equal(t, "status of HEAD", head.Code, 200)
		testutil.Equal(t, "HEAD of the stream", []any{h.request("HEAD", "/events").Code, h.fleet.Stats.Streams.Load()}, []any{200, int64(0)})
	})
}

// apiPaths are the paths whose errors are JSON.
var apiPaths = []string{"/events", "/worker", "/api/v1/fleet", "/api/v1/signals", "/api/v1/openapi.json"}

func TestAPIErrorsAreJSON(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		for _, path := range apiPaths {
			testutil.Equal(t, "error", h.requestError("POST", path, 405), "POST is not allowed: want GET or HEAD")
			testutil.Equal(t, "allowed methods", h.request("DELETE", path).Header().Get("Allow"), "GET, HEAD")
			if !strings.HasPrefix(h.requestError("GET", path+"?colour=red", 400), `unknown parameter "colour": `) {
				t.Errorf("the error of %s does not name the unknown parameter", path)
			}
		}
		for path, want := range map[string]string{
			"/api/v1/fleet?history=yes":      `history is "yes": want true or false`,
			"/api/v1/fleet?history=true&x=1": `unknown parameter "x": want history`,
			"/events?x=1":                    `unknown parameter "x": this path takes none`,
			"/worker":                        "key is missing: want the key of a worker in /api/v1/fleet",
			"/worker?key=1&key=2":            `parameter "key" is given 2 times: want it only once`,
			"/api/v1/signals":                "component and endpoint are required: those of the workers to scale, as in /api/v1/fleet",
			"/api/v1/signals?component=a&x=": `unknown parameter "x": want component, endpoint, dynamo_namespace`,
			"/api/v1/signals?component=a":    "component and endpoint are required: those of the workers to scale, as in /api/v1/fleet",
		} {
			testutil.Equal(t, path, h.requestError("GET", path, 400), want)
		}
		testutil.Equal(t, "error", h.requestError("GET", "/worker?key=%3C1%3E", 404), `there is no worker with the key "<1>"`)
		testutil.Equal(t, "error", h.requestError("GET", "/api/v2/fleet", 404), "there is no /api/v2/fleet: see /api/v1/openapi.json")
		testutil.Equal(t, "error", h.requestError("POST", "/api/", 404), "there is no /api/: see /api/v1/openapi.json")
	})
}

// signalsJSON has every field that a signals response can have.
type signalsJSON struct {
	Namespace, Component, Endpoint string
	Seen                           bool
	Now                            int64
	Workers                        int
	Answering                      int      `json:"workers_answering"`
	Silent                         int      `json:"workers_silent"`
	Malformed                      int      `json:"workers_malformed"`
	Mean                           *float64 `json:"kv_usage_mean"`
	Max                            *float64 `json:"kv_usage_max"`
	Running                        *float64 `json:"requests_running"`
	RunningWorkers                 int      `json:"requests_running_workers"`
	Waiting                        *float64 `json:"requests_waiting"`
	WaitingWorkers                 int      `json:"requests_waiting_workers"`
	Queued                         *float64 `json:"queued_prefill_tokens"`
	QueuedWorkers                  int      `json:"queued_prefill_tokens_workers"`
	HitRate                        *float64 `json:"hit_rate"`
	Age                            *float64 `json:"age_seconds"`
}

const generateSignalsPath = "/api/v1/signals?component=backend&endpoint=generate"

func (h *harness) signals(path string) (s signalsJSON) {
	h.t.Helper()
	w := h.request("GET", path)
	if w.Code != 200 {
		h.t.Fatalf("GET %s: %d %s", path, w.Code, w.Body)
	}
	monitortest.Decode(h.t, w.Body.Bytes(), &s)
	return s
}

func (s signalsJSON) String() string {
	b, _ := json.Marshal([]any{s.Workers, monitortest.FormatOptional(s.Mean), monitortest.FormatOptional(s.Max), monitortest.FormatOptional(s.Running), monitortest.FormatOptional(s.Waiting), monitortest.FormatOptional(s.Queued), monitortest.FormatOptional(s.HitRate), monitortest.FormatOptional(s.Age)})
	return string(bytes.ReplaceAll(b, []byte(`"`), nil))
}

func TestSignalsAggregateOneEndpoint(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		testutil.Equal(t, "signals without workers", h.signals(generateSignalsPath).String(), "[0,–,–,0,0,0,–,–]")
		testutil.Equal(t, "seen", h.signals(generateSignalsPath).Seen, false)
		h.registerPolled(generate, 1, 2, 3)
		h.registerPolled(prefill, 4)
		h.setReplies(pollReply(generate, 1, 200, 2), pollReply(generate, 2, 600, 3), malformedReply(generate, 3), pollReply(prefill, 4, 990, 99))
		h.ticks(2 * time.Second)
		h.fleet.RecordHit(1, 100, 40)
		h.tick()
		s := h.signals(generateSignalsPath)
		testutil.Equal(t, "signals", s.String(), "[3,0.4,0.6,40,5,–,0.4,0]")
		testutil.Equal(t, "workers by state", []int{s.Answering, s.Silent, s.Malformed}, []int{2, 0, 1})
		testutil.Equal(t, "names", []string{s.Namespace, s.Component, s.Endpoint}, []string{"dynamo", "backend", "generate"})
		testutil.Equal(t, "seen", s.Seen, true)
		testutil.Equal(t, "time of the sample", s.Now, time.Now().UnixMilli())
		testutil.Equal(t, "signals with the namespace", h.signals(generateSignalsPath+"&dynamo_namespace=dynamo"), s)
		testutil.Equal(t, "error for another namespace", h.requestError("GET", generateSignalsPath+"&dynamo_namespace=other", 404), `the namespace "other" is not watched, only "dynamo"`)
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 1})
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 2})
		h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 3})
		h.ticks(time.Second)
		testutil.Equal(t, "signals when all have lost their keys, and still answer", h.signals(generateSignalsPath).String(), "[0,–,–,0,0,0,0.4,–]")
	})
}

// TestSignalsCountReportingWorkers checks how many workers report each value, as not all report
// every one.
func TestSignalsCountReportingWorkers(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		reported := func(want ...int) {
			t.Helper()
			s := h.signals(generateSignalsPath)
			testutil.Equal(t, "workers that report", []int{s.RunningWorkers, s.WaitingWorkers, s.QueuedWorkers}, want)
		}
		reported(0, 0, 0)
		h.registerPublishing(generate, 1, 2, 3)
		at := func(id uint64) fleet.Origin { return fleet.Origin{Endpoint: generate, Worker: id} }
		h.fleet.RecordLoad(at(1), fleet.FromActiveLoad, fleet.Load{KVActive: u(500)})
		h.fleet.RecordLoad(at(2), fleet.FromLoadEvent, fleet.Load{KVActive: u(500), ActiveSlots: u(4)})
		h.ticks(time.Second)
		reported(1, 0, 0)
		testutil.Equal(t, "waiting requests", monitortest.FormatOptional(h.signals(generateSignalsPath).Waiting), "–")
		testutil.Equal(t, "whether the snapshot has no queue", h.snapshot().Fleet.WaitingReported == nil, true)
		h.fleet.RecordForwardPass(at(3), fleet.Pass{Counter: 1, Running: 3, Waiting: 0, QueuedTokens: 512})
		h.ticks(time.Second)
		reported(2, 1, 1)
		s := h.signals(generateSignalsPath)
		testutil.Equal(t, "sums", []float64{*s.Running, *s.Waiting, *s.Queued}, []float64{7, 0, 512})
		testutil.Equal(t, "workers with a queue in the snapshot", *h.snapshot().Fleet.WaitingReported, 1)
	})
}

// TestSnapshotKVUsageMatchesSignals checks that both have the usage that the worker reports,
// whatever its blocks are.
func TestSnapshotKVUsageMatchesSignals(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1, 2)
		reply := pollReply(generate, 1, 250, 0)
		reply.Load.CacheUsage = fleet.Some(0.9)
		h.setReplies(reply, pollReply(generate, 2, 500, 0))
		h.ticks(2 * time.Second)
		s, c := h.signals(generateSignalsPath), h.snapshot()
		testutil.Equal(t, "signals", []float64{*s.Mean, *s.Max}, []float64{0.7, 0.9})
		testutil.Equal(t, "KV use of the fleet and the endpoint", []float64{*c.Fleet.LoadMean, *c.Fleet.LoadStd, *c.Endpoints[0].LoadMean, *c.Endpoints[0].LoadStd}, []float64{0.7, 0.2, 0.7, 0.2})
		testutil.Equal(t, "workers", []float64{*c.Workers[0].KVUse, *c.Workers[1].KVUse}, []float64{0.9, 0.5})
		testutil.Equal(t, "blocks", []float64{*c.Fleet.BlocksMean, *c.Fleet.BlocksStd, *c.Endpoints[0].Imbalance}, []float64{375, 125, 1.3333})
		testutil.Equal(t, "problems", h.problem("full:backend/generate").Workers, []string{"1"})
	})
}

// TestSnapshotSlotsAreMeanOfReportingWorkers leaves out workers without slots.
func TestSnapshotSlotsAreMeanOfReportingWorkers(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1, 2, 3)
		h.registerPolled(prefill, 4)
		few, many, none, unknown := pollReply(generate, 1, 100, 0), pollReply(generate, 2, 100, 0), pollReply(generate, 3, 100, 0), pollReply(prefill, 4, 100, 0)
		few.Load.ActiveSlots, few.Load.TotalSlots = u(16), u(64)
		many.Load.ActiveSlots, many.Load.TotalSlots = u(48), u(64)
		none.Load.ActiveSlots, none.Load.TotalSlots = fleet.Opt[uint64]{}, fleet.Opt[uint64]{}
		unknown.Load.ActiveSlots, unknown.Load.TotalSlots = u(3), u(0)
		h.setReplies(few, many, none, unknown)
		h.ticks(2 * time.Second)
		e := h.snapshot().Endpoints
		testutil.Equal(t, "slots of workers that report them", []string{monitortest.FormatOptional(e[0].SlotsMean), monitortest.FormatOptional(e[0].SlotsStd)}, []string{"0.5", "0.25"})
		testutil.Equal(t, "slots of workers that report none", e[1].SlotsMean == nil && e[1].SlotsStd == nil, true)
	})
}

func TestSignalsRefuseStaleLoads(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		stale := func(want string) {
			t.Helper()
			testutil.Equal(t, "error", h.requestError("GET", generateSignalsPath, 503), want)
		}
		h.registerPolled(generate, 1)
		h.tick()
		stale("stale: none of 1 worker has reported a load")
		h.setReplies(pollReply(generate, 1, 200, 2))
		h.tick()
		testutil.Equal(t, "age", monitortest.FormatOptional(h.signals(generateSignalsPath).Age), "0")
		for what, state := range map[string]*stats.ConnState{"NATS": &h.fleet.Stats.NATS, "etcd": &h.fleet.Stats.Etcd} {
			state.SetConnected(false)
			h.tick()
			stale("stale: " + what + " is not connected")
			state.SetConnected(true)
			h.tick()
			testutil.Equal(t, "age", monitortest.FormatOptional(h.signals(generateSignalsPath).Age), "0")
		}
		// Polls are every two seconds, so the limit is three of them and a second: seven seconds.
		for n := range 8 {
			time.Sleep(time.Second)
			h.monitor.Sample(time.Now())
			if n < 7 {
				h.signals(generateSignalsPath)
			}
		}
		stale("stale: the newest load is 8 s old, want no more than 7 s")
		h.tick()
		time.Sleep(7 * time.Second) // without a sample
		testutil.Equal(t, "age", monitortest.FormatOptional(h.signals(generateSignalsPath).Age), "7")
		time.Sleep(time.Second)
		testutil.Equal(t, "age", monitortest.FormatOptional(h.signals(generateSignalsPath).Age), "7") // the sample may be up to two seconds old
		time.Sleep(time.Second)
		stale("stale: the newest load is 9 s old, want no more than 7 s")
	})
}

func TestSignalsServeOldPublishedLoads(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPublishing(generate, 1)
		from := fleet.Origin{Endpoint: generate, Worker: 1}
		h.fleet.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: u(500)})
		h.fleet.RecordForwardPass(from, fleet.Pass{Counter: 1, Running: 3, Waiting: 1, QueuedTokens: 512})
		h.ticks(time.Hour)
		testutil.Equal(t, "signals", h.signals(generateSignalsPath).String(), "[1,0.5,0.5,3,1,512,–,3600]")
		h.fleet.Stats.ZMQ.MarkUsed()
		h.fleet.Stats.Publishers.Store(1)
		h.tick()
		testutil.Equal(t, "error", h.requestError("GET", generateSignalsPath, 503), "stale: no ZMQ publisher is connected")
	})
}

func TestSignalsRefuseUnwatchedEndpoint(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		f := fleet.New(fleet.Target(prefill), 10, true)
		f.Sync(fleet.Listing{})
		h.use(f, nil)
		testutil.Equal(t, "error", h.requestError("GET", generateSignalsPath, 404), "backend/generate is not watched: --component and --endpoint select prefill/generate")
		testutil.Equal(t, "workers of a watched endpoint", h.signals("/api/v1/signals?component=prefill&endpoint=generate").Workers, 0)
	})
}

// TestSignalsSelectNamespaces tries each kind of watched and requested namespaces. Without a
// parameter signals cover all watched namespaces.
func TestSignalsSelectNamespaces(t *testing.T) {
	const all, old, new, none, not = "[3,0.5,0.9,75,6,–,–,0]", "[2,0.3,0.4,30,3,–,–,0]", "[1,0.9,0.9,45,3,–,–,0]", "[0,–,–,0,0,0,–,–]", "404"
	for watched, requests := range map[wire.Namespaces]map[string]string{
		"prod-1f": {"": old, "prod-1f": old, "prod-1*": old, "prod-*": old, "p*": old, "*": old, "prod-2e": not, "prod-2*": not, "dev": not, "dev*": not},
		"prod-*":  {"": all, "prod-1f": old, "prod-2*": new, "prod-*": all, "p*": all, "*": all, "prod-new": none, "prod-new*": none, "dev": not, "dev*": not},
		"*":       {"": all, "prod-1f": old, "prod-2*": new, "prod-*": all, "p*": all, "*": all, "prod-new": none, "dev": none, "dev*": none},
	} {
		inBubble(t, func(h *harness) {
			t := h.t
			h.watchNamespaces(watched)
			in := func(namespace string) fleet.Endpoint {
				e := generate
				e.Namespace = watched.Label(namespace)
				return e
			}
			h.registerPolled(in("prod-1f"), 1, 2)
			answers := []fleet.PollReply{pollReply(in("prod-1f"), 1, 200, 1), pollReply(in("prod-1f"), 2, 400, 2)}
			if watched.IsPattern() {
				h.registerPolled(in("prod-2e"), 3)
				answers = append(answers, pollReply(in("prod-2e"), 3, 900, 3))
			}
			h.setReplies(answers...)
			h.ticks(5 * time.Second)
			for namespaces, want := range requests {
				path := generateSignalsPath
				if namespaces != "" {
					path += "&dynamo_namespace=" + namespaces
				}
				if want == not {
					testutil.Equal(t, path, h.requestError("GET", path, 404), fmt.Sprintf("the namespace %q is not watched, only %q", namespaces, string(watched)))
					continue
				}
				s := h.signals(path)
				testutil.Equal(t, fmt.Sprintf("%s of %s", path, watched), s.String(), want)
				testutil.Equal(t, "namespace", s.Namespace, cmp.Or(namespaces, string(watched)))
			}
		})
	}
}

func TestSignalsRefuseStaleScrapedLoads(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		in := fleet.Instance{Endpoint: generate, ID: 7}
		h.fleet.Register("", in, fleet.Registration{Publishes: true, Metrics: "10.0.4.19:9090"})
		h.fleet.RecordScrape(fleet.ScrapeTarget{Instance: in, Metrics: "10.0.4.19:9090"}, []fleet.ScrapedValues{{Load: fleet.Load{KVTotal: u(1000), CacheUsage: fleet.Some(0.25), Waiting: u(3)}}})
		h.ticks(16 * time.Second)
		testutil.Equal(t, "signals", h.signals(generateSignalsPath).String(), "[1,0.25,0.25,–,3,–,–,16]")
		testutil.Equal(t, "source", h.snapshot().Workers[0].Source, "scrape")
		h.tick()
		testutil.Equal(t, "error", h.requestError("GET", generateSignalsPath, 503), "stale: the newest load is 17 s old, want no more than 16 s")
	})
}

// TestSnapshotSurvivesExtremeNumbers checks that they do not affect the values of other workers,
// and that the output is valid JSON.
func TestSnapshotSurvivesExtremeNumbers(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1, 2, 3, 4, 5)
		answers := []fleet.PollReply{pollReply(generate, 1, 500, 1)}
		for i, usage := range []float64{math.NaN(), math.Inf(1), -1} {
			r := pollReply(generate, uint64(2+i), 0, 0)
			r.Load = fleet.Load{CacheUsage: fleet.Some(usage), HitRate: fleet.Some(usage)}
			answers = append(answers, r)
		}
		largest := pollReply(generate, 5, 0, math.MaxUint64)
		largest.Load.KVActive, largest.Load.KVTotal, largest.Load.ActiveSlots = u(math.MaxUint64), u(math.MaxUint64), u(math.MaxUint64)
		h.setReplies(append(answers, largest)...)
		h.fleet.RecordHit(1, math.MaxUint64, math.MaxUint64)
		h.ticks(time.Minute)
		loadOpenAPI(t).check("Snapshot", h.request("GET", "/api/v1/fleet?history=true").Body.Bytes())
		loadOpenAPI(t).check("WorkerHistory", h.request("GET", "/worker?key=5").Body.Bytes())
		loadOpenAPI(t).check("Signals", h.request("GET", generateSignalsPath).Body.Bytes())
		s := h.snapshot()
		testutil.Equal(t, "mean load", monitortest.FormatOptional(s.Fleet.LoadMean), "0.75")
		testutil.Equal(t, "blocks", monitortest.FormatOptional(s.Workers[4].KVActive), "18446744073709551615")
		testutil.Equal(t, "hit rate", monitortest.FormatOptional(s.Fleet.HitRate), "1")
	})
}
