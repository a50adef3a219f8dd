package exposition

import (
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"

	"github.com/prometheus/client_golang/prometheus"
)

// The workers at the flags' target are counted whether they report or not, so that an alert can
// detect that there never was one.
func TestMetricsTargetWorkers(t *testing.T) {
	generate, clear := fleet.Endpoint{Component: "backend", Name: "generate"}, fleet.Endpoint{Component: "backend", Name: "clear"}
	elsewhere := fleet.Endpoint{Component: "prefill", Name: "generate"}
	for what, c := range map[string]struct {
		target   fleet.Target
		unsynced bool
		at       []fleet.Endpoint // one worker at each, and one worker at all of them
		want     string           // absent if empty
	}{
		"never a worker":      {target: fleet.Target(generate), at: []fleet.Endpoint{clear, elsewhere}, want: "0 of backend/generate"},
		"no worker at all":    {target: fleet.Target(generate), want: "0 of backend/generate"},
		"not known yet":       {target: fleet.Target(generate), unsynced: true},
		"workers":             {target: fleet.Target(generate), at: []fleet.Endpoint{generate, generate, clear}, want: "3 of backend/generate"},
		"a component":         {target: fleet.Target{Component: "backend"}, at: []fleet.Endpoint{generate, clear, elsewhere}, want: "3 of backend/"},
		"another component":   {target: fleet.Target{Component: "decode"}, at: []fleet.Endpoint{generate, clear}, want: "0 of decode/"},
		"everything":          {target: fleet.Target{}, at: []fleet.Endpoint{generate}},
		"of several":          {target: fleet.Target{Namespace: "team-", Component: "backend"}, want: "0 of backend/"},
		"several, everything": {target: fleet.Target{Namespace: "team-"}},
	} {
		f := fleet.New(c.target, 10, true)
		if !c.unsynced {
			f.Sync(fleet.Listing{})
		}
		for i, e := range c.at {
			f.Register("", fleet.Instance{Endpoint: e, ID: uint64(i)}, fleet.Registration{})
			f.Register("", fleet.Instance{Endpoint: e, ID: 99}, fleet.Registration{})
		}
		m := NewMetrics(Collector{Fleet: f, Now: time.Now, Standby: func() bool { return true }})
		if got := targetWorkersOf(t, m.program); got != c.want { // also on a standby
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

func targetWorkersOf(t *testing.T, from prometheus.Gatherer) (text string) {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "dynamo_metrics_target_workers" {
			m := f.Metric[0]
			text += fmt.Sprint(m.GetGauge().GetValue()) + " of " + m.Label[0].GetValue() + "/" + m.Label[1].GetValue()
		}
	}
	return text
}
