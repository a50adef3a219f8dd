//go:build real

package real

import (
	"fmt"
	"strings"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// gateway is a running Pushgateway that keeps pushes only in memory.
type gateway struct {
	*process.Process
	url  string
	args []string
}

func startGateway(t *testing.T, args ...string) *gateway {
	t.Helper()
	address := process.FreeAddress(t)
	g := &gateway{url: "http://" + address, args: append([]string{
		"--web.listen-address", address, "--persistence.file="}, args...)}
	g.start(t)
	return g
}

// start starts an empty Pushgateway at the same address as before.
func (g *gateway) start(t *testing.T) {
	t.Helper()
	g.Process = process.Start(t, nil, process.Installed(t, "prometheus-pushgateway", "prometheus-pushgateway"), g.args...)
	g.WaitForLine("Listening on")
}

// family is one metric with all of its series: values by labels.
type family struct {
	Help, Type string
	Series     map[string]string
}

// families returns the metrics in the group with exactly these labels, without the labels.
// A histogram or summary is replaced by its count.
func families(text string, group map[string]string) (map[string]family, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	all := make(map[string]family)
	for name, mf := range parsed {
		f := family{Help: mf.GetHelp(), Type: mf.GetType().String(), Series: make(map[string]string)}
		for _, m := range mf.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if !without(labels, group) {
				continue
			}
			f.Series[fmt.Sprint(labels)] = fmt.Sprint(m.GetGauge().GetValue() + m.GetCounter().GetValue() +
				float64(m.GetHistogram().GetSampleCount()+m.GetSummary().GetSampleCount()))
		}
		if len(f.Series) > 0 {
			all[name] = f
		}
	}
	return all, nil
}

// without removes the group's labels, and reports whether all were there.
func without(labels, group map[string]string) bool {
	for name, want := range group {
		got, found := labels[name]
		if !found || got != want {
			return false
		}
		delete(labels, name)
	}
	return true
}

// waitForGroup waits until the Pushgateway holds a group with these labels, and returns its
// metrics.
func (g *gateway) waitForGroup(labels map[string]string) map[string]family {
	g.T.Helper()
	var all map[string]family
	testutil.Until(g.T, func() error {
		var err error
		all, err = g.read(labels)
		if err == nil && len(all) == 0 {
			err = fmt.Errorf("the Pushgateway has no group %v", labels)
		}
		return err
	})
	return all
}

// read returns what the Pushgateway holds in the group with these labels now.
func (g *gateway) read(labels map[string]string) (map[string]family, error) {
	text, err := get(g.url + "/metrics")
	if err != nil {
		return nil, err
	}
	all, err := families(text, labels)
	for _, own := range []string{"push_time_seconds", "push_failure_time_seconds"} {
		delete(all, own) // the Pushgateway's own metric about the group
	}
	return all, err
}
