package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor"
	"dynamo-metrics/internal/stats"
)

// TestHandlerAllowsOnlyGETAndHEAD tries every path that the documentation lists, and some longer
// and shorter ones.
func TestHandlerAllowsOnlyGETAndHEAD(t *testing.T) {
	o, errText := parseArgs("--debug.pprof")
	if errText != "" {
		t.Fatal(errText)
	}
	f := fleet.New(fleet.Target{}, 10, true)
	f.Sync(fleet.Listing{})
	f.Stats.RecordPoll(stats.PollOK, 0)
	mon := monitor.New(monitor.Options{Fleet: f})
	log := slog.New(slog.DiscardHandler)
	h := o.handler(f, exposition.NewMetrics(exposition.Collector{Fleet: f, Now: time.Now}), mon, log)
	answers := map[string]int{ // to GET
		"/page/main.js": 200, "/page/none": 404,
		"/worker?key=1": 404, "/api/v1/signals?component=a&endpoint=b": 200, "/api/v1/fleet?history=true": 200,
		"/debug/pprof/": 200, "/debug/pprof/heap": 200, "/debug/pprof/cmdline": 404, "/debug/pprof/profile": 200, "/debug/pprof/trace": 200,
	}
	doc, err := os.ReadFile("../../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(doc), "| path | response |")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, row := range strings.Split(table, "\n") {
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for _, m := range regexp.MustCompile("`(/[^`?]*)").FindAllStringSubmatch(first, -1) {
			if m[1] != "/worker" && m[1] != "/api/v1/signals" { // these need parameters
				answers[m[1]] = 200
			}
		}
	}
	if len(answers) < 20 {
		t.Fatalf("docs/http-api.md names few paths: %v", answers)
	}
	for path, want := range answers {
		for _, method := range []string{"HEAD", "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "G"} {
			t.Run(fmt.Sprint(method, " ", path), func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if path == "/events" || path == "/debug/pprof/profile" || path == "/debug/pprof/trace" {
					cancel() // these run until the client disconnects
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, path, nil))
				wantCode, allow := want, ""
				if method != http.MethodGet && method != http.MethodHead {
					wantCode, allow = http.StatusMethodNotAllowed, "GET, HEAD"
				}
				if w.Code != wantCode || w.Header().Get("Allow") != allow {
					t.Errorf("%d, Allow %q: want %d, %q", w.Code, w.Header().Get("Allow"), wantCode, allow)
				}
			})
		}
	}
	for _, path := range []string{"/metric", "/api/v1/target", "/api/", "/-/", "/debug"} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if w.Code != http.StatusNotFound {
				t.Errorf("%s %s, which does not exist: %d", method, path, w.Code)
			}
		}
	}
}
