package web

import (
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/monitor"
	"dynamo-metrics/internal/testutil"
)

// served is the time at which the metrics of these tests are scraped.
var served = fleettest.Reported.Add(1500 * time.Millisecond)

var build = exposition.Build{Version: "1.2.3", Revision: "0123456789abcdef", GoVersion: "go1.26"}

func metricsOf(f *fleet.Fleet) *exposition.Metrics {
	return exposition.NewMetrics(exposition.Collector{Fleet: f, Build: build, Now: func() time.Time { return served }})
}

// sampleOf returns a function that samples the fleet at each call.
func sampleOf(f *fleet.Fleet) func() monitor.Sample {
	var samples atomic.Uint64
	return func() monitor.Sample {
		return monitor.Sample{Number: samples.Add(1), Endpoints: f.Snapshot().Endpoints}
	}
}

// metricsText returns the metrics of the fleet as text.
func metricsText(t testing.TB, f *fleet.Fleet) string {
	t.Helper()
	return testutil.Get(t, handler(f), "/metrics").Body.String()
}

// handler returns the handler of a fleet. Each request for / has a new sample, whatever the
// fleet's clock says.
func handler(f *fleet.Fleet) http.Handler { return handlerWith(f, func(*Options) {}) }

func handlerWith(f *fleet.Fleet, change func(*Options)) http.Handler {
	o := Options{Fleet: f, Namespaces: "dynamo", Metrics: metricsOf(f), Log: slog.New(slog.DiscardHandler),
		WorkerMetricsURL: func(fleet.ScrapeTarget) string { return "" }}
	change(&o)
	s := newServer(o)
	s.lastSample = sampleOf(f)
	return s.handler()
}
