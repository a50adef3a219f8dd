//go:build real

package real

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"
)

// forEachRelease runs a test with workers of each release, in parallel, because most of the
// time is spent waiting for leases to expire.
func forEachRelease(t *testing.T, test func(t *testing.T, s *servers, release string)) {
	t.Parallel()
	for _, release := range releases {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			python(t, release)
			test(t, startServers(t), release)
		})
	}
}

// watchFlags returns the flags for the endpoint that carries the load of real workers.
func watchFlags(more ...string) []string {
	return append([]string{"--component", "backend", "--endpoint", "load_metrics"}, more...)
}

func commandLine(flags []string) string {
	return strings.Join(append([]string{"metrics"}, flags...), " ")
}

func TestPolledWorkersAreShown(t *testing.T) {
	forEachRelease(t, func(t *testing.T, s *servers, release string) {
		a, b := s.worker(release, valuesA), s.worker(release, valuesB)
		workers := names{"A": a.id, "B": b.id}
		for _, flags := range [][]string{watchFlags("--poll-interval", "0.2"), {"--poll-interval", "0.2"}} {
			m := s.metrics(flags...)
			m.waitForGolden("two", workers)
			m.waitForPolls(2)
			s.publishHit(a.id, 10, 4)
			s.publishHit(b.id, 8, 0)
			s.publishHit(a.id, 5, 5)
			t.Logf("%s, with two workers of ai-dynamo-runtime %s:\n%s",
				commandLine(flags), release, withoutGoMetrics(m.waitForGolden("two-hit", workers)))
			m.Terminate()
		}
	})
}

func TestPolledWorkersOfTwoReleases(t *testing.T) {
	t.Parallel()
	for _, release := range releases {
		python(t, release)
	}
	s := startServers(t)
	a, b := s.worker("0.2.1", valuesA), s.worker("0.2.1", valuesB)
	c, d := s.worker("0.5.1", valuesC), s.worker("0.5.1", valuesD)
	workers := names{"A": a.id, "B": b.id, "C": c.id, "D": d.id}
	for _, flags := range [][]string{watchFlags(), nil} {
		m := s.metrics(flags...)
		t.Logf("%s, with two workers each of ai-dynamo-runtime 0.2.1 and 0.5.1:\n%s",
			commandLine(flags), withoutGoMetrics(m.waitForGolden("four", workers)))
		m.Terminate()
	}
}

// After its first poll the program here does not poll again: only the deletion of the key
// can make it forget the worker.
func TestPolledWorkerTerminatedIsGoneWithItsKey(t *testing.T) {
	forEachRelease(t, func(t *testing.T, s *servers, release string) {
		a, b := s.worker(release, valuesA), s.worker(release, valuesB)
		m := s.metrics(watchFlags("--poll-interval", "1h")...)
		m.waitForGolden("two", names{"A": a.id, "B": b.id})
		a.Signal(syscall.SIGTERM)
		whole := m.waitForGolden("b", names{"A": a.id, "B": b.id})
		if n := samples(process.ParseSamples(whole)).polls(); n != 1 {
			t.Errorf("%d polls done, want 1", n)
		}
		if s.registered(a.key) {
			t.Errorf("%s is still there", a.key)
		}
	})
}

func TestPolledWorkerTerminatedButAnsweringIsNotShown(t *testing.T) {
	forEachRelease(t, func(t *testing.T, s *servers, release string) {
		a, b := s.worker(release, valuesA), s.worker(release, valuesB)
		workers := names{"A": a.id, "B": b.id}
		m := s.metrics(watchFlags("--poll-interval", "0.2")...)
		m.waitForGolden("two", workers)
		a.Signal(syscall.SIGTERM)
		m.waitForGolden("a-unregistered", workers)
		m.waitForPolls(5)
		m.waitForGolden("a-unregistered", workers)
		a.Kill()
		m.waitForGolden("b", workers)
	})
}

func TestPolledWorkerKilledIsSilentUntilItsKeyExpires(t *testing.T) {
	forEachRelease(t, func(t *testing.T, s *servers, release string) {
		a, b := s.worker(release, valuesA), s.worker(release, valuesB)
		workers := names{"A": a.id, "B": b.id}
		m := s.metrics(watchFlags("--poll-interval", "0.2")...)
		m.waitForGolden("two", workers)
		m.waitForPolls(2)
		s.publishHit(a.id, 15, 9)
		s.publishHit(b.id, 4, 0)
		s.publishHit(b.id, 4, 0)
		m.waitForGolden("two-hit", workers)

		a.Kill()
		m.waitForGolden("a-silent-hit", workers)
		if !s.registered(a.key) {
			t.Errorf("%s is gone before the worker's gauges", a.key)
		}
		m.waitForGolden("b-hit", workers)
		if s.registered(a.key) {
			t.Errorf("%s is still there", a.key)
		}
	})
}

func TestPolledWorkerResumedWithoutKeyIsNotShown(t *testing.T) {
	forEachRelease(t, func(t *testing.T, s *servers, release string) {
		a, b := s.worker(release, valuesA), s.worker(release, valuesB)
		workers := names{"A": a.id, "B": b.id}
		m := s.metrics(watchFlags("--poll-interval", "0.2")...)
		m.waitForGolden("two", workers)

		a.Signal(syscall.SIGSTOP)
		m.waitForGolden("a-silent", workers)
		m.waitForGolden("b", workers)
		if s.registered(a.key) {
			t.Errorf("%s is still there", a.key)
		}
		a.Signal(syscall.SIGCONT)
		m.waitForGolden("a-unregistered", workers)
		m.waitForPolls(10)
		m.waitForGolden("a-unregistered", workers)
		if s.registered(a.key) {
			t.Errorf("%s is back", a.key)
		}
	})
}

func TestPolledEndpointWithoutLoadNamesEndpointWithLoad(t *testing.T) {
	forEachRelease(t, func(t *testing.T, s *servers, release string) {
		s.worker(release, valuesA)
		s.worker(release, valuesB)
		m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
		m.WaitForLine("carries no load")
		m.waitForPolls(5)
		m.waitForGolden("generate", nil)
		hintLines := m.LinesWith("carries no load")
		if len(hintLines) != 1 || !strings.Contains(hintLines[0], " INFO ") || !strings.Contains(hintLines[0], "load_metrics") {
			t.Errorf("got %q, want one line of INFO that names load_metrics", hintLines)
		}
	})
}

func TestPolledMockWorkersOfEveryRelease(t *testing.T) {
	t.Parallel()
	s := startServers(t)
	mocked := []string{"0.1.0", "0.1.1", "0.2.1", "0.3.0", "0.5.1"}
	for _, release := range mocked {
		process.Start(t, s.env(), filepath.Join(bin, "mock_worker"), "--release", release, "--workers", "2", "--event-interval", "0.1")
	}
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.2")
	testutil.Until(t, func() error {
		p, err := m.scrape()
		if err != nil {
			return err
		}
		const answering = `llm_workers{component="backend",endpoint="generate",state="answering"}`
		const events = `llm_kv_hit_rate_events_total{component="backend",endpoint="generate"}`
		if want := fmt.Sprint(2 * len(mocked)); p[answering] != want || p[events] == "0" {
			return fmt.Errorf("%s workers answer after %s hit-rate events, want %s and some events", p[answering], p[events], want)
		}
		return nil
	})
}
