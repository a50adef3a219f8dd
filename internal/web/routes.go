// Package web serves HTTP: one table of routes, the web page with its files, the stream of snapshots,
// the JSON API and the web configuration.
package web

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"

	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor"
	"dynamo-metrics/internal/wire"
)

// Options say what is served.
type Options struct {
	Fleet      *fleet.Fleet
	Namespaces wire.Namespaces
	Monitor    *monitor.Monitor
	Metrics    *exposition.Metrics
	Profiles   bool // serve /debug/pprof/
	Log        *slog.Logger

	// WorkerMetricsURL returns where a worker's own metrics are; empty if it has none.
	WorkerMetricsURL func(fleet.ScrapeTarget) string
}

// server answers all requests.
type server struct {
	o           Options
	lastSample  func() monitor.Sample
	targetLists chan struct{} // one for each list that is being sent

	mu          sync.Mutex
	openStreams int
	renderings  [2]*compressedRendering // the newest without and with the history; nil if none was compressed
}

func newServer(o Options) *server {
	return &server{o: o, lastSample: o.Monitor.LastSample, targetLists: make(chan struct{}, maxTargetLists)}
}

// Handler returns the handler of all paths.
func Handler(o Options) http.Handler { return newServer(o).handler() }

// route is a path. It answers GET and HEAD.
type route struct {
	path       string
	serve      http.HandlerFunc
	api        bool     // errors are JSON, parameters are checked, and answers are not cached
	parameters []string // the query parameters that a route of the API takes
}

// routes returns the table of all paths.
func (s *server) routes() []route {
	healthy := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") }
	all := []route{
		{path: "/metrics", serve: s.o.Metrics.Handler(s.o.Log).ServeHTTP},
		{path: "/{$}", serve: indexHandler(s.o.Fleet, string(s.o.Namespaces), s.lastSample).ServeHTTP},
		{path: "/page/", serve: assetHandler().ServeHTTP},
		{path: "/-/healthy", serve: healthy},
		{path: "/live", serve: healthy},
		{path: "/-/ready", serve: s.serveReady},
		{path: "/health", serve: s.serveReady},
		{path: "/events", serve: s.serveEvents, api: true},
		{path: "/worker", serve: s.serveWorker, api: true, parameters: []string{"key"}},
		{path: "/api/v1/fleet", serve: s.serveFleet, api: true, parameters: []string{"history"}},
		{path: "/api/v1/signals", serve: s.serveSignals, api: true, parameters: []string{"component", "endpoint", "dynamo_namespace"}},
		{path: "/api/v1/openapi.json", serve: serveOpenAPI, api: true},
		{path: "/api/v1/targets", serve: s.serveTargets},
	}
	if s.o.Profiles { // without pprof.Cmdline, because the command line may have a password
		all = append(all,
			route{path: "/debug/pprof/", serve: pprof.Index},
			route{path: "/debug/pprof/profile", serve: pprof.Profile},
			route{path: "/debug/pprof/trace", serve: pprof.Trace})
	}
	return all
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.HandleFunc(r.path, r.answer)
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		writeJSONError(w, http.StatusNotFound, fmt.Sprintf("there is no %s: see /api/v1/openapi.json", r.URL.Path))
	})
	return mux
}

// answer answers a request, or refuses it if its method or a parameter is not allowed.
func (rt route) answer(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if rt.api {
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Add("Vary", "Accept-Encoding")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		if rt.api {
			writeJSONError(w, http.StatusMethodNotAllowed, r.Method+" is not allowed: want GET or HEAD")
		} else {
			refuse(w, http.StatusMethodNotAllowed)
		}
		return
	}
	if rt.api {
		if problem := rt.checkParameters(r.URL.Query()); problem != "" {
			writeJSONError(w, http.StatusBadRequest, problem)
			return
		}
	}
	rt.serve(w, r)
}

// checkParameters returns what is wrong with the parameters; empty if nothing is.
func (rt route) checkParameters(query map[string][]string) string {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(rt.parameters, name) {
			known := "this path takes none"
			if len(rt.parameters) > 0 {
				known = "want " + strings.Join(rt.parameters, ", ")
			}
			return fmt.Sprintf("unknown parameter %q: %s", name, known)
		}
		if n := len(query[name]); n > 1 {
			return fmt.Sprintf("parameter %q is given %d times: want it only once", name, n)
		}
	}
	return ""
}
