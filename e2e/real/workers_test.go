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

// ofEachRelease runs a test with workers of each release, at the same time: most of
// it is waiting for leases to run out.
func ofEachRelease(t *testing.T, test func(t *testing.T, s *servers, release string)) {
	t.Parallel()
	for _, release := range releases {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			python(t, release)
			test(t, startServers(t), release)
		})
	}
}

// watched are the flags for the endpoint that carries the load of real workers.
func watched(more ...string) []string {
	return append([]string{"--component", "backend", "--endpoint", "load_metrics"}, more...)
}

func commandLine(flags []string) string {
	return strings.Join(append([]string{"metrics"}, flags...), " ")
}

func TestThePageIsWhatRealWorkersReport(t *testing.T) {
	ofEachRelease(t, func(t *testing.T, s *servers, release string) {
		a, b := s.worker(release, valuesA), s.worker(release, valuesB)
		workers := names{"A": a.id, "B": b.id}
		for _, flags := range [][]string{watched("--poll-interval", "0.2"), {"--poll-interval", "0.2"}} {
			m := s.metrics(flags...)
			m.shows("two", workers)
			m.polls(2)
			s.hit(a.id, 10, 4)
			s.hit(b.id, 8, 0)
			s.hit(a.id, 5, 5)
			t.Logf("%s, with two workers of ai-dynamo-runtime %s:\n%s",
				commandLine(flags), release, ours(m.shows("two-hit", workers)))
			m.Terminate()
		}
	})
}

func TestWorkersOfTwoReleasesShareANamespace(t *testing.T) {
	t.Parallel()
	for _, release := range releases {
		python(t, release)
	}
	s := startServers(t)
	a, b := s.worker("0.2.1", valuesA), s.worker("0.2.1", valuesB)
	c, d := s.worker("0.5.1", valuesC), s.worker("0.5.1", valuesD)
	workers := names{"A": a.id, "B": b.id, "C": c.id, "D": d.id}
	for _, flags := range [][]string{watched(), nil} {
		m := s.metrics(flags...)
		t.Logf("%s, with two workers each of ai-dynamo-runtime 0.2.1 and 0.5.1:\n%s",
			commandLine(flags), ours(m.shows("four", workers)))
		m.Terminate()
	}
}

// After its first poll the program here does not poll again: what makes it forget
// the worker can only be the key.
func TestATerminatedWorkerGoesWithItsKey(t *testing.T) {
	ofEachRelease(t, func(t *testing.T, s *servers, release string) {
		a, b := s.worker(release, valuesA), s.worker(release, valuesB)
		m := s.metrics(watched("--poll-interval", "1h")...)
		m.shows("two", names{"A": a.id, "B": b.id})
		a.Signal(syscall.SIGTERM)
		whole := m.shows("b", names{"A": a.id, "B": b.id})
		if n := page(process.ParsePage(whole)).polls(); n != 1 {
			t.Errorf("%d polls done, want 1", n)
		}
		if s.registered(a.key) {
			t.Errorf("%s is still there", a.key)
		}
	})
}

func TestATerminatedWorkerThatGoesOnAnsweringIsNotShown(t *testing.T) {
	ofEachRelease(t, func(t *testing.T, s *servers, release string) {
		a, b := s.worker(release, valuesA), s.worker(release, valuesB)
		workers := names{"A": a.id, "B": b.id}
		m := s.metrics(watched("--poll-interval", "0.2")...)
		m.shows("two", workers)
		a.Signal(syscall.SIGTERM)
		m.shows("a-unregistered", workers)
		m.polls(5)
		m.shows("a-unregistered", workers)
		a.Kill()
		m.shows("b", workers)
	})
}

func TestAKilledWorkerIsSilentUntilItsKeyGoes(t *testing.T) {
	ofEachRelease(t, func(t *testing.T, s *servers, release string) {
		a, b := s.worker(release, valuesA), s.worker(release, valuesB)
		workers := names{"A": a.id, "B": b.id}
		m := s.metrics(watched("--poll-interval", "0.2")...)
		m.shows("two", workers)
		m.polls(2)
		s.hit(a.id, 15, 9)
		s.hit(b.id, 4, 0)
		s.hit(b.id, 4, 0)
		m.shows("two-hit", workers)

		a.Kill()
		m.shows("a-silent-hit", workers)
		if !s.registered(a.key) {
			t.Errorf("%s went before the worker's gauges", a.key)
		}
		m.shows("b-hit", workers)
		if s.registered(a.key) {
			t.Errorf("%s is still there", a.key)
		}
	})
}

func TestAWorkerThatWakesUpWithoutItsKeyIsNotShown(t *testing.T) {
	ofEachRelease(t, func(t *testing.T, s *servers, release string) {
		a, b := s.worker(release, valuesA), s.worker(release, valuesB)
		workers := names{"A": a.id, "B": b.id}
		m := s.metrics(watched("--poll-interval", "0.2")...)
		m.shows("two", workers)

		a.Signal(syscall.SIGSTOP)
		m.shows("a-silent", workers)
		m.shows("b", workers)
		if s.registered(a.key) {
			t.Errorf("%s is still there", a.key)
		}
		a.Signal(syscall.SIGCONT)
		m.shows("a-unregistered", workers)
		m.polls(10)
		m.shows("a-unregistered", workers)
		if s.registered(a.key) {
			t.Errorf("%s is back", a.key)
		}
	})
}

func TestWatchingAnEndpointWithoutLoadSaysWhichHasOne(t *testing.T) {
	ofEachRelease(t, func(t *testing.T, s *servers, release string) {
		s.worker(release, valuesA)
		s.worker(release, valuesB)
		m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.1")
		m.Says("carries no load")
		m.polls(5)
		m.shows("generate", nil)
		hints := m.Said("carries no load")
		if len(hints) != 1 || !strings.Contains(hints[0], " INFO ") || !strings.Contains(hints[0], "load_metrics") {
			t.Errorf("got %q, want one line of INFO that names load_metrics", hints)
		}
	})
}

func TestMockWorkersOfEveryReleaseAreSeen(t *testing.T) {
	t.Parallel()
	s := startServers(t)
	mocked := []string{"0.1.0", "0.1.1", "0.2.1", "0.3.0", "0.5.1"}
	for _, release := range mocked {
		process.Start(t, s.env(), filepath.Join(bin, "mock_worker"), "--release", release, "--workers", "2", "--event-interval", "0.1")
	}
	m := s.metrics("--component", "backend", "--endpoint", "generate", "--poll-interval", "0.2")
	testutil.Until(t, func() error {
		p, err := m.page()
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
