package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"dynamo-metrics/internal/mock"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// TestNamespacesByNameByPrefixAndAll runs the namespaces of a rolling update, with releases
// that are polled and that publish on each event plane, and one other namespace. Programs
// watch one namespace by name, all with a prefix, and all.
func TestNamespacesByNameByPrefixAndAll(t *testing.T) {
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
	scripts := make([]*mockScript, len(kinds))
	all := make([]*mockWorker, len(kinds))
	for i, c := range kinds {
		c.Component, c.Endpoint = "backend", "generate"
		scripts[i] = &mockScript{load: loadOf(1, 1, 1)}
		all[i] = s.mock(scripts[i].applyTo(c))
	}
	programs := make(map[wire.Namespaces]*server)
	for _, namespaces := range []wire.Namespaces{"lab-4b5c", "lab-*", "*"} {
		m := s.metrics("--namespace", string(namespaces), "--poll-interval", "0.1")
		m.waitForPublishers(2, 0) // of the 1.6.1 worker on ZMQ
		m.waitForNATSEvents()
		m.waitUntilReady()
		programs[namespaces] = m
	}
	for i, p := range scripts {
		p.change(func(p *mockScript) {
			p.load = loadOf(uint64(8+i), uint64(20+i), uint64(1+20*i))
			p.hits = [][2]int{{25, 10}, {5, 5}}
		})
	}
	for namespaces, m := range programs {
		want := samples{"dynamo_metrics_foreign_events_total": "0"}
		answering := make(map[string]int)
		for i, w := range all {
			if namespace := kinds[i].Namespace; namespaces.Match(namespace) {
				answering[namespace]++
				for series, value := range samplesOfRelease(kinds[i].Release, w.id, uint64(8+i), uint64(20+i), uint64(1+20*i)) {
					want[withNamespace(namespaces.Label(namespace), series)] = value
				}
			}
		}
		for namespace, n := range answering {
			want[withNamespace(namespaces.Label(namespace), workersSeries("generate", "answering"))] = fmt.Sprint(n)
		}
		want[withNamespace(namespaces.Label("lab-4b5c"), `llm_load_avg{`+backend+`}`)] = "51"
		m.waitForSamples(want)
		p, err := m.scrape()
		if err != nil {
			t.Fatal(err)
		}
		if bad := p.filter("dynamo_metrics_rejected_messages_total"); len(bad) > 0 {
			t.Errorf("the watched namespace is %s, and rejected is %v", namespaces, bad)
		}
		label := regexp.MustCompile(`dynamo_namespace="(.*?)"`)
		for series := range p.filter("llm_") {
			match := label.FindStringSubmatch(series)
			if named := match != nil; named != namespaces.IsPattern() || named && answering[match[1]] == 0 {
				t.Errorf("the watched namespace is %s, and shown is %s", namespaces, series)
			}
		}
	}
}

// TestNamespacesSignalsAnswerTheDocumentedAutoscaler checks the triggers of the documented
// KEDA configuration: KEDA requests the url and takes the number at valueLocation.
func TestNamespacesSignalsAnswerTheDocumentedAutoscaler(t *testing.T) {
	t.Parallel()
	triggers := regexp.MustCompile(`url: "http://metrics:9091(\S+)"\s+valueLocation: (\w+)`).FindAllStringSubmatch(docs(t), -1)
	if len(triggers) != 2 {
		t.Fatalf("docs has the triggers %q, want two", triggers)
	}
	s := newStack(t)
	one, two := &mockScript{load: loadOf(1, 1, 1)}, &mockScript{load: loadOf(1, 1, 1)}
	for namespace, p := range map[string]*mockScript{"lab-0c1d": one, "lab-4b5c": two} {
		s.mock(p.applyTo(mock.Config{Namespace: namespace, Component: "backend", Endpoint: "generate", Release: "0.5.1"}))
	}
	both, first := map[string]float64{"requests_waiting": 5, "kv_usage_mean": 0.375}, map[string]float64{"requests_waiting": 2, "kv_usage_mean": 0.25}
	one.setLoad(loadOf(10, 2, 250))
	two.setLoad(halfFull(20, 3))
	for namespaces, want := range map[string]map[string]float64{"*": both, "lab-*": both, "lab-0c1d": first} {
		m := s.metrics("--namespace", namespaces, "--poll-interval", "0.1")
		for _, trigger := range triggers {
			path, valueLocation := trigger[1], trigger[2]
			testutil.Until(t, func() error {
				status, body := get(m.url + path)
				var answer map[string]any
				if err := json.Unmarshal([]byte(body), &answer); status != 200 || err != nil {
					return fmt.Errorf("--namespace %s: GET %s: %d %s %v", namespaces, path, status, body, err)
				}
				if got, ok := answer[valueLocation].(float64); !ok || got != want[valueLocation] {
					return fmt.Errorf("--namespace %s: %s is %v, want %v", namespaces, valueLocation, answer[valueLocation], want[valueLocation])
				}
				return nil
			})
		}
	}
}

// withNamespace adds the label namespace to the series of an endpoint, as where several
// namespaces are watched. An empty namespace leaves the series unchanged.
func withNamespace(namespace, series string) string {
	if namespace == "" {
		return series
	}
	return strings.Replace(series, `,endpoint="`, `,dynamo_namespace="`+namespace+`",endpoint="`, 1)
}
