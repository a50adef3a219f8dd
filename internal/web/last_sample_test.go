package web

import (
	"io"
	"log/slog"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/monitor"
	"dynamo-metrics/internal/testutil"
)

func TestLastSampleMatchesFleetSnapshot(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1, 2, 3)
		h.registerPublishing(prefill, 4)
		h.fleet.RecordLoad(fleet.Origin{Endpoint: prefill, Worker: 4}, fleet.FromActiveLoad, fleet.Load{KVActive: u(300)})
		h.fleet.RecordHit(977, 3, 1) // of an unknown worker
		h.setReplies(pollReply(generate, 1, 250, 2), pollReply(generate, 2, 500, 2), malformedReply(generate, 3))
		h.tick()
		var want []fleet.EndpointState
		for _, e := range h.fleet.Snapshot().Endpoints {
			e.HitEvents, e.Requests, e.Rows = 0, nil, 0 // only metrics use these
			want = append(want, e)
		}
		testutil.Equal(t, "endpoints", h.monitor.LastSample().Endpoints, want)
		testutil.Equal(t, "number of endpoints", len(want), 3)
	})
}

func TestLastSampleIsAtMostTwoSecondsOld(t *testing.T) {
	inBubble(t, func(h *harness) {
		wantSilent := func(n string) {
			h.t.Helper()
			w := httptest.NewRecorder()
			h.handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			if row := "<th scope=\"row\">backend/generate</th><td>0</td><td>" + n + "</td>"; !strings.Contains(w.Body.String(), row) {
				h.t.Errorf("the page lacks %s:\n%s", row, w.Body)
			}
		}
		h.registerPolled(generate, 1)
		time.Sleep(2 * time.Second)
		wantSilent("1")
		h.registerPolled(generate, 2)
		time.Sleep(1900 * time.Millisecond)
		wantSilent("1") // the web page alone causes no sample
		time.Sleep(100 * time.Millisecond)
		wantSilent("2")
	})
}

// TestLastSampleCostIsIndependentOfFleetSize compares the memory allocated for a web page of ten
// thousand workers with that for ten.
func TestLastSampleCostIsIndependentOfFleetSize(t *testing.T) {
	cost := func(workers int) (perPage float64) {
		synctest.Test(t, func(t *testing.T) {
			f := fleettest.Large(workers)
			h := Handler(Options{Fleet: f, Namespaces: "dynamo", Monitor: monitor.New(monitorOptions(f)), Metrics: metricsOf(f), Log: slog.New(slog.DiscardHandler)})
			request := func() {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header.Set("Accept-Encoding", "gzip")
				h.ServeHTTP(discardRecorder{httptest.NewRecorder()}, r)
			}
			request()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range 100 {
				request()
			}
			runtime.ReadMemStats(&after)
			perPage = float64(after.TotalAlloc-before.TotalAlloc) / 100
		})
		return perPage
	}
	few, many := cost(10), cost(10_000)
	if many > 2*few || many > 100_000 {
		t.Errorf("a web page of ten thousand workers takes %.0f bytes, and one of ten takes %.0f", many, few)
	}
}

// discardRecorder is a recorder that discards the body.
type discardRecorder struct{ *httptest.ResponseRecorder }

func (d discardRecorder) Write(b []byte) (int, error)         { return len(b), nil }
func (d discardRecorder) ReadFrom(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }
