package monitor

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// TestNamespacesDuringRollingUpdate as Dynamo's operator makes them.
func TestNamespacesDuringRollingUpdate(t *testing.T) {
	for _, namespaces := range []wire.Namespaces{"prod-*", "*"} {
		inBubble(t, func(h *harness) { testRollingUpdate(h, namespaces) })
	}
}

func testRollingUpdate(h *harness, namespaces wire.Namespaces) {
	t := h.t
	h.watchNamespaces(namespaces)
	old, new := generate, generate
	old.Namespace, new.Namespace = "prod-1f", "prod-2e"
	h.registerPolled(old, 1, 2)
	h.registerPolled(new, 3)
	h.setReplies(pollReply(old, 1, 200, 1), pollReply(old, 2, 400, 2), pollReply(new, 3, 900, 3))
	h.ticks(5 * time.Second)
	s := h.snapshot()
	testutil.Equal(t, "namespace", s.Namespace, string(namespaces))
	var rows []string
	for _, w := range s.Workers {
		rows = append(rows, w.Namespace+" "+w.Component+" "+w.Endpoint+" "+w.Key)
	}
	testutil.Equal(t, "workers", rows, []string{"prod-1f backend generate 1", "prod-1f backend generate 2", "prod-2e backend generate 3"})
	testutil.Equal(t, "endpoints", []string{s.Endpoints[0].Namespace, s.Endpoints[1].Namespace}, []string{"prod-1f", "prod-2e"})
	testutil.Equal(t, "mean load", formatOptional(s.Fleet.LoadMean), "0.5")
	if p := h.problem("full:prod-2e/backend/generate"); !strings.HasPrefix(p.Detail, "prod-2e/backend/generate: 3 at 90") {
		t.Errorf("what is full: %+v", p)
	}
	h.fleet.Deregister("", fleet.Instance{Endpoint: old, ID: 1})
	h.fleet.Deregister("", fleet.Instance{Endpoint: old, ID: 2})
	h.setReplies(pollReply(new, 3, 500, 0))
	h.ticks(10 * time.Second)
	testutil.Equal(t, "what is lost", h.problem("lost:prod-1f/backend/generate").Title, "No worker of prod-1f/backend/generate is left")
}

// TestSignalsSelectNamespaces and watched, of each sort of both; without a
// question they are of all that are watched.
func TestSignalsSelectNamespaces(t *testing.T) {
	const all, old, new, none, not = "[3,0.5,0.9,75,6,–,–,0]", "[2,0.3,0.4,30,3,–,–,0]", "[1,0.9,0.9,45,3,–,–,0]", "[0,–,–,0,0,0,–,–]", "404"
	for watched, asked := range map[wire.Namespaces]map[string]string{
		"prod-1f": {"": old, "prod-1f": old, "prod-1*": old, "prod-*": old, "p*": old, "*": old, "prod-2e": not, "prod-2*": not, "dev": not, "dev*": not},
		"prod-*":  {"": all, "prod-1f": old, "prod-2*": new, "prod-*": all, "p*": all, "*": all, "prod-new": none, "prod-new*": none, "dev": not, "dev*": not},
		"*":       {"": all, "prod-1f": old, "prod-2*": new, "prod-*": all, "p*": all, "*": all, "prod-new": none, "dev": none, "dev*": none},
	} {
		inBubble(t, func(h *harness) {
			t := h.t
			h.watchNamespaces(watched)
			in := func(namespace string) fleet.Endpoint {
				e := generate
				e.Namespace = watched.Label(namespace)
				return e
			}
			h.registerPolled(in("prod-1f"), 1, 2)
			answers := []fleet.PollReply{pollReply(in("prod-1f"), 1, 200, 1), pollReply(in("prod-1f"), 2, 400, 2)}
			if watched.IsPattern() {
				h.registerPolled(in("prod-2e"), 3)
				answers = append(answers, pollReply(in("prod-2e"), 3, 900, 3))
			}
			h.setReplies(answers...)
			h.ticks(5 * time.Second)
			for namespaces, want := range asked {
				path := generateSignalsPath
				if namespaces != "" {
					path += "&dynamo_namespace=" + namespaces
				}
				if want == not {
					testutil.Equal(t, path, h.requestError("GET", path, 404), fmt.Sprintf("the namespace %q is not watched: %q is", namespaces, string(watched)))
					continue
				}
				s := h.signals(path)
				testutil.Equal(t, fmt.Sprintf("%s of %s", path, watched), s.String(), want)
				testutil.Equal(t, "namespace", s.Namespace, cmp.Or(namespaces, string(watched)))
			}
		})
	}
}

func TestEmptyStateOfSeveralNamespaces(t *testing.T) {
	for _, namespaces := range []wire.Namespaces{"prod-*", "*"} {
		inBubble(t, func(h *harness) {
			t := h.t
			frontend := fleet.Endpoint{Namespace: "prod-1f", Component: "frontend", Name: "http"}
			h.fleet = fleet.New(fleet.Target{Namespace: string(namespaces), Component: "front"}, 10, true)
			h.fleet.Sync(fleet.Listing{})
			o := options(h.fleet)
			o.Namespaces = namespaces
			h.monitor = New(o)
			h.fleet.Register("", fleet.Instance{Endpoint: frontend, ID: 1}, fleet.Registration{NATS: true})
			h.tick()
			s := h.snapshot().Looking
			testutil.Equal(t, "namespace", s.Namespace, string(namespaces))
			testutil.Equal(t, "sees", s.Sees[0].Namespace+" "+s.Sees[0].Component, "prod-1f frontend")
			testutil.Equal(t, "asks", len(s.Asks), 0)
		})
	}
}

func TestSignalsRefuseStaleScrapedLoads(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		in := fleet.Instance{Endpoint: generate, ID: 7}
		h.fleet.Register("", in, fleet.Registration{Publishes: true, Metrics: "10.0.4.19:9090"})
		h.fleet.RecordScrape(fleet.ScrapeTarget{Instance: in, Metrics: "10.0.4.19:9090"}, []fleet.ScrapedValues{{Load: fleet.Load{KVTotal: u(1000), CacheUsage: fleet.Some(0.25), Waiting: u(3)}}})
		h.ticks(16 * time.Second)
		testutil.Equal(t, "signals", h.signals(generateSignalsPath).String(), "[1,0.25,0.25,–,3,–,–,16]")
		testutil.Equal(t, "source", h.snapshot().Workers[0].Source, "scrape")
		h.tick()
		testutil.Equal(t, "why", h.requestError("GET", generateSignalsPath, 503), "stale: the newest load is 17 s old, want no more than 16 s")
	})
}
