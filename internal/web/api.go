package web

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor"
	"dynamo-metrics/internal/wire"
)

//go:embed openapi.json
var openAPI []byte

// writeJSONError responds with an error as JSON.
func writeJSONError(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	body, _ := json.Marshal(map[string]string{"error": why}) // strings only, so it cannot fail
	_, _ = w.Write(append(body, '\n'))                       // the client may have disconnected
}

// writeJSON responds with JSON: with body, or with its compressed chunk for a client that accepts
// gzip. The client has sendTimeout to read it, as it has for an event.
func writeJSON(w http.ResponseWriter, r *http.Request, body []byte, chunk func() []byte) {
	w.Header().Set("Content-Type", "application/json")
	to := sender{w: w, controller: http.NewResponseController(w)}
	_ = to.controller.SetWriteDeadline(time.Now().Add(sendTimeout))
	if exposition.AcceptsGzip(r.Header) {
		w.Header().Set("Content-Encoding", "gzip")
		body = gzipStream(body, chunk())
	}
	to.write(body)
}

func (s *server) serveFleet(w http.ResponseWriter, r *http.Request) {
	seen := -1
	switch history := r.URL.Query().Get("history"); history {
	case "true":
	case "", "false":
		seen = monitor.NoHistory
	default:
		writeJSONError(w, http.StatusBadRequest, fmt.Sprintf("history is %q: want true or false", history))
		return
	}
	rendering, _ := s.o.Monitor.Render(seen)
	writeJSON(w, r, rendering.JSON, func() []byte { return s.compressed(rendering).json() })
}

func (s *server) serveWorker(w http.ResponseWriter, r *http.Request) {
	key := r.URL.Query().Get("key")
	if key == "" {
		writeJSONError(w, http.StatusBadRequest, "key is missing: want the key of a worker in /api/v1/fleet")
		return
	}
	body, found := s.o.Monitor.RenderWorker(key)
	if !found {
		writeJSONError(w, http.StatusNotFound, fmt.Sprintf("there is no worker with the key %q", key))
		return
	}
	writeJSON(w, r, body, func() []byte { return deflateChunk(body) })
}

func serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, r, openAPI, func() []byte { return deflateChunk(openAPI) })
}

func (s *server) serveSignals(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	e := fleet.Endpoint{Component: query.Get("component"), Name: query.Get("endpoint")}
	if e.Component == "" || e.Name == "" {
		writeJSONError(w, http.StatusBadRequest, "component and endpoint are required: those of the workers to scale, as in /api/v1/fleet")
		return
	}
	namespaces := wire.Namespaces(cmp.Or(query.Get("dynamo_namespace"), string(s.o.Namespaces)))
	if !s.o.Namespaces.Overlaps(namespaces) {
		writeJSONError(w, http.StatusNotFound, fmt.Sprintf("the namespace %q is not watched, only %q", string(namespaces), string(s.o.Namespaces)))
		return
	}
	if t := s.o.Fleet.Target(); !t.Covers(e) {
		writeJSONError(w, http.StatusNotFound, fmt.Sprintf("%s is not watched: --component and --endpoint select %s", e, strings.TrimSuffix(t.Component+"/"+t.Name, "/")))
		return
	}
	body, stale := s.o.Monitor.RenderSignals(namespaces, e)
	if stale != "" {
		writeJSONError(w, http.StatusServiceUnavailable, stale)
		return
	}
	writeJSON(w, r, body, func() []byte { return deflateChunk(body) })
}
