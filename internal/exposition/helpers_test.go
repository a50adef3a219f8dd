package exposition

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/testutil"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

var severalNamespaces = fleet.Target{Namespace: "*"}

// served is the time at which the metrics of these tests are scraped.
var served = fleettest.Reported.Add(1500 * time.Millisecond)

var build = Build{Version: "1.2.3", Revision: "0123456789abcdef", GoVersion: "go1.26"}

func metricsOf(f *fleet.Fleet) *Metrics {
	return NewMetrics(Collector{Fleet: f, Build: build, Now: func() time.Time { return served }})
}

// replaced returns captured bytes with old replaced by new. The test fails if old is not in them.
func replaced(t testing.TB, b []byte, old, new string) []byte {
	t.Helper()
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%q is not in %s", old, b)
	}
	return bytes.ReplaceAll(b, []byte(old), []byte(new))
}

// metricsText returns the fleet's metrics as text, as the handler serves them. It compares them with
// what the client library would write.
func metricsText(t testing.TB, f *fleet.Fleet) string {
	t.Helper()
	w := testutil.Get(t, metricsOf(f).Handler(slog.New(slog.DiscardHandler)), "/metrics")
	if w.Code != http.StatusOK {
		t.Fatalf("GET /metrics: %d: %s", w.Code, w.Body)
	}
	text := w.Body.String()
	if diff := cmp.Diff(strings.Split(libraryText(t, metricsOf(f)), "\n"), strings.Split(text, "\n")); diff != "" {
		t.Errorf("the metrics differ from what the client library writes (-library +ours):\n%s", diff)
	}
	return text
}

// libraryText returns the metrics as text, written by the client library alone.
func libraryText(t testing.TB, m prometheus.Gatherer) string {
	t.Helper()
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&b, family); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}
