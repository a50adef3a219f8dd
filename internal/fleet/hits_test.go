package fleet

import (
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

func TestHitsGoToTheWatchedEndpointThatReportsTheWorker(t *testing.T) {
	f := fleetAt(backend, plenty)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	poll(f, loadless(generate, lease(1)), loaded(loadMetrics, lease(1), 10))
	f.Hit(1, 20, 5)
	f.Hit(1, 2, 0)
	shows(t, f, "backend/load_metrics: 1 answering 2 events mean 10", "  1 up kv 10 hits 5/22")
}

func TestAWorkerWithoutHitsHasNoCounters(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1)
	testutil.Equal(t, "hits", f.Snapshot().Workers[0].Hits, Opt[Hits]{})
	f.Hit(1, 0, 0)
	testutil.Equal(t, "hits after an event of zeros", f.Snapshot().Workers[0].Hits, Some(Hits{Events: 1}))
}

func TestHitsOfANamedTargetGoToTheNamedEndpoint(t *testing.T) {
	f := fleetAt(Target(loadMetrics), plenty)
	register(f, loadMetrics, 1)
	register(f, generate, 2) // of the watched component, at another endpoint
	poll(f, loaded(loadMetrics, lease(1), 10))
	f.Hit(1, 20, 5)
	f.Hit(2, 30, 6)
	f.Hit(977, 3, 1) // nobody knows it
	shows(t, f, "backend/load_metrics: 1 answering 3 events mean 10",
		"  1 up kv 10 hits 5/20", "  2 hits 6/30", "  977 hits 1/3")
}

func TestHitsOfUnknownWorkersGoToUnknown(t *testing.T) {
	f := fleetAt(backend, plenty)
	f.Hit(977, 3, 1)
	shows(t, f, "unknown/unknown: not counted 1 events", "  977 hits 1/3")
}

func TestHitsOfAnotherComponentAreForeign(t *testing.T) {
	for _, target := range []Target{backend, Target(generate)} {
		f := fleetAt(target, plenty)
		register(f, generate, 1)
		register(f, prefill, 2)
		f.Hit(1, 20, 5)
		f.Hit(2, 30, 6)
		f.Hit(2, 30, 6)
		shows(t, f, "backend/generate: 1 silent 1 events", "  1 down hits 5/20")
		testutil.Equal(t, "foreign events", f.Tally.ForeignEvents.Load(), uint64(2))
	}
}

func TestHitsMoveWhenTheirWorkerBecomesKnown(t *testing.T) {
	f := fleetAt(backend, plenty)
	f.Hit(1, 20, 5)
	f.Hit(2, 30, 6)
	shows(t, f, "unknown/unknown: not counted 2 events", "  1 hits 5/20", "  2 hits 6/30")
	register(f, generate, 1)
	register(f, prefill, 2) // turns out to be foreign
	f.Hit(1, 1, 1)
	shows(t, f, "backend/generate: 1 silent 1 events", "  1 down hits 6/21", "unknown/unknown: not counted 2 events")
	register(f, loadMetrics, 1)
	poll(f, loadless(generate, lease(1)), loaded(loadMetrics, lease(1), 10))
	shows(t, f, "backend/generate: not counted 1 events",
		"backend/load_metrics: 1 answering mean 10", "  1 up kv 10 hits 6/21",
		"unknown/unknown: not counted 2 events")
}

func TestHitsStayWhereTheyAreWhileTheirWorkerIsSilent(t *testing.T) {
	f := fleetAt(backend, plenty)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	poll(f, loaded(loadMetrics, lease(1), 10))
	f.Hit(1, 20, 5)
	poll(f)
	poll(f)
	shows(t, f, "backend/load_metrics: 1 silent 1 events", "  1 down hits 5/20")

	// Nor do they move when its lease is lost and its keys come back one by one.
	deregister(f, loadMetrics, 1)
	deregister(f, generate, 1)
	shows(t, f, "backend/load_metrics: 1 events", "  1 hits 5/20")
	register(f, generate, 1)
	shows(t, f, "backend/generate: 1 silent", "  1 down", "backend/load_metrics: 1 events", "  1 hits 5/20")
	register(f, loadMetrics, 1)
	shows(t, f, "backend/generate: 1 silent", "  1 down", "backend/load_metrics: 1 silent 1 events", "  1 down hits 5/20")
}

