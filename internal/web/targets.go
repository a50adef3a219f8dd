package web

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/prometheus/common/model"
)

// maxTargetLists is how many lists of targets may be in memory at once, until their clients have
// read them.
const maxTargetLists = 4

// targetGroup is a target in the format of Prometheus' HTTP service discovery.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// serveTargets lists the workers' own metrics, for a Prometheus that is to scrape all of them.
func (s *server) serveTargets(w http.ResponseWriter, r *http.Request) {
	select {
	case s.targetLists <- struct{}{}:
		defer func() { <-s.targetLists }()
	case <-r.Context().Done():
		return
	}
	// This client may have waited for others, so its time starts now. It is limited because others
	// may be waiting for this one.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(exposition.MaxPageTime))
	groups := []targetGroup{} // not nil: Prometheus expects a JSON list
	for _, p := range s.o.Fleet.ScrapeTargets(false) {
		if g, ok := newTargetGroup(p, s.o.Namespaces.OfEndpoint(p.Endpoint), s.o.WorkerMetricsURL(p)); ok {
			groups = append(groups, g)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(groups); err != nil {
		s.o.Log.Debug("The list of the workers' metrics was not read", "error", err)
	}
}

// newTargetGroup returns the target of one worker's metrics. It reports false if the worker has
// none.
func newTargetGroup(p fleet.ScrapeTarget, namespace, at string) (targetGroup, bool) {
	u, err := url.Parse(at)
	if at == "" || err != nil {
		return targetGroup{}, false
	}
	labels := map[string]string{
		"__metrics_path__": cmp.Or(u.Path, "/metrics"),
		"dynamo_namespace": namespace,
		"component":        p.Component,
		"endpoint":         p.Name,
		"worker_id":        fleet.WorkerID{Lease: p.ID}.String(),
		"worker_id_hex":    wire.HexID(p.ID),
	}
	if u.Scheme != "http" {
		labels["__scheme__"] = u.Scheme
	}
	for name, values := range u.Query() {
		if label := "__param_" + name; model.LegacyValidation.IsValidLabelName(label) { // Prometheus refuses a list with an invalid one
			labels[label] = values[0]
		}
	}
	return targetGroup{[]string{u.Host}, labels}, true
}
