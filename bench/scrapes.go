package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"dynamo-metrics/internal/exposition"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// measureScrapes measures a whole response to a scrape, without compression. It compares it with
// that of the client library for the same snapshot.
func (s *environment) measureScrapes(context.Context) error {
	for _, n := range []int{1000, 10_000} {
		if err := s.measureScrapesOf(n); err != nil {
			return fmt.Errorf("%d workers: %w", n, err)
		}
	}
	return nil
}

func (s *environment) measureScrapesOf(workers int) error {
	f := registeredFleet(workers)
	now := time.Now().Add(time.Second)
	metrics := exposition.NewMetrics(exposition.Collector{Fleet: f, Now: func() time.Time { return now }})
	ours := metrics.Handler(quiet)
	library := promhttp.HandlerFor(metrics, promhttp.HandlerOpts{DisableCompression: true})

	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	body := func(h http.Handler) []byte {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request)
		return w.Body.Bytes()
	}
	differ := 0
	ourBytes, theirs := body(ours), body(library)
	if !bytes.Equal(ourBytes, theirs) {
		differ = 1
	}

	time1, err := benchmark(scrapeBenchmark(ours, request))
	if err != nil {
		return err
	}
	time2, err := benchmark(scrapeBenchmark(library, request))
	if err != nil {
		return err
	}
	name := fmt.Sprintf("/metrics of %s workers, %s: ", count(workers), megabytes(int64(len(ourBytes))))
	ratio := perRun(time1) / perRun(time2)
	s.table.add(row{
		measure: name + "time, compared with promhttp over MustNewConstMetric",
		ours:    milliseconds(time.Duration(perRun(time1))), baseline: milliseconds(time.Duration(perRun(time2))),
		ratio: times(ratio), target: "≤ 0.1", met: ratio <= 0.1, gate: true,
	})
	s.table.add(row{
		measure: name + "responses that differ from the library's", ours: fmt.Sprint(differ), target: "0", met: differ == 0, gate: true,
	})
	allocs, size := secondScrape(ours, request)
	allocs2, size2 := secondScrape(library, request)
	s.table.add(row{
		measure: name + "allocations of the second of two scrapes",
		ours:    fmt.Sprintf("%s (%s)", count(allocs), kilobytes(size)), baseline: fmt.Sprintf("%s (%s)", count(allocs2), kilobytes(size2)),
		ratio: times(float64(allocs) / float64(allocs2)), target: "≤ 1,000, however many workers", met: allocs <= 1000, gate: true,
	})
	return nil
}

func kilobytes(n uint64) string { return fmt.Sprintf("%.1f kB", float64(n)/1e3) }

func scrapeBenchmark(h http.Handler, request *http.Request) func(*testing.B) {
	return func(b *testing.B) {
		for b.Loop() {
			h.ServeHTTP(new(discardWriter), request)
		}
	}
}

// secondScrape returns what the second of two scrapes allocates.
func secondScrape(h http.Handler, request *http.Request) (allocs, size uint64) {
	var before, after runtime.MemStats
	runtime.GC() // a collection between the scrapes would free the buffers that the second one reuses
	h.ServeHTTP(new(discardWriter), request)
	runtime.ReadMemStats(&before)
	h.ServeHTTP(new(discardWriter), request)
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs, after.TotalAlloc - before.TotalAlloc
}

// discardWriter is a ResponseWriter that discards the body.
type discardWriter struct{ header http.Header }

func (n *discardWriter) Header() http.Header {
	if n.header == nil {
		n.header = make(http.Header)
	}
	return n.header
}
func (*discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (*discardWriter) WriteHeader(int)             {}
