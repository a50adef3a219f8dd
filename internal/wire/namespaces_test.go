package wire

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestNamespacesMatchExactlyOrByPrefix(t *testing.T) {
	for _, c := range []struct {
		namespaces Namespaces
		name       string
		match      bool
		label      string
	}{
		{"lab", "lab", true, ""},
		{"lab", "lab2", false, ""},
		{"lab", "la", false, ""},
		{"lab*", "lab", true, "lab"},
		{"lab*", "lab-0c1d2e3f", true, "lab-0c1d2e3f"},
		{"lab*", "la", false, "la"},
		{"lab*", "my-lab", false, "my-lab"},
		{"*", "lab", true, "lab"},
		{"*", "lab-0c1d2e3f", true, "lab-0c1d2e3f"},
		{"*", "", false, ""},
	} {
		testutil.Equal(t, "Match", c.namespaces.Match(c.name), c.match)
		testutil.Equal(t, "Label", c.namespaces.Label(c.name), c.label)
	}
}

// TestNamespacesOverlapsWhereANameFitsBoth checks pairs of names and patterns of all kinds.
func TestNamespacesOverlapsWhereANameFitsBoth(t *testing.T) {
	all := []Namespaces{"lab", "lab-1", "other", "lab*", "lab-*", "la*", "other*", "*", "", "lab\xff", "lab\xff*", Namespaces(strings.Repeat("l", 257) + "*")}
	for watched, yes := range map[Namespaces][]Namespaces{
		"lab":    {"lab", "lab*", "la*", "*"},
		"lab-1":  {"lab-1", "lab*", "lab-*", "la*", "*"},
		"lab*":   {"lab", "lab-1", "lab*", "lab-*", "la*", "*"},
		"lab-*":  {"lab-1", "lab*", "lab-*", "la*", "*"},
		"other*": {"other", "other*", "*"},
		"*":      {"lab", "lab-1", "other", "lab*", "lab-*", "la*", "other*", "*"},
	} {
		for _, other := range all {
			if got, want := watched.Overlaps(other), slices.Contains(yes, other); got != want {
				t.Errorf("%q overlaps %q: %v, want %v", watched, other, got, want)
			}
		}
		for _, other := range []Namespaces{"lab", "lab-1", "lab*", "lab-*", "*"} {
			if watched.Overlaps(other) != other.Overlaps(watched) {
				t.Errorf("Overlaps of %q and %q is not symmetric", watched, other)
			}
		}
	}
}

func TestNamespacesKeyPrefixesDoNotOverlap(t *testing.T) {
	for _, ns := range []Namespaces{
		"dynamo", "namespace", "instances", "components", "v1", "mdc", "event_channels", "namespace/namespace", "ü %",
		"*", "dynamo*", "namespace*", "na*", "namespace/n*", "instances*", "v1*", "ü %*",
	} {
		all := ns.KeyPrefixes()
		for i, p := range all {
			for j, q := range all {
				if i != j && strings.HasPrefix(p, q) {
					t.Errorf("namespace %q: %q is below %q", ns, p, q)
				}
			}
		}
	}
}

func TestNamespacesOfKeyReadsCaptures(t *testing.T) {
	for _, release := range []string{"0.3.0", "0.5.1", "0.6.1", "0.9.1", "1.6.1"} {
		for _, kv := range testutil.CapturedJSON[[]keyValue](t, release, "etcd_keys.json") {
			want := "lab"
			if strings.HasPrefix(release, "0.5") || release == "0.3.0" {
				want = "dynamo"
			}
			if !isBelowPrefix(Namespaces(want), kv.Key) {
				continue // a key that this program does not read
			}
			for _, several := range []Namespaces{Namespaces(want[:2] + "*"), "*"} {
				if ns, ok := several.OfKey(kv.Key); ns != want || !ok || !isBelowPrefix(several, kv.Key) {
					t.Errorf("%s: namespace of %s among %s: %q, %v, want %q, below its prefixes", release, kv.Key, several, ns, ok, want)
				}
			}
			if ns, ok := Namespaces(want + "-*").OfKey(kv.Key); ok {
				t.Errorf("%s: %s is counted to %s-* (%q)", release, kv.Key, want, ns)
			}
		}
	}
}

func isBelowPrefix(n Namespaces, key string) bool {
	return slices.ContainsFunc(n.KeyPrefixes(), func(p string) bool { return strings.HasPrefix(key, p) })
}

func TestNamespacesOfKeyWithMisleadingNames(t *testing.T) {
	for key, want := range map[string]string{
		"v1/instances/namespace/backend/generate/1f":                                                "namespace",
		"v1/event_channels/namespace//kv_metrics/1f":                                                "namespace",
		"v1/event_channels/namespace/backend/kv_metrics/1f":                                         "namespace",
		"v1/event_channels/namespace/namespace/topic/kv_metrics/1f":                                 "namespace",
		"v1/event_channels/namespace/a%2Eb/component/backend/endpoint/generate/topic/kv_metrics/1f": "a.b",
		"v1/event_channels/lab//kv_metrics/1f":                                                      "lab",
		"v1/mdc/lab/backend/generate/1f":                                                            "lab",
		"v1/mdc//backend/generate/1f":                                                               "",
		"lab/components/backend/generate:1f":                                                        "",
		"v1/event_sources/namespace/lab/component/backend/endpoint/generate/topic/kv-events/1f":     "",
		"": "",
	} {
		ns, ok := Namespaces("*").OfKey(key)
		testutil.Equal(t, "namespace", ns, want)
		testutil.Equal(t, "ok", ok, want != "")
		if want != "" {
			_, ok = Namespaces(want[:1] + "*").OfKey(key)
			testutil.Equal(t, "ok", ok, true)
			_, ok = Namespaces("x*").OfKey(key)
			testutil.Equal(t, "ok", ok, false)
		}
		one := Namespaces(cmp.Or(want, "lab")) // without a pattern OfKey does not read the key
		ns, ok = one.OfKey(key)
		testutil.Equal(t, "namespace", ns, string(one))
		testutil.Equal(t, "ok", ok, true)
	}
}

func TestBrokerTopicsCoverOnlyTheNamespaces(t *testing.T) {
	topics := []string{TopicLoad, TopicHitRate, TopicForwardPass}
	testutil.Equal(t, "BrokerTopics", BrokerTopics("a.b", topics...), []string{
		"namespace.a%2Eb.component.",
		"namespace.a.b.component.",
		"namespace.a.b.forward-pass-metrics",
		"namespace.a.b.kv-hit-rate",
		"namespace.a.b.kv_metrics",
	})
	testutil.Equal(t, "BrokerTopics", BrokerTopics("lab-*", topics...), []string{"namespace.lab-"})
	testutil.Equal(t, "BrokerTopics", BrokerTopics("*", topics...), []string{"namespace."})
}

func TestEventSubjectsMatchCapturesOfNamespaces(t *testing.T) {
	for _, release := range []string{"0.6.1", "0.9.1", "1.6.1"} {
		for _, m := range natsEvents(t, release) {
			if m.subject == TraceSubject {
				continue
			}
			testutil.Equal(t, "SubjectNamespace", SubjectNamespace(m.subject), "lab")
			_, topic, _ := ParseEventSubject("lab", m.subject)
			for _, namespaces := range []Namespaces{"lab", "l*", "*"} {
				n := 0
				for _, s := range EventSubjects(namespaces, topic) {
					if subjectMatches(s, m.subject) {
						n++
					}
				}
				testutil.Equal(t, "matching subscriptions", n, 1)
			}
		}
	}
}
