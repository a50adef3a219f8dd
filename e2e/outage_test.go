package e2e

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const instanceKey = "dynamo/components/metrics/instance"

func TestOutageAtStartEndsWhenServersCome(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	env := s.env()
	s.StopNATS()
	s.StopEtcd()
	m := serve(t, env, "--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	testutil.Until(t, func() error {
		status, body := get(m.url + "/-/ready?strict=true")
		for _, why := range []string{"etcd is not connected", "NATS is not connected", "no poll has completed yet"} {
			if status != 503 || !strings.Contains(body, why) {
				return fmt.Errorf("GET /-/ready?strict=true: %d %q, want 503 and %q", status, body, why)
			}
		}
		return nil
	})
	m.WaitForLine("etcd is not connected")
	m.WaitForLine("NATS is not connected")
	m.waitFor(func(p samples) error {
		if n := p[`dynamo_metrics_errors_total{source="etcd"}`]; n == "0" || n == "" {
			return fmt.Errorf("%q calls to etcd are counted as failed", n)
		}
		return nil
	})
	s.StartNATS(t)
	s.StartEtcd(t)
	m.waitUntilReady()
	m.waitForSamples(samples{
		`dynamo_metrics_connected{system="nats"}`: "1",
		`dynamo_metrics_connected{system="etcd"}`: "1",
		"dynamo_metrics_leader":                   "1",
	})
	for _, line := range []string{"WARN nats: ", "WARN etcd: "} {
		if n := len(m.LinesWith(line)); n > 1 {
			t.Errorf("%q logged %d times, want once per change of state", line, n)
		}
	}
	m.Terminate()
}

func TestOutageKeepsPolledValues(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.register(wire.LayoutInstances, instance("generate", 7))
	s.responder("dynamo_backend", reply("dynamo_backend", "generate", 7, flatLoad(3, 9)))
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	shown := samples{workerSeries("llm_kv_blocks_active", "generate", 7): "3", workersSeries("generate", "answering"): "1"}
	m.waitForSamples(shown)
	m.waitUntilReady()

	s.StopNATS()
	s.StopEtcd()
	m.waitForSamples(samples{`dynamo_metrics_connected{system="nats"}`: "0", `dynamo_metrics_connected{system="etcd"}`: "0"})
	m.waitFor(func(p samples) error { // far more than the two polls after which it would be forgotten
		if n := p[`dynamo_metrics_polls_total{result="error"}`]; len(n) < 2 {
			return fmt.Errorf("%s polls that could not be sent, want ten", n)
		}
		return p.match(shown)
	})
	if status, body := get(m.url + "/-/ready?strict=true"); status != 503 {
		t.Errorf("GET /-/ready?strict=true: %d %q, want 503", status, body)
	}
	// A load balancer must not take the program out of service now.
	if status, body := get(m.url + "/-/ready"); status != 200 || body != "ready, but: etcd is not connected, NATS is not connected\n" {
		t.Errorf("GET /-/ready: %d %q, want 200 and the disconnected servers", status, body)
	}
	s.StartEtcd(t)
	s.StartNATS(t)
	m.waitUntilReady()
	m.waitForSamples(shown)
	m.waitForSamples(samples{ // what is known of the worker stays
		`dynamo_metrics_disconnects_total{system="nats"}`: "1",
		`dynamo_metrics_disconnects_total{system="etcd"}`: "1",
	})
	m.waitFor(func(p samples) error {
		for _, system := range []string{"nats", "etcd"} {
			if seconds, err := strconv.ParseFloat(p[`dynamo_metrics_disconnected_seconds_total{system="`+system+`"}`], 64); err != nil || seconds <= 0 {
				return fmt.Errorf("%s was disconnected for %v s (%v), want more than 0", system, seconds, err)
			}
		}
		return nil
	})
	testutil.Until(t, func() error {
		if _, body := get(m.url + "/api/v1/fleet"); !strings.Contains(body, `"kind":"outage"`) {
			return errors.New("no problem reports the outage of NATS")
		}
		return nil
	})
	s.hit(7, 4, 1)
	m.waitForSamples(samples{workerSeries("llm_kv_hit_rate_isl_blocks", "generate", 7): "4"})
	m.Terminate()
}

