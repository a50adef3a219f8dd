package collect

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

var backendEndpoint = fleet.Endpoint{Component: "backend", Name: "generate"}

// metricsServer is a Fleet, and a server with the metrics of all its workers, each at the path
// of its id in hexadecimal.
type metricsServer struct {
	t      *testing.T
	fleet  *fleet.Fleet
	server *httptest.Server
	log    bytes.Buffer

	mu        sync.Mutex
	handlers  map[uint64]http.HandlerFunc
	requests  map[uint64]int
	active    int // requests in progress
	maxActive int
}

func newMetricsServer(t *testing.T) *metricsServer {
	f := &metricsServer{t: t, fleet: fleet.New(fleet.Target{}, 1000, true), handlers: make(map[uint64]http.HandlerFunc), requests: make(map[uint64]int)}
	f.fleet.Sync(fleet.Listing{})
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *metricsServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var id uint64
	fmt.Sscanf(r.URL.Path, "/%x", &id)
	f.mu.Lock()
	handler := f.handlers[id]
	f.requests[id]++
	f.active++
	f.maxActive = max(f.maxActive, f.active)
	f.mu.Unlock()
	handler(w, r)
	f.mu.Lock()
	f.active--
	f.mu.Unlock()
}

// register registers a worker whose metrics the handler serves.
func (f *metricsServer) register(id uint64, handler http.HandlerFunc) {
	f.mu.Lock()
	f.handlers[id] = handler
	f.mu.Unlock()
	f.fleet.Register("", fleet.Instance{Endpoint: backendEndpoint, ID: id}, fleet.Registration{Publishes: true})
}

// scrape runs a Scraper until the test ends.
func (f *metricsServer) scrape(change func(*Scraper)) {
	s := &Scraper{
		Fleet: f.fleet, Namespaces: "dynamo", Interval: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&f.log, nil)),
		URL: func(p fleet.ScrapeTarget) string { return f.server.URL + "/" + wire.HexID(p.ID) },
	}
	if change != nil {
		change(s)
	}
	b := pollerTest{t: f.t}
	b.run(s.Run)
	b.run(func(ctx context.Context) error {
		for ctx.Err() == nil {
			f.fleet.Advance(time.Now())
			time.Sleep(time.Millisecond) // the step of the Fleet's clock
		}
		return nil
	})
}

// waitLoads waits until the workers have these loads, by id, and the others have none.
func (f *metricsServer) waitLoads(want map[uint64]fleet.Load) {
	f.t.Helper()
	testutil.Until(f.t, func() error {
		for _, w := range f.fleet.Snapshot().Workers {
			if w.Load.V != want[w.ID.Lease] {
				return fmt.Errorf("worker %d has %+v, want %+v", w.ID.Lease, w.Load, want[w.ID.Lease])
			}
		}
		return nil
	})
}

// waitRequests waits until a worker's metrics were requested this often.
func (f *metricsServer) waitRequests(id uint64, times int) {
	f.t.Helper()
	testutil.Until(f.t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.requests[id] < times {
			return fmt.Errorf("worker %d was scraped %d times, want %d", id, f.requests[id], times)
		}
		return nil
	})
}

func (f *metricsServer) checkResults(want map[stats.ScrapeResult]bool) {
	f.t.Helper()
	for _, r := range stats.ScrapeResults() {
		if got := f.fleet.Stats.Scrapes(r); got > 0 != want[r] {
			f.t.Errorf("%d scrapes ended with %s, want some: %v", got, r, want[r])
		}
	}
}

// textHandler responds with a text.
func textHandler(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, s)
	}
}

// blocksHandler responds with the metrics of a worker with n of 1,000 blocks in use.
func blocksHandler(n int) http.HandlerFunc {
	return textHandler(fmt.Sprintf("trtllm_kv_cache_used_blocks %d\ntrtllm_kv_cache_max_blocks 1000\ntrtllm_kv_cache_utilization 0.5\n", n))
}

func blocksLoad(n uint64) fleet.Load {
	return fleet.Load{KVActive: fleet.Some(n), KVTotal: fleet.Some[uint64](1000), CacheUsage: fleet.Some(0.5)}
}

// hang responds with nothing until the client disconnects.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// captureHandler responds with a file of wire's testdata.
func captureHandler(t *testing.T, path string) http.HandlerFunc {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "wire", "testdata", path))
	if err != nil {
		t.Fatal(err)
	}
	return textHandler(string(b))
}

