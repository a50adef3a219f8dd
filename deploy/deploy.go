// Package deploy contains what Prometheus and Grafana need for the program: alerts, the
// runbook for them, and dashboards. The files are embedded in the binary, so that the two
// cannot differ.
package deploy

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"dynamo-metrics/internal/near"
)

//go:embed grafana/*.json prometheus/rules.yaml prometheus/runbook.md
var files embed.FS

func text(path string) string {
	b, _ := files.ReadFile(path) // cannot fail: the file is embedded
	return string(b)
}

// A Dashboard is a dashboard for Grafana.
type Dashboard struct {
	Name string // the argument of metrics dashboards
	File string // the file name
	Text string
	For  string // what it shows, in a few words
}

// Dashboards returns all dashboards.
func Dashboards() []Dashboard {
	dashboard := func(name, what string) Dashboard {
		file := "dynamo-" + name + ".json"
		return Dashboard{Name: name, File: file, Text: text("grafana/" + file), For: what}
	}
	return []Dashboard{
		dashboard("fleet", "the whole fleet, and the metrics program itself"),
		dashboard("worker", "one worker, compared with the others of its endpoint"),
	}
}

// Runbook returns the whole runbook.
func Runbook() string { return text("prometheus/runbook.md") }

// heading precedes the name of an alert in the runbook.
const heading = "## "

// Alerts returns the alerts in the runbook.
func Alerts() []string {
	var names []string
	for line := range strings.Lines(Runbook()) {
		if name, ok := strings.CutPrefix(line, heading); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// Section returns the runbook's section about an alert.
func Section(alert string) (string, error) {
	i := slices.IndexFunc(Alerts(), func(name string) bool { return strings.EqualFold(name, alert) })
	if i < 0 {
		return "", fmt.Errorf("%q: no such alert: %s", alert, near.Suggestion(alert, Alerts()))
	}
	sections := strings.Split("\n"+Runbook(), "\n"+heading)
	return heading + strings.TrimSpace(sections[i+1]) + "\n", nil
}