func TestOutageMissesNoDeletion(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for id := range uint64(2) {
		s.register(wire.LayoutInstances, instance("generate", id+1))
		s.responder("dynamo_backend", reply("dynamo_backend", "generate", id+1, flatLoad(3, 9)))
	}
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.waitForSamples(samples{workersSeries("generate", "answering"): "2"})

	// An etcd that has lost its data restarts its revisions at 1: a watch that continued
	// from its old revision would wait without events.
	s.StopEtcd()
	s.StartEmptyEtcd(t)
	s.register(wire.LayoutInstances, instance("generate", 2))
	m.waitForSamples(samples{
		workersSeries("generate", "answering"):              "1",
		workerSeries("llm_kv_blocks_active", "generate", 1): "",
		workerSeries("llm_kv_blocks_active", "generate", 2): "3",
		"dynamo_metrics_leader":                             "1",
	})
	testutil.Until(t, func() error {
		if s.key(t.Context(), instanceKey) == "" {
			return fmt.Errorf("the unique instance's key was not created again")
		}
		return nil
	})
}

func TestOutageWithCompactionIsRecovered(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
	m.waitUntilReady()
	s.register(wire.LayoutInstances, instance("generate", 1))
	s.register(wire.LayoutInstances, instance("generate", 2))
	got, err := s.etcd.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	s.StopEtcd()
	s.StartEtcd(t)
	if _, err := s.etcd.Compact(t.Context(), got.Header.Revision); err != nil {
		t.Fatal(err)
	}
	s.deregister(wire.LayoutInstances, instance("generate", 1))
	m.waitForSamples(samples{workersSeries("generate", "silent"): "1"})
}

func TestOutageOfTheLeaseDoesNotEndTheProgram(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate")
	m.waitForSamples(samples{"dynamo_metrics_leader": "1"})
	s.endLease(instanceLease(t, s))
	m.WaitForLine("Holding the unique instance at " + instanceKey + " again")
	m.waitForSamples(samples{"dynamo_metrics_leader": "1"})
	m.Terminate()
}

func TestOutageWithKeyTakenByAnotherEndsTheProgram(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate")
	m.waitForSamples(samples{"dynamo_metrics_leader": "1"})
	// The key is overwritten before the old lease ends, as it can happen between two
	// attempts.
	lease := instanceLease(t, s)
	if _, err := s.etcd.Put(t.Context(), instanceKey, `{"component_name": "other"}`); err != nil {
		t.Fatal(err)
	}
	s.endLease(lease)
	if code := m.Wait(); code != 1 || len(m.LinesWith(instanceKey+": another instance exists")) != 1 {
		t.Errorf("exit code %d, want 1 and a mention of the other instance:\n%q", code, m.Lines())
	}
}

func instanceLease(t *testing.T, s *stack) clientv3.LeaseID {
	t.Helper()
	got, err := s.etcd.Get(t.Context(), instanceKey)
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("get %s: %v, %v", instanceKey, got, err)
	}
	return clientv3.LeaseID(got.Kvs[0].Lease)
}

// freePort returns a port of 127.0.0.1 on which nothing listens.
func freePort(t *testing.T) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(process.FreeAddress(t))
	return port
}

func TestOutageKeepsPublishedLoads(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.put(registration(7)...)
	s.put(registration(8)...)
	way := process.NewProxy(t, strings.TrimPrefix(s.Etcd.Endpoint(), "http://"))
	m := s.metrics("--poll-interval", "0.1", "--etcd-endpoints", "http://"+way.Address)
	m.waitForNATSEvents()
	const subject = scope + "." + wire.TopicLoad
	s.publish(subject, event{70, 0, wire.TopicLoad, load16(7, 10)}.envelope())
	s.publish(subject, event{80, 0, wire.TopicLoad, load16(8, 20)}.envelope())
	shown := samples{
		workerSeries("llm_kv_blocks_active", "generate", 7): "10",
		workerSeries("llm_kv_blocks_active", "generate", 8): "20",
		workersSeries("generate", "answering"):              "2",
	}
	m.waitForSamples(shown)

	s.StopNATS()
	way.Cut()
	m.waitForSamples(samples{`dynamo_metrics_connected{system="nats"}`: "0", `dynamo_metrics_connected{system="etcd"}`: "0"})
	m.waitForSamples(shown)
	s.remove(registration(8)...)
	s.StartNATS(t)
	way.Restore()
	m.waitUntilReady()
	m.waitForSamples(samples{workersSeries("generate", "answering"): "1", workerSeries("llm_kv_blocks_active", "generate", 7): "10"})
	m.waitFor(func(p samples) error { return p.matchNoneOf(8) })
	s.publish(subject, event{70, 2, wire.TopicLoad, load16(7, 11)}.envelope())
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", 7): "11", `dynamo_metrics_event_sequence_gaps_total`: "1"})
}