func TestHitsGoToTheFirstOfManyEndpoints(t *testing.T) {
	f := fleetAt(backend, plenty)
	register(f, loadMetrics, 1)
	register(f, generate2, 1)
	register(f, generate, 1)
	f.Hit(1, 20, 5)
	shows(t, f, "backend/generate: 1 silent 1 events", "  1 down hits 5/20",
		"backend/generate2: 1 silent", "  1 down", "backend/load_metrics: 1 silent", "  1 down")

	// Of those that have carried a load again the first, whatever becomes of its answers.
	poll(f, loaded(loadMetrics, lease(1), 30), loaded(generate2, lease(1), 20), loadless(generate, lease(1)))
	poll(f, loaded(loadMetrics, lease(1), 30), malformed(generate2, lease(1)), loadless(generate, lease(1)))
	shows(t, f, "backend/generate: not counted 1 events",
		"backend/generate2: 1 malformed", "  1 up hits 5/20",
		"backend/load_metrics: 1 answering mean 30", "  1 up kv 30")
	poll(f, loaded(loadMetrics, lease(1), 30))
	poll(f, loaded(loadMetrics, lease(1), 30))
	shows(t, f, "backend/generate: not counted 1 events",
		"backend/generate2: 1 silent", "  1 down hits 5/20",
		"backend/load_metrics: 1 answering mean 30", "  1 up kv 30")
}

func TestHitsOfAWorkerThatWasForeignAreForgottenWithIt(t *testing.T) {
	f := fleetAt(backend, plenty)
	f.Hit(1, 20, 5)
	register(f, prefill, 1)
	deregister(f, prefill, 1)
	shows(t, f, "unknown/unknown: not counted 1 events")
	f.Hit(1, 3, 1)
	shows(t, f, "unknown/unknown: not counted 2 events", "  1 hits 1/3")
}

func TestCountersOfARegisteredWorkerNeverExpire(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	f.Hit(1, 20, 5)
	after(f, time.Hour)
	shows(t, f, "backend/generate: 1 answering 1 events mean 10", "  1 up kv 10 hits 5/20")
	poll(f)
	poll(f)
	after(f, 2*time.Hour)
	shows(t, f, "backend/generate: 1 silent 1 events", "  1 down hits 5/20")
}

func TestCountersOfAnAnsweringWorkerNeverExpire(t *testing.T) {
	f := New(Target(generate), plenty, false)
	f.Advance(start)
	f.Hit(1, 20, 5)
	for i := range 60 {
		after(f, time.Duration(i)*time.Minute)
		poll(f, loaded(generate, lease(1), 10))
	}
	shows(t, f, "backend/generate: 1 unregistered 1 events mean 10", "  1 up kv 10 hits 5/20")
	poll(f)
	poll(f)
	after(f, time.Hour)
	shows(t, f, "backend/generate: 1 events")
}

func TestCountersOfOthersExpireTogetherTenMinutesAfterTheLastEvent(t *testing.T) {
	f := fleetAt(Target(generate), plenty)
	register(f, generate, 1)
	f.Hit(1, 20, 5)
	f.Hit(977, 3, 1)
	deregister(f, generate, 1)
	after(f, 5*time.Minute)
	f.Hit(977, 4, 0)
	after(f, 10*time.Minute-time.Second)
	shows(t, f, "backend/generate: 3 events", "  1 hits 5/20", "  977 hits 1/7")
	after(f, 10*time.Minute)
	shows(t, f, "backend/generate: 3 events", "  977 hits 1/7")
	after(f, 15*time.Minute)
	shows(t, f, "backend/generate: 3 events")

	f.Hit(977, 2, 2) // starts again
	register(f, generate, 1)
	shows(t, f, "backend/generate: 1 silent 4 events", "  1 down", "  977 hits 2/2")
}

func TestCountersGoWithAWorkerThatLeavesLongAfterItsLastEvent(t *testing.T) {
	f := fleetAt(Target(generate), plenty)
	register(f, generate, 1)
	f.Hit(1, 20, 5)
	after(f, time.Hour)
	deregister(f, generate, 1)
	after(f, time.Hour+time.Second)
	shows(t, f, "backend/generate: 1 events")
}

func TestCountersOfAWorkerThatReturnsInTimeGoOn(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1)
	f.Hit(1, 20, 5)
	deregister(f, generate, 1)
	after(f, 9*time.Minute)
	f.Hit(1, 1, 1) // on its way when the worker left
	shows(t, f, "backend/generate: 2 events", "  1 hits 6/21")
	register(f, generate, 1)
	after(f, time.Hour)
	shows(t, f, "backend/generate: 1 silent 2 events", "  1 down hits 6/21")
}
