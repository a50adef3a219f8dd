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

// watched is a stack with one worker, whose load everybody sees.
func watched(t *testing.T) (*stack, page) {
	s := newStack(t)
	s.register(wire.LayoutInstances, instance("generate", 7))
	s.responder("dynamo_backend", reply("dynamo_backend", "generate", 7, flat(3, 9)))
	return s, page{worker("llm_kv_blocks_active", "generate", 7): "3", workers("generate", "answering"): "1", "dynamo_metrics_leader": "1"}
}

// standingBy waits until the program shows nothing of the fleet but to those who ask.
func standingBy(t *testing.T, v *server, shown page) {
	t.Helper()
	v.until(func(p page) error {
		if n := len(p.of("llm_")); n > 0 || p["dynamo_metrics_leader"] != "0" {
			return fmt.Errorf("a standby has %d series of the fleet, leader is %q", n, p["dynamo_metrics_leader"])
		}
		status, body := get(v.url + "/metrics?standby=1")
		whole := page(process.ParsePage(body))
		whole["dynamo_metrics_leader"] = "1" // but for that it is the leader's page
		if err := whole.has(shown); status != 200 || err != nil {
			return fmt.Errorf("GET /metrics?standby=1: %d, %w", status, err)
		}
		return nil
	})
}

func TestAStandbyTakesOverAtOnceFromALeaderThatEnds(t *testing.T) {
	t.Parallel()
	s, shown := watched(t)
	args := []string{"--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1", "--standby"}
	var published atomic.Int64
	if _, err := s.nats.Subscribe("namespace.dynamo.l2c.>", func(*nats.Msg) { published.Add(1) }); err != nil {
		t.Fatal(err)
	}
	first := s.metrics(args...)
	first.shows(shown)
	second := s.metrics(args...)
	second.ready()
	standingBy(t, second, shown)
	second.Says("Standing by: create dynamo/components/metrics/instance: another instance exists")
	first.Terminate()
	second.shows(shown)
	before := published.Load()
	testutil.Until(t, func() error {
		if published.Load() == before {
			return errors.New("the new leader publishes no l2c event")
		}
		return nil
	})
	second.Terminate()
}

// pair is two programs, of which the first leads and the second stands by.
func (s *stack) pair(shown page) (first, second *server) {
	s.t.Helper()
	args := []string{"--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1", "--standby"}
	first = s.metrics(args...)
	first.shows(shown)
	second = s.metrics(args...)
	standingBy(s.t, second, shown)
	return first, second
}

func TestAStandbyTakesOverFromALeaderThatIsKilledOrStopped(t *testing.T) {
	t.Parallel()
	s, shown := watched(t)
	first, second := s.pair(shown)
	first.Signal(syscall.SIGSTOP) // longer than its lease lives
	second.shows(shown)
	first.Signal(syscall.SIGCONT)
	standingBy(t, first, shown)
	key, err := s.etcd.Get(t.Context(), instanceKey)
	if err != nil || len(key.Kvs) != 1 {
		t.Fatalf("%s: %v, %v", instanceKey, key, err)
	}
	second.Kill()
	s.endLease(clientv3.LeaseID(key.Kvs[0].Lease)) // to wait for its end once is long enough
	first.shows(shown)
	first.Says("Lost the lease of the unique instance")
	first.Terminate()
}

func TestStandingByNeedsEtcd(t *testing.T) {
	t.Parallel()
	m := start(t, "metrics", nil, "--standby", "--etcd-endpoints", "none", "--component", "c")
	if code := m.Ends(); code != 2 || !strings.Contains(m.Last(), "--standby: needs etcd") {
		t.Errorf("exit code %d, %q; want 2 and why", code, m.Last())
	}
}

// TestALeaderWithoutItsRegistryShowsTheFleetAndDoesNothingElse: where etcd is away
// neither of two programs can lead, and if both showed nothing there would be nothing to see.
func TestALeaderWithoutItsRegistryShowsTheFleetAndDoesNothingElse(t *testing.T) {
	t.Parallel()
	s, shown := watched(t)
	first, second := s.pair(shown)
	var published atomic.Int64
	if _, err := s.nats.Subscribe("namespace.dynamo.l2c.>", func(*nats.Msg) { published.Add(1) }); err != nil {
		t.Fatal(err)
	}
	s.StopEtcd()
	shown["dynamo_metrics_leader"] = "0"
	first.shows(shown)
	testutil.Until(t, func() error {
		for _, m := range []*server{first, second} {
			if _, body := get(m.url + "/api/v1/fleet"); !strings.Contains(body, `"role":"standby","detail":"who holds dynamo/components/metrics/instance cannot be known now"`) {
				return fmt.Errorf("the page says %.400s", body)
			}
		}
		return nil
	})
	before := published.Load()
	polls := func(p page) int { n, _ := strconv.Atoi(p[`dynamo_metrics_polls_total{result="ok"}`]); return n }
	begun := -1
	first.until(func(p page) error {
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
	first.shows(shown)
	if p, err := second.page(); err != nil || len(p.of("llm_")) > 0 {
		t.Errorf("the standby shows %v, %v", p.of("llm_"), err)
	}
	s.StartEtcd(t)
	shown["dynamo_metrics_leader"] = "1"
	first.shows(shown)
	first.Terminate()
	second.shows(shown)
	second.Terminate()
}