func TestScraperRecordsWorkerMetrics(t *testing.T) {
	t.Parallel()
	f := newMetricsServer(t)
	n := fleet.Some[uint64]
	f.register(1, blocksHandler(40))
	f.register(2, textHandler("# nothing useful\nup 1\n"))
	f.register(0x6a6ca214c850b02e, captureHandler(t, "engines/vllm.prom"))
	f.scrape(func(s *Scraper) { s.Timeout = testutil.WaitTimeout })
	f.waitLoads(map[uint64]fleet.Load{
		1: blocksLoad(40),
		0x6a6ca214c850b02e: { // the sums of two ranks
			KVActive: n(3224 + 1), KVTotal: n(2 * 12894), Waiting: n(5), CacheUsage: fleet.Some((0.25 + 8.34e-05) / 2), HitRate: fleet.Some(451475.0 / 1805903),
		},
	})
	f.waitRequests(2, 2) // the first scrape has been recorded
	f.checkResults(map[stats.ScrapeResult]bool{stats.ScrapeOK: true, stats.ScrapeEmpty: true})
	if got := f.fleet.Stats.Rejected(stats.WorkerMetrics, stats.BadID); got != 0 {
		t.Errorf("%d responses are rejected, want none", got)
	}
}

func TestScraperSkipsWorkersWithCompleteLoad(t *testing.T) {
	t.Parallel()
	n := fleet.Some[uint64]
	whole := fleet.Load{KVActive: n(1), KVTotal: n(2), ActiveSlots: n(3), TotalSlots: n(4), Waiting: n(5), HitRate: fleet.Some(0.5)}
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprint(all), func(t *testing.T) {
			f := newMetricsServer(t)
			f.register(1, blocksHandler(40))
			f.register(2, textHandler("vllm:kv_cache_usage_perc 0.25\n"))
			f.fleet.RecordLoad(fleet.Origin{Endpoint: backendEndpoint, Worker: 2}, fleet.FromLoadEvent, whole)
			f.scrape(func(s *Scraper) { s.AllWorkers = all })
			want := whole
			want.CacheUsage = fleet.Some(0.5) // from the number of blocks
			if all {
				want.CacheUsage = fleet.Some(0.25)
			}
			f.waitLoads(map[uint64]fleet.Load{1: blocksLoad(40), 2: want})
			f.waitRequests(1, 3)
			f.mu.Lock()
			defer f.mu.Unlock()
			if times := f.requests[2]; times > 0 != all {
				t.Errorf("the worker with a complete load was scraped %d times", times)
			}
		})
	}
}

// TestScraperBadWorkersDoNotAffectGoodOne sets up workers that stall before or in the response,
// send 100 MB, garbage, a gzip bomb, broken gzip, a redirect, long headers or an error, and one
// that closes the connection.
func TestScraperBadWorkersDoNotAffectGoodOne(t *testing.T) {
	t.Parallel()
	f := newMetricsServer(t)
	good := 0
	f.register(1, func(w http.ResponseWriter, r *http.Request) { good++; blocksHandler(good)(w, r) })
	f.register(2, hang)
	f.register(3, func(w http.ResponseWriter, r *http.Request) {
		blocksHandler(3)(w, r)
		w.(http.Flusher).Flush()
		hang(w, r)
	})
	f.register(4, func(w http.ResponseWriter, _ *http.Request) {
		line := bytes.Repeat([]byte("x 1\n"), 1<<18)
		for range 100 {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	f.register(5, textHandler("trtllm_kv_cache_used_blocks \x00\xff{{{\n"))
	f.register(6, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		zeros := bytes.Repeat([]byte("y 1\n"), 1<<18)
		for range 100 {
			if _, err := z.Write(zeros); err != nil {
				return
			}
		}
	})
	f.register(7, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		blocksHandler(7)(w, r)
	})
	f.register(8, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/1", http.StatusFound) })
	f.register(9, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 64<<10))
		blocksHandler(9)(w, r)
	})
	f.register(10, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		blocksHandler(10)(w, r)
	})
	f.register(11, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	})
	f.register(12, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		blocksHandler(12)(w, r)
	})
	f.register(13, textHandler(strings.Repeat("vllm:num_requests_running{engine=\"0\"} 1\n", 20_000)))
	f.scrape(func(s *Scraper) { s.Interval = time.Second }) // enough for two cores to read the large responses
	for id := range uint64(13) {
		f.waitRequests(1+id, 2)
	}
	f.waitRequests(1, 5)
	seen := false // on a slow machine the good load may expire between two scrapes
	testutil.Until(t, func() error {
		for _, w := range f.fleet.Snapshot().Workers {
			switch {
			case w.ID.Lease != 1 && w.Load.OK:
				t.Fatalf("worker %d has %+v from a bad response", w.ID.Lease, w.Load)
			case w.ID.Lease == 1:
				seen = seen || w.Load.V.KVActive.V >= 4
			}
		}
		if !seen {
			return errors.New("worker 1, which is good, has no load")
		}
		for reason, least := range map[stats.Reason]uint64{stats.TooLarge: 3, stats.BadText: 1} {
			if got := f.fleet.Stats.Rejected(stats.WorkerMetrics, reason); got < least {
				return fmt.Errorf("%d responses rejected for %s, want at least %d", got, reason, least)
			}
		}
		return nil
	})
	f.checkResults(map[stats.ScrapeResult]bool{stats.ScrapeOK: true, stats.ScrapeError: true})
	if warnings := strings.Count(f.log.String(), "level=WARN"); warnings != 1 {
		t.Errorf("the log warns %d times, want once:\n%s", warnings, f.log.String())
	}
}

