package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// newStackWithWorker returns a stack with one worker, and the samples that it must have.
func newStackWithWorker(t *testing.T) (*stack, samples) {
	s := newStack(t)
	s.register(wire.LayoutInstances, instance("generate", 7))
	s.responder("dynamo_backend", reply("dynamo_backend", "generate", 7, flatLoad(3, 9)))
	return s, samples{workerSeries("llm_kv_blocks_active", "generate", 7): "3", workersSeries("generate", "answering"): "1", "dynamo_metrics_leader": "1"}
}

// waitUntilStandby waits until the program is a standby, which shows the fleet only with
// ?standby=1.
func waitUntilStandby(t *testing.T, v *server, shown samples) {
	t.Helper()
	v.waitFor(func(p samples) error {
		if n := len(p.filter("llm_")); n > 0 || p["dynamo_metrics_leader"] != "0" {
			return fmt.Errorf("a standby has %d series of the fleet, leader is %q", n, p["dynamo_metrics_leader"])
		}
		status, body := get(v.url + "/metrics?standby=1")
		whole := samples(process.ParseSamples(body))
		whole["dynamo_metrics_leader"] = "1" // the only difference from the leader's samples
		if err := whole.match(shown); status != 200 || err != nil {
			return fmt.Errorf("GET /metrics?standby=1: %d, %w", status, err)
		}
		return nil
	})
}

func TestStandbyReplacesATerminatedLeaderAtOnce(t *testing.T) {
	t.Parallel()
	s, shown := newStackWithWorker(t)
	args := []string{"--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1", "--standby"}
	var published atomic.Int64
	if _, err := s.nats.Subscribe("namespace.dynamo.l2c.>", func(*nats.Msg) { published.Add(1) }); err != nil {
		t.Fatal(err)
	}
	first := s.metrics(args...)
	first.waitForSamples(shown)
	second := s.metrics(args...)
	second.waitUntilReady()
	waitUntilStandby(t, second, shown)
	second.WaitForLine("Standing by: create dynamo/components/metrics/instance: another instance exists")
	first.Terminate()
	second.waitForSamples(shown)
	before := published.Load()
	testutil.Until(t, func() error {
		if published.Load() == before {
			return errors.New("the new leader publishes no l2c event")
		}
		return nil
	})
	second.Terminate()
}

// startPair starts two programs, of which the first leads and the second is a standby.
func (s *stack) startPair(shown samples) (first, second *server) {
	s.t.Helper()
	args := []string{"--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1", "--standby"}
	first = s.metrics(args...)
	first.waitForSamples(shown)
	second = s.metrics(args...)
	waitUntilStandby(s.t, second, shown)
	return first, second
}

func TestStandbyReplacesAKilledOrStoppedLeader(t *testing.T) {
	t.Parallel()
	s, shown := newStackWithWorker(t)
	first, second := s.startPair(shown)
	first.Signal(syscall.SIGSTOP) // longer than its lease lives
	second.waitForSamples(shown)
	first.Signal(syscall.SIGCONT)
	waitUntilStandby(t, first, shown)
	key, err := s.etcd.Get(t.Context(), instanceKey)
	if err != nil || len(key.Kvs) != 1 {
		t.Fatalf("%s: %v, %v", instanceKey, key, err)
	}
	second.Kill()
	s.endLease(clientv3.LeaseID(key.Kvs[0].Lease)) // the lease's expiry is tested above
	first.waitForSamples(shown)
	first.WaitForLine("Lost the lease of the unique instance")
	first.Terminate()
}

func TestStandbyNeedsEtcd(t *testing.T) {
	t.Parallel()
	m := start(t, "metrics", nil, "--standby", "--etcd-endpoints", "none", "--component", "c")
	if code := m.Wait(); code != 2 || !strings.Contains(m.LastLine(), "--standby: needs etcd") {
		t.Errorf("exit code %d, %q; want 2 and why", code, m.LastLine())
	}
}

// TestStandbyPairWithoutRegistryOnlyShowsTheFleet checks an outage of etcd: neither of two
// programs can lead then. Both show the fleet, because otherwise it would not be shown at
// all.
func TestStandbyPairWithoutRegistryOnlyShowsTheFleet(t *testing.T) {
	t.Parallel()
	s, shown := newStackWithWorker(t)
	first, second := s.startPair(shown)
	var published atomic.Int64
	if _, err := s.nats.Subscribe("namespace.dynamo.l2c.>", func(*nats.Msg) { published.Add(1) }); err != nil {
		t.Fatal(err)
	}
	s.StopEtcd()
	shown["dynamo_metrics_leader"] = "0"
	first.waitForSamples(shown)
	testutil.Until(t, func() error {
		for _, m := range []*server{first, second} {
			if _, body := get(m.url + "/api/v1/fleet"); !strings.Contains(body, `"role":"standby","detail":"the holder of dynamo/components/metrics/instance is not known"`) {
				return fmt.Errorf("the snapshot is %.400s", body)
			}
		}
		return nil
	})
	before := published.Load()
	polls := func(p samples) int { n, _ := strconv.Atoi(p[`dynamo_metrics_polls_total{result="ok"}`]); return n }
	begun := -1
	first.waitFor(func(p samples) error {
		if begun < 0 {
			begun = polls(p)
		}
		if n := polls(p) - begun; n < 10 {
			return fmt.Errorf("%d polls, want ten", n)
		}
		return nil
	})
	if n := published.Load() - before; n > 1 { // one may have been under way
		t.Errorf("%d l2c events from a program that cannot lead", n)
	}
	first.waitForSamples(shown)
	if p, err := second.scrape(); err != nil || len(p.filter("llm_")) > 0 {
		t.Errorf("the standby shows %v, %v", p.filter("llm_"), err)
	}
	s.StartEtcd(t)
	shown["dynamo_metrics_leader"] = "1"
	first.waitForSamples(shown)
	first.Terminate()
	second.waitForSamples(shown)
	second.Terminate()
}
