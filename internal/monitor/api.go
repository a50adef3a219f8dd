package monitor

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"dynamo-metrics/internal/expose"
	"dynamo-metrics/internal/fleet"
)

//go:embed openapi.json
var openAPI []byte

// answer is one path: the parameters that it knows, and what it says.
type apiRoute struct {
	parameters []string
	serve      http.HandlerFunc
}

// Handler answers for those who look, and has rest answer everything else. Errors are
// JSON: {"error": "…"}.
func (g *Monitor) Handler(rest http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", rest)
	for path, a := range g.apiRoutes() {
		mux.HandleFunc(path, a.serveGuarded)
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		writeJSONError(w, http.StatusNotFound, fmt.Sprintf("there is no %s: /api/v1/openapi.json says what there is", r.URL.Path))
	})
	return mux
}

// answers are all paths.
func (g *Monitor) apiRoutes() map[string]apiRoute {
	return map[string]apiRoute{
		"/events":              {nil, g.serveEvents},
		"/worker":              {[]string{"key"}, g.serveWorker},
		"/api/v1/fleet":        {[]string{"history"}, g.serveFleet},
		"/api/v1/signals":      {[]string{"component", "endpoint", "dynamo_namespace"}, g.serveSignals},
		"/api/v1/openapi.json": {nil, serveOpenAPI},
	}
}

// guard refuses what is no question that the path can answer.
func (a apiRoute) serveGuarded(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Accept-Encoding")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		writeJSONError(w, http.StatusMethodNotAllowed, r.Method+" is not allowed here: GET and HEAD are")
		return
	}
	query := r.URL.Query()
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(a.parameters, name) {
			known := "there are none here"
			if len(a.parameters) > 0 {
				known = "want " + joinAnd(a.parameters)
			}
			writeJSONError(w, http.StatusBadRequest, fmt.Sprintf("unknown parameter %q: %s", name, known))
			return
		}
		if len(query[name]) > 1 {
			writeJSONError(w, http.StatusBadRequest, fmt.Sprintf("parameter %q is given %d times: want it once", name, len(query[name])))
			return
		}
	}
	a.serve(w, r)
}

// Sample is what the last look has seen of the endpoints, for the page of those without
// script.
func (g *Monitor) LastSample() expose.Sample {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refresh()
	if g.lastSample.Number != g.sampleCount {
		g.lastSample = expose.Sample{Number: g.sampleCount, Endpoints: make([]fleet.EndpointState, 0, len(g.endpoints))}
		for _, p := range g.endpoints {
			g.lastSample.Endpoints = append(g.lastSample.Endpoints, p.state())
		}
	}
	return g.lastSample
}

// state is the endpoint as the Snapshot of the last look had it, but for what only metrics show.
func (p *endpointStats) state() fleet.EndpointState {
	s := &p.aggregate
	return fleet.EndpointState{Endpoint: p.Endpoint, Counted: p.counted,
		Answering: s.answering, Silent: s.silent, Unregistered: s.unregistered, Malformed: s.malformed,
		Blocks: s.kvBlocks, Usage: s.kvUsage}
}

// refuse answers with an error.
func writeJSONError(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	body, _ := json.Marshal(map[string]string{"error": why}) // strings alone: it cannot fail
	_, _ = w.Write(append(body, '\n'))                       // the reader may have gone
}

// send answers with JSON. The client has as long for it as for an event.
func writeJSON(w http.ResponseWriter, r *http.Request, plain []byte, packed func() []byte) {
	w.Header().Set("Content-Type", "application/json")
	s := sender{w: w, controller: http.NewResponseController(w)}
	_ = s.controller.SetWriteDeadline(time.Now().Add(sendTimeout))
	if expose.AcceptsGzip(r.Header) {
		w.Header().Set("Content-Encoding", "gzip")
		plain = gzipStream(plain, packed())
	}
	s.write(plain)
}

func (g *Monitor) serveFleet(w http.ResponseWriter, r *http.Request) {
	seen := -1
	switch history := r.URL.Query().Get("history"); history {
	case "true":
	case "", "false":
		seen = noHistory
	default:
		writeJSONError(w, http.StatusBadRequest, fmt.Sprintf("history is %q: want true or false", history))
		return
	}
	e, _ := g.latestEvent(seen)
	writeJSON(w, r, e.json(), e.compressedJSON)
}

func (g *Monitor) serveWorker(w http.ResponseWriter, r *http.Request) {
	key := r.URL.Query().Get("key")
	if key == "" {
		writeJSONError(w, http.StatusBadRequest, "key is missing: want that of a worker in /api/v1/fleet")
		return
	}
	g.mu.Lock()
	g.refresh()
	var d jsonWriter
	found := g.writeWorkerOf(&d, key)
	g.mu.Unlock()
	if !found {
		writeJSONError(w, http.StatusNotFound, fmt.Sprintf("there is no worker with the key %q", key))
		return
	}
	writeJSON(w, r, d.b, func() []byte { return deflateChunk(d.b) })
}

func serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, r, openAPI, func() []byte { return deflateChunk(openAPI) })
}
