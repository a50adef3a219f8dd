package expose

import (
	"cmp"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/prometheus/common/model"
)

// maxTargetLists bounds the lists that are kept for clients at once.
const maxTargetLists = 4

// targetGroup is a target as Prometheus' HTTP service discovery reads it.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// WithTargets is h that answers on /api/v1/targets, too: with the workers' own metrics
// pages, for a Prometheus that is to scrape all that is on them. Where is where a worker's
// page is; empty: nowhere.
func WithTargets(h http.Handler, f *fleet.Fleet, namespaces wire.Namespaces, metricsURL func(fleet.ScrapeTarget) string, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", h)
	slots := make(chan struct{}, maxTargetLists)
	mux.HandleFunc("/api/v1/targets", readOnly(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-r.Context().Done():
			return
		}
		// Others may wait for the place of one that does not read, and this one may have waited.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(maxPageTime))
		groups := []targetGroup{} // not null: Prometheus wants a list
		for _, p := range f.ScrapeTargets(false) {
			if g, ok := newTargetGroup(p, namespaces.OfEndpoint(p.Endpoint), metricsURL(p)); ok {
				groups = append(groups, g)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(groups); err != nil {
			log.Debug("The list of workers' pages was not taken", "error", err)
		}
	}))
	return mux
}

// targetOf is one worker's page; false if it has none.
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
		if label := "__param_" + name; model.LegacyValidation.IsValidLabelName(label) { // one that is not spoils the list
			labels[label] = values[0]
		}
	}
	return targetGroup{[]string{u.Host}, labels}, true
}
