package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"dynamo-metrics/internal/mock"
)

// printWelcome prints where everything is, and what to try next.
func (s *stack) printWelcome() {
	w := tabwriter.NewWriter(s.stdout, 0, 8, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "\nThe stack is up; Ctrl-C ends it.\n\n")
	fmt.Fprintf(w, "  NATS\t%s\twith JetStream\n", s.natsURL)
	fmt.Fprintf(w, "  etcd\t%s\n", s.etcdURL)
	if !s.noWorkers {
		fmt.Fprintf(w, "  workers\t%d on %s/%s\tmock workers%s, namespace %s\n", s.workers, endpoint.Component, endpoint.Name, s.releases(), s.namespace)
	}
	base := fmt.Sprintf("http://localhost:%d", s.metrics)
	if !s.noMetrics {
		fmt.Fprintf(w, "  metrics\t%s/metrics\tfor Prometheus\n", base)
		fmt.Fprintf(w, "  web page\t%s/\tfor people\n", base)
	}
	data := "kept"
	if s.temporary {
		data = "removed at the end"
	}
	fmt.Fprintf(w, "  data\t%s\t%s\n", s.dataDir, data)

	fmt.Fprintf(w, "\nTry next, in another shell:\n\n")
	if !s.noMetrics {
		fmt.Fprintf(w, "  curl -s %s/metrics | grep ^llm_\n", base)
	}
	env := s.environment()
	fmt.Fprintf(w, "  %sgo run ./cmd/mock_worker --component other --correlated\n", env)
	if s.noMetrics {
		fmt.Fprintf(w, "  %sgo run ./cmd/metrics\n", env)
	} else { // a namespace has only one metrics program
		fmt.Fprintf(w, "  %sgo run ./cmd/mock_worker --namespace another\n", env)
		fmt.Fprintf(w, "  %sgo run ./cmd/metrics --namespace another --metrics-port 0\n", env)
	}
	fmt.Fprintln(w)
}

// releases names the release of the workers, if the flags have set one.
func (s *stack) releases() string {
	switch s.release {
	case mock.DefaultRelease:
		return ""
	case mixed:
		return " of every release and event plane"
	}
	return " of release " + s.release
}

// environment returns the variables that programs in other shells need to find the stack:
// none, if everything has its default address.
func (s *stack) environment() string {
	var vars []string
	if s.natsURL != "nats://127.0.0.1:4222" {
		vars = append(vars, "NATS_SERVER="+s.natsURL)
	}
	if s.etcdURL != "http://127.0.0.1:2379" {
		vars = append(vars, "ETCD_ENDPOINTS="+s.etcdURL)
	}
	if s.namespace != "dynamo" {
		vars = append(vars, "DYN_NAMESPACE="+s.namespace)
	}
	return strings.Join(append(vars, ""), " ")
}
