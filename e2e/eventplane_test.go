package e2e

import (
	"fmt"
	"strings"
	"testing"

	"dynamo-metrics/internal/mock"
	"dynamo-metrics/internal/wire"
)

// zmqFleet starts two workers of 1.6.1 that do not use NATS, and a program with this NATS
// server, which may be none or down.
func zmqFleet(t *testing.T, s *stack, nats string) *server {
	t.Helper()
	m := serve(t, []string{"NATS_SERVER=" + nats, "ETCD_ENDPOINTS=" + s.Etcd.Endpoint()})
	var scripts []*mockScript
	var all []*mockWorker
	for range 2 {
		p := &mockScript{load: loadOf(1, 1, 1)}
		scripts = append(scripts, p)
		all = append(all, startMock(t, nil, s.etcd, p.config("1.6.1", mock.ZMQ)))
	}
	m.waitForPublishers(4, 0)
	m.waitUntilReady()
	want := samples{
		`dynamo_metrics_connected{system="nats"}`: "0",
		`dynamo_metrics_connected{system="etcd"}`: "1",
		`dynamo_metrics_connected{system="zmq"}`:  "1",
		workersSeries("generate", "answering"):    "2",
		`llm_load_avg{` + backend + `}`:           "45",
	}
	for i, w := range all {
		scripts[i].setLoad(loadOf(8, 3, uint64(40+10*i)))
		want[w.series("llm_kv_blocks_active")] = fmt.Sprint(40 + 10*i)
		want[w.series("llm_requests_active_slots")] = "8"
		want[w.series("llm_requests_waiting")] = "3"
	}
	m.waitForSamples(want)
	return m
}

func TestEventPlaneZMQNeedsNoNATS(t *testing.T) {
	t.Parallel()
	m := zmqFleet(t, newStack(t), "none")
	if lines := m.LinesWith("nats"); len(lines) > 0 {
		t.Errorf("the log mentions NATS: %q", lines)
	}
	m.Terminate()
}

func TestEventPlaneNATSMattersOnceAWorkerNeedsIt(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := zmqFleet(t, s, "nats://127.0.0.1:"+freePort(t))
	const warning = " WARN nats: "
	m.WaitForLine(warning)
	if lines := m.LinesWith(warning); len(lines) != 1 {
		t.Errorf("got %q, want one warning", lines)
	}
	s.register(wire.LayoutInstances, instance("generate", 5)) // a worker of 0.5.1
	m.waitUntilNotReady("NATS is not connected, no poll has completed yet")
	m.waitForSamples(samples{workersSeries("generate", "answering"): "2", workersSeries("generate", "silent"): "1"})
	s.deregister(wire.LayoutInstances, instance("generate", 5))
	m.waitUntilReady()
}

func TestEventPlaneMismatchIsWarnedOfOnce(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics()
	for id := range uint64(3) {
		s.put(channel(wire.TopicKVEvents, 10+id, zmqTransport("tcp://127.0.0.1:1")))
		s.put(channel("active_sequences_events", 20+id, natsTransport))
	}
	m.WaitForLine(" WARN metrics: Workers and routers of a component do not share an event plane")
	said := m.LinesWith("WARN metrics: Workers and routers of a component do not share an event plane")
	if len(said) != 1 || !strings.Contains(said[0], `component=backend event_plane="workers on ZMQ, routers on NATS"`) {
		t.Errorf("said %q", said)
	}
}
