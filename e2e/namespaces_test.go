package e2e

import (
	"strings"
	"testing"

	"dynamo-metrics/internal/mock"
)

// TestNamespacesOfOnePrefixAreSeenTogether has the namespaces of a rolling update side
// by side, of releases that are polled and that publish by each way, and one namespace
// that is not meant.
func TestNamespacesOfOnePrefixAreSeenTogether(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	kinds := []mock.Config{
		{Namespace: "lab-0c1d", Release: "0.5.1"},
		{Namespace: "lab-4b5c", Release: "0.6.1"},
		{Namespace: "lab-4b5c", Release: "0.9.1", EventPlane: "nats"},
		{Namespace: "lab-4b5c", Release: "1.6.1", EventPlane: "nats"},
		{Namespace: "lab-4b5c", Release: "1.6.1", EventPlane: "zmq"},
		{Namespace: "other", Release: "0.6.1"},
		{Namespace: "other", Release: "0.9.1", EventPlane: "nats"},
	}
	parts := make([]*part, len(kinds))
	all := make([]*mockWorker, len(kinds))
	for i, c := range kinds {
		c.Component, c.Endpoint = "backend", "generate"
		parts[i] = &part{load: loadOf(1, 1, 1)}
		all[i] = s.mock(parts[i].of(c))
	}
	m := s.metrics("--namespace", "lab-*", "--poll-interval", "0.1")
	m.publishers(2, 0) // of the 1.6.1 worker on ZMQ
	m.hears()
	m.ready()

	want := make(page)
	for i, w := range all {
		slots, waiting, blocks := uint64(8+i), uint64(20+i), uint64(1+20*i)
		parts[i].change(func(p *part) {
			p.load = loadOf(slots, waiting, blocks)
			p.hits = [][2]int{{25, 10}, {5, 5}}
		})
		if kinds[i].Namespace == "other" {
			continue
		}
		for series, value := range shown(kinds[i].Release, w.id, slots, waiting, blocks) {
			want[in(kinds[i].Namespace, series)] = value
		}
	}
	want[in("lab-0c1d", workers("generate", "answering"))] = "1"
	want[in("lab-4b5c", workers("generate", "answering"))] = "4"
	want[in("lab-4b5c", `llm_load_avg{`+backend+`}`)] = "51"
	want["dynamo_metrics_foreign_events_total"] = "0"
	m.shows(want)
	p, err := m.page()
	if err != nil {
		t.Fatal(err)
	}
	if bad := p.of("dynamo_metrics_rejected_messages_total"); len(bad) > 0 {
		t.Errorf("rejected: %v", bad)
	}
	for series := range p.of("llm_") {
		if !strings.Contains(series, `dynamo_namespace="lab-`) {
			t.Errorf("%s is of none of the namespaces", series)
		}
	}
}

// in is a series of an endpoint as it is where several namespaces are watched.
func in(namespace, series string) string {
	return strings.Replace(series, `,endpoint="`, `,dynamo_namespace="`+namespace+`",endpoint="`, 1)
}
