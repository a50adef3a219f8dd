// Package deploy holds what people's Prometheus and Grafana need of the program: alerts,
// what to do about them, and dashboards. The files lie beside it and are part of the
// binary, so that the two cannot differ.
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
	b, _ := files.ReadFile(path) // the build has put it there
	return string(b)
}

// A Dashboard is one for Grafana.
type Dashboard struct {
	Name string // as people ask for it
	File string // its name in a directory of dashboards
	Text string
	For  string // what it shows, in a few words
}

// Dashboards lists them.
func Dashboards() []Dashboard {
	of := func(name, what string) Dashboard {
		file := "dynamo-" + name + ".json"
		return Dashboard{Name: name, File: file, Text: text("grafana/" + file), For: what}
	}
	return []Dashboard{
		of("fleet", "the whole fleet, and the metrics program itself"),
		of("worker", "one worker, beside the others of its endpoint"),
	}
}

// Runbook is the whole runbook.
func Runbook() string { return text("prometheus/runbook.md") }

// heading begins what the runbook says of an alert.
const heading = "## "

// Alerts lists the alerts that the runbook speaks of.
func Alerts() []string {
	var names []string
	for line := range strings.Lines(Runbook()) {
		if name, is := strings.CutPrefix(line, heading); is {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// Section is what the runbook says of an alert.
func Section(alert string) (string, error) {
	i := slices.IndexFunc(Alerts(), func(name string) bool { return strings.EqualFold(name, alert) })
	if i < 0 {
		return "", fmt.Errorf("%q: no such alert: %s", alert, near.Suggestion(alert, Alerts()))
	}
	sections := strings.Split("\n"+Runbook(), "\n"+heading)
	return heading + strings.TrimSpace(sections[i+1]) + "\n", nil
}
