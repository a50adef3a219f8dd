package wire

import (
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
)

// subjectMatches reports whether a NATS subscription receives messages on a subject.
func subjectMatches(subscription, subject string) bool {
	want, got := strings.Split(subscription, "."), strings.Split(subject, ".")
	return slices.EqualFunc(want, got, func(w, g string) bool { return w == "*" || w == g })
}

func TestEventSubjectsMatchEachCaptureOnce(t *testing.T) {
	whole, component, endpoint := fleet.Endpoint{}, fleet.Endpoint{Component: "backend"}, fleet.Endpoint{Component: "backend", Name: "generate"}
	type event struct {
		endpoint fleet.Endpoint
		topic    string
	}
	for _, release := range natsReleases {
		t.Run(release, func(t *testing.T) {
			want := map[event]bool{{whole, TopicLoad}: true}
			switch release {
			case "0.6.1", "0.9.1":
				want[event{whole, TopicHitRate}] = true
			case "1.1.1", "1.2.1", "1.3.1":
				want[event{component, TopicForwardPass}] = true
			case "1.4.2", "1.5.1":
				want = map[event]bool{{endpoint, TopicLoad}: true, {endpoint, TopicForwardPass}: true}
			case "1.6.1":
				want = map[event]bool{{endpoint, TopicLoad}: true, {endpoint, TopicForwardPass}: true, {endpoint, "kv-events"}: true}
			}
			namespace := "lab"
			if release == "0.5.1" {
				namespace = "dynamo"
			}
			got := make(map[event]bool)
			for _, m := range natsEvents(t, release) {
				if m.subject == TraceSubject {
					continue
				}
				e, topic, ok := ParseEventSubject(namespace, m.subject)
				if !ok {
					t.Fatalf("ParseEventSubject(%q) is not ok", m.subject)
				}
				got[event{e, topic}] = true
				n := 0
				for _, s := range EventSubjects(Namespaces(namespace), topic) {
					if subjectMatches(s, m.subject) {
						n++
					}
				}
				testutil.Equal(t, "matching subscriptions", n, 1)
			}
			testutil.Equal(t, "result", got, want)
		})
	}
}

func TestEventSubjectsOfAnyNamespace(t *testing.T) {
	testutil.Equal(t, "EventSubjects", EventSubjects("my-ns_1", TopicLoad), []string{
		"namespace.my-ns_1.kv_metrics",
		"namespace.my-ns_1.component.*.kv_metrics",
		"namespace.my-ns_1.component.*.endpoint.*.kv_metrics",
	})
	testutil.Equal(t, "EventSubjects", EventSubjects("a.b c", TopicLoad), []string{
		"namespace.a.b c.kv_metrics",
		"namespace.a.b c.component.*.kv_metrics",
		"namespace.a%2Eb%20c.component.*.endpoint.*.kv_metrics",
	})
	testutil.Equal(t, "EventSubjects", EventSubjects("lab", TopicHitRate)[0], HitRateSubject("lab"))
}

func TestParseEventSubjectReadsUnusualNames(t *testing.T) {
	for _, c := range []struct {
		namespace, subject string
		want               fleet.Endpoint
		topic              string
	}{
		// Captured with 1.2.1, 1.4.2 and 1.6.1.
		{"a_b", "namespace.a_b.component.c*d.forward-pass-metrics", fleet.Endpoint{Component: "c*d"}, TopicForwardPass},
		{"a_b", "namespace.a_b.component.c%2Ad.endpoint.e%3Ef%3Ag.kv_metrics", fleet.Endpoint{Component: "c*d", Name: "e>f:g"}, TopicLoad},
		{"my-ns", "namespace.my-ns.component.Back_end.endpoint.load-x.kv_metrics", fleet.Endpoint{Component: "Back_end", Name: "load-x"}, TopicLoad},
		// Not captured.
		{"a.b", "namespace.a.b.kv_metrics", fleet.Endpoint{}, TopicLoad},
		{"a.b", "namespace.a%2Eb.component.c%2Ed.endpoint.e%2Eendpoint%2Ef.kv_metrics", fleet.Endpoint{Component: "c.d", Name: "e.endpoint.f"}, TopicLoad},
		{"component", "namespace.component.component.component.endpoint.endpoint.component", fleet.Endpoint{Component: "component", Name: "endpoint"}, "component"},
		{"ns", "namespace.ns.component.endpoint.endpoint", fleet.Endpoint{Component: "endpoint"}, "endpoint"},
		{"ns", "namespace.ns.component", fleet.Endpoint{}, "component"},
		{"ns", "namespace.ns.a%2Eb", fleet.Endpoint{}, "a.b"},
		{"日本", "namespace.日本.kv_metrics", fleet.Endpoint{}, TopicLoad},
		{"日本", "namespace.%E6%97%A5%E6%9C%AC.component.%C3%BC.endpoint.e.kv_metrics", fleet.Endpoint{Component: "ü", Name: "e"}, TopicLoad},
	} {
		e, topic, ok := ParseEventSubject(c.namespace, c.subject)
		if e != c.want || topic != c.topic || !ok {
			t.Errorf("ParseEventSubject(%q) = %+v, %q, %v, want %+v, %q, true", c.subject, e, topic, ok, c.want, c.topic)
		}
	}
}

func TestParseEventSubjectRejectsOtherSubjects(t *testing.T) {
	for _, subject := range []string{
		"",
		"kv_metrics",
		"namespace",
		"namespace.lab",
		"namespace.lab.",
		"namespace.lab..",
		"namespace.lab.a.b",
		"namespace.lab.l2c.backend.generate",
		"namespace.lab2.kv_metrics",
		"namespace.la.kv_metrics",
		"namespace.la%62.kv_metrics",
		"Namespace.lab.kv_metrics",
		"xnamespace.lab.kv_metrics",
		"namespace.lab.component.backend",
		"namespace.lab.component.backend.",
		"namespace.lab.component..kv_metrics",
		"namespace.lab.component.back.end.kv_metrics",
		"namespace.lab.component.backend.endpoint.generate",
		"namespace.lab.component.backend.endpoint.generate.",
		"namespace.lab.component.backend.endpoint..kv_metrics",
		"namespace.lab.component.backend.endpoint.generate.kv.metrics",
		"namespace.lab.component.backend.endpoint.generate.kv_metrics.",
		"namespace.lab.component.back%2.kv_metrics",
		"namespace.lab.component.back%2g.kv_metrics",
		"namespace.lab.component.back%2e.kv_metrics",
		"namespace.lab.component.%FF.kv_metrics",
		"namespace.lab.component.\xff.kv_metrics",
		"namespace.lab.component." + strings.Repeat("c", maxName+1) + ".kv_metrics",
		"namespace.lab.%",
		TraceSubject,
	} {
		e, topic, ok := ParseEventSubject("lab", subject)
		if e != (fleet.Endpoint{}) || topic != "" || ok {
			t.Errorf("ParseEventSubject(%q) = %+v, %q, %v, want it rejected", subject, e, topic, ok)
		}
	}
}
