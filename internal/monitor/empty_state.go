package monitor

import (
	"regexp"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// pollSubjects returns the subjects of the stats polls: of the watched component, or of the
// registered components.
func (m *Monitor) pollSubjects(counts []fleet.WorkerCount) (all []string) {
	if !m.stats().NATS.Used() || m.stats().NATS.Disabled() {
		return nil
	}
	t, components := m.options.Fleet.Target(), []fleet.Endpoint(nil)
	if t.Component != "" && !t.MultipleNamespaces() {
		components = append(components, fleet.Endpoint{Component: t.Component})
	} else {
		for _, c := range counts[:min(len(counts), maxListedEndpoints)] {
			of := fleet.Endpoint{Component: c.Component, Namespace: c.Namespace}
			if n := len(components); (n == 0 || components[n-1] != of) && t.CoversComponent(c.Component) { // counts are sorted
				components = append(components, of)
			}
		}
	}
	for _, c := range components {
		for i := len(wire.Eras) - 1; i >= 0; i-- { // the newest release first
			all = append(all, wire.StatsSubject(wire.ServiceName(wire.Eras[i], m.options.Namespaces.OfEndpoint(c), c.Component)))
		}
	}
	return all
}

// writeQualifiedEndpoint writes an endpoint with its namespace.
func (m *Monitor) writeQualifiedEndpoint(d *jsonWriter, e fleet.Endpoint) {
	e.Namespace = m.options.Namespaces.OfEndpoint(e)
	writeEndpoint(d, e)
}

// writeNearest writes the registered endpoint whose name is most similar to the watched one.
func (m *Monitor) writeNearest(d *jsonWriter, t fleet.Target, counts []fleet.WorkerCount) {
	var registered []fleet.Endpoint
	for _, c := range counts {
		registered = append(registered, c.Endpoint)
	}
	e, ok := t.Nearest(registered)
	if !ok || t.Component == "" {
		return
	}
	n := 0
	for _, c := range counts {
		if c.Endpoint == e {
			n = c.Workers
		}
	}
	d.field("nearest")
	d.open('{')
	m.writeQualifiedEndpoint(d, e)
	differs := "the endpoint differs"
	if e.Component != t.Component {
		differs = "the component differs"
	}
	d.text("why", plural(n, "worker")+ifElse(n == 1, " is", " are")+" registered under it, and only "+differs+".")
	d.text("command", Command("metrics", string(m.options.Namespaces), e))
	d.close('}')
}

// Command returns the command line of one of the programs for a namespace and an endpoint, quoted
// for a shell. It leaves out flags that have their default value.
func Command(program, namespace string, e fleet.Endpoint) string {
	for _, flag := range []struct{ name, value, standard string }{
		{"namespace", namespace, "dynamo"}, {"component", e.Component, ""}, {"endpoint", e.Name, ""},
	} {
		if flag.value != flag.standard {
			program += " --" + flag.name + " " + Quote(flag.value)
		}
	}
	return program
}

// shellSafe matches words that a shell takes literally.
var shellSafe = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,][-A-Za-z0-9_./:@%+,]*$`)

// Quote quotes a word for a shell.
func Quote(s string) string {
	if shellSafe.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (d *jsonWriter) strings(all []string) {
	d.open('[')
	for _, s := range all {
		d.string(s)
	}
	d.close(']')
}