func TestScraperRequestsGzipForLargeMetrics(t *testing.T) {
	t.Parallel()
	f := newMetricsServer(t)
	long := strings.Repeat("x 1\n", 64<<10/4)
	var mu sync.Mutex
	encodings := make(map[string][]string)
	handler := func(name, more string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			encodings[name] = append(encodings[name], r.Header.Get("Accept-Encoding"))
			mu.Unlock()
			if r.Header.Get("Accept-Encoding") != "gzip" {
				io.WriteString(w, more+"vllm:num_requests_waiting 1\n")
				return
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			io.WriteString(z, more+"vllm:num_requests_waiting 2\n")
		}
	}
	f.register(1, handler("short", ""))
	f.register(2, handler("long", long))
	f.scrape(nil)
	f.waitRequests(1, 3)
	f.waitRequests(2, 3)
	n := fleet.Some[uint64]
	f.waitLoads(map[uint64]fleet.Load{1: {Waiting: n(1)}, 2: {Waiting: n(2)}})
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(encodings["short"][:3], " "); got != "identity identity identity" {
		t.Errorf("the short response was requested in %s", got)
	}
	if got := strings.Join(encodings["long"][:3], " "); got != "identity gzip gzip" {
		t.Errorf("the long response was requested in %s", got)
	}
}

func TestScraperIgnoresMetricsOfOtherWorker(t *testing.T) {
	t.Parallel()
	f := newMetricsServer(t)
	f.register(1, textHandler(`vllm:num_requests_waiting{worker_id="2",dynamo_namespace="dynamo"} 5`))
	f.register(2, textHandler(`vllm:num_requests_waiting{worker_id="2",dynamo_namespace="other"} 5`))
	f.register(3, textHandler(`vllm:num_requests_waiting{worker_id="3",dynamo_namespace="dynamo"} 5`))
	f.scrape(nil)
	f.waitLoads(map[uint64]fleet.Load{3: {Waiting: fleet.Some[uint64](5)}})
	for id := range uint64(3) {
		f.waitRequests(1+id, 3)
	}
	f.waitLoads(map[uint64]fleet.Load{3: {Waiting: fleet.Some[uint64](5)}})
	if got := f.fleet.Stats.Rejected(stats.WorkerMetrics, stats.BadID); got < 4 {
		t.Errorf("%d responses are rejected, want at least 4", got)
	}
}

// TestScraperSharedMetricsNeedWorkerID sets up several workers in one process, with the same URL.
// Only metrics that name their worker are recorded.
func TestScraperSharedMetricsNeedWorkerID(t *testing.T) {
	t.Parallel()
	f := newMetricsServer(t)
	handler := textHandler("sglang:token_usage 0.5\n" + `vllm:num_requests_waiting{worker_id="1"} 5` + "\n" + `vllm:num_requests_waiting{worker_id="2"} 6`)
	f.register(1, handler)
	f.register(2, handler)
	f.register(3, handler)
	f.scrape(func(s *Scraper) {
		s.Timeout = testutil.WaitTimeout
		s.URL = func(fleet.ScrapeTarget) string { return f.server.URL + "/1" }
	})
	n := fleet.Some[uint64]
	f.waitLoads(map[uint64]fleet.Load{1: {Waiting: n(5)}, 2: {Waiting: n(6)}})
	f.waitRequests(1, 3)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.requests[2]+f.requests[3] > 0 {
		t.Errorf("requests %v, want only those for /1", f.requests)
	}
	f.checkResults(map[stats.ScrapeResult]bool{stats.ScrapeOK: true})
}
