//go:build real

package real

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// gateway is a running Pushgateway that keeps what is pushed in memory only.
type gateway struct {
	*process
	url  string
	args []string
}

func startGateway(t *testing.T, args ...string) *gateway {
	t.Helper()
	address := freeAddress(t)
	g := &gateway{url: "http://" + address, args: append([]string{
		"--web.listen-address", address, "--persistence.file="}, args...)}
	g.process = &process{t: t}
	g.start()
	return g
}

// start starts the Pushgateway, empty, where it was before.
func (g *gateway) start() {
	g.t.Helper()
	g.process = start(g.t, nil, installed(g.t, "prometheus-pushgateway", "prometheus-pushgateway"), g.args...)
	g.says("Listening on")
}

// families are the metrics of a page, each series as the text format has it but with
// its labels sorted and without those of grouping, which must have these values.
// In place of a histogram or summary there is its number of observations.
func families(text string, grouping map[string]string) (map[string]family, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	all := make(map[string]family)
	for name, mf := range parsed {
		f := family{Help: mf.GetHelp(), Type: mf.GetType().String(), Series: make(map[string]string)}
		for _, m := range mf.GetMetric() {
			var labels []string
			matches := 0
			for _, l := range m.GetLabel() {
				want, grouped := grouping[l.GetName()]
				if grouped && want == l.GetValue() {
					matches++
				}
				if !grouped {
					labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
				}
			}
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue() +
				float64(m.GetHistogram().GetSampleCount()+m.GetSummary().GetSampleCount())
			if matches == len(grouping) {
				f.Series[strings.Join(labels, ",")] = fmt.Sprint(value)
			}
		}
		if len(f.Series) > 0 {
			all[name] = f
		}
	}
	return all, nil
}

type family struct {
	Help, Type string
	Series     map[string]string
}
