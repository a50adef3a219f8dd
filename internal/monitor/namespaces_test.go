package monitor

import (
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor/monitortest"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// TestNamespacesDuringRollingUpdate has two namespaces at once, as Dynamo's operator creates
// them.
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
	testutil.Equal(t, "mean load", monitortest.FormatOptional(s.Fleet.LoadMean), "0.5")
	if p := h.problem("full:prod-2e/backend/generate"); !strings.HasPrefix(p.Detail, "prod-2e/backend/generate: 3 at 90") {
		t.Errorf("the problem full is %+v", p)
	}
	h.fleet.Deregister("", fleet.Instance{Endpoint: old, ID: 1})
	h.fleet.Deregister("", fleet.Instance{Endpoint: old, ID: 2})
	h.setReplies(pollReply(new, 3, 500, 0))
	h.ticks(10 * time.Second)
	testutil.Equal(t, "title of the problem lost", h.problem("lost:prod-1f/backend/generate").Title, "No worker of prod-1f/backend/generate is left")
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
