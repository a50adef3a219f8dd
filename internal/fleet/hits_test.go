package fleet

import (
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

func TestHitsCountForEndpointWithLoad(t *testing.T) {
	f := newFleet(backend, largeLimit)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	poll(f, loadless(generate, lease(1)), loaded(loadMetrics, lease(1), 10))
	f.RecordHit(1, 20, 5)
	f.RecordHit(1, 2, 0)
	wantShown(t, f, "backend/load_metrics: 1 answering 2 events mean 10", "  1 up kv 10 hits 5/22")
}

func TestHitsAreAbsentBeforeFirstEvent(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	testutil.Equal(t, "hits", f.Snapshot().Workers[0].Hits, Opt[Hits]{})
	f.RecordHit(1, 0, 0)
	testutil.Equal(t, "hits after an event of zeros", f.Snapshot().Workers[0].Hits, Some(Hits{Events: 1}))
}

func TestHitsOfNamedTargetCountForIt(t *testing.T) {
	f := newFleet(Target(loadMetrics), largeLimit)
	register(f, loadMetrics, 1)
	register(f, generate, 2) // of the watched component, at another endpoint
	poll(f, loaded(loadMetrics, lease(1), 10))
	f.RecordHit(1, 20, 5)
	f.RecordHit(2, 30, 6)
	f.RecordHit(977, 3, 1) // an unknown id
	wantShown(t, f, "backend/load_metrics: 1 answering 3 events mean 10",
		"  1 up kv 10 hits 5/20", "  2 hits 6/30", "  977 hits 1/3")
}

func TestHitsOfUnknownWorkerCountForUnknown(t *testing.T) {
	f := newFleet(backend, largeLimit)
	f.RecordHit(977, 3, 1)
	wantShown(t, f, "unknown/unknown: not counted 1 events", "  977 hits 1/3")
}

func TestHitsOfOtherComponentAreForeign(t *testing.T) {
	for _, target := range []Target{backend, Target(generate)} {
		f := newFleet(target, largeLimit)
		register(f, generate, 1)
		register(f, prefill, 2)
		f.RecordHit(1, 20, 5)
		f.RecordHit(2, 30, 6)
		f.RecordHit(2, 30, 6)
		wantShown(t, f, "backend/generate: 1 silent 1 events", "  1 down hits 5/20")
		testutil.Equal(t, "foreign events", f.Stats.ForeignEvents.Load(), uint64(2))
	}
}

func TestHitsMoveWhenWorkerBecomesKnown(t *testing.T) {
	f := newFleet(backend, largeLimit)
	f.RecordHit(1, 20, 5)
	f.RecordHit(2, 30, 6)
	wantShown(t, f, "unknown/unknown: not counted 2 events", "  1 hits 5/20", "  2 hits 6/30")
	register(f, generate, 1)
	register(f, prefill, 2) // is not watched
	f.RecordHit(1, 1, 1)
	wantShown(t, f, "backend/generate: 1 silent 1 events", "  1 down hits 6/21", "unknown/unknown: not counted 2 events")
	register(f, loadMetrics, 1)
	poll(f, loadless(generate, lease(1)), loaded(loadMetrics, lease(1), 10))
	wantShown(t, f, "backend/generate: not counted 1 events",
		"backend/load_metrics: 1 answering mean 10", "  1 up kv 10 hits 6/21",
		"unknown/unknown: not counted 2 events")
}

func TestHitsStayWhileWorkerIsSilent(t *testing.T) {
	f := newFleet(backend, largeLimit)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	poll(f, loaded(loadMetrics, lease(1), 10))
	f.RecordHit(1, 20, 5)
	poll(f)
	poll(f)
	wantShown(t, f, "backend/load_metrics: 1 silent 1 events", "  1 down hits 5/20")

	// They do not move either when its lease expires and its keys return one by one.
	deregister(f, loadMetrics, 1)
	deregister(f, generate, 1)
	wantShown(t, f, "backend/load_metrics: 1 events", "  1 hits 5/20")
	register(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down", "backend/load_metrics: 1 events", "  1 hits 5/20")
	register(f, loadMetrics, 1)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down", "backend/load_metrics: 1 silent 1 events", "  1 down hits 5/20")
}

func TestHitsCountForFirstEndpoint(t *testing.T) {
	f := newFleet(backend, largeLimit)
	register(f, loadMetrics, 1)
	register(f, generate2, 1)
	register(f, generate, 1)
	f.RecordHit(1, 20, 5)
	wantShown(t, f, "backend/generate: 1 silent 1 events", "  1 down hits 5/20",
		"backend/generate2: 1 silent", "  1 down", "backend/load_metrics: 1 silent", "  1 down")

	// Of the endpoints that have had a load the first counts, whatever its replies are.
	poll(f, loaded(loadMetrics, lease(1), 30), loaded(generate2, lease(1), 20), loadless(generate, lease(1)))
	poll(f, loaded(loadMetrics, lease(1), 30), malformed(generate2, lease(1)), loadless(generate, lease(1)))
	wantShown(t, f, "backend/generate: not counted 1 events",
		"backend/generate2: 1 malformed", "  1 up hits 5/20",
		"backend/load_metrics: 1 answering mean 30", "  1 up kv 30")
	poll(f, loaded(loadMetrics, lease(1), 30))
	poll(f, loaded(loadMetrics, lease(1), 30))
	wantShown(t, f, "backend/generate: not counted 1 events",
		"backend/generate2: 1 silent", "  1 down hits 5/20",
		"backend/load_metrics: 1 answering mean 30", "  1 up kv 30")
}

func TestHitsOfForeignWorkerAreForgotten(t *testing.T) {
	f := newFleet(backend, largeLimit)
	f.RecordHit(1, 20, 5)
	register(f, prefill, 1)
	deregister(f, prefill, 1)
	wantShown(t, f, "unknown/unknown: not counted 1 events")
	f.RecordHit(1, 3, 1)
	wantShown(t, f, "unknown/unknown: not counted 2 events", "  1 hits 1/3")
}

func TestHitsOfRegisteredWorkerNeverExpire(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	f.RecordHit(1, 20, 5)
	after(f, time.Hour)
	wantShown(t, f, "backend/generate: 1 answering 1 events mean 10", "  1 up kv 10 hits 5/20")
	poll(f)
	poll(f)
	after(f, 2*time.Hour)
	wantShown(t, f, "backend/generate: 1 silent 1 events", "  1 down hits 5/20")
}

func TestHitsOfAnsweringWorkerNeverExpire(t *testing.T) {
	f := New(Target(generate), largeLimit, false)
	f.Advance(start)
	f.RecordHit(1, 20, 5)
	for i := range 60 {
		after(f, time.Duration(i)*time.Minute)
		poll(f, loaded(generate, lease(1), 10))
	}
	wantShown(t, f, "backend/generate: 1 unregistered 1 events mean 10", "  1 up kv 10 hits 5/20")
	poll(f)
	poll(f)
	after(f, time.Hour)
	wantShown(t, f, "backend/generate: 1 events")
}

func TestHitsExpireTenMinutesAfterLastEvent(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	register(f, generate, 1)
	f.RecordHit(1, 20, 5)
	f.RecordHit(977, 3, 1)
	deregister(f, generate, 1)
	after(f, 5*time.Minute)
	f.RecordHit(977, 4, 0)
	after(f, 10*time.Minute-time.Second)
	wantShown(t, f, "backend/generate: 3 events", "  1 hits 5/20", "  977 hits 1/7")
	after(f, 10*time.Minute)
	wantShown(t, f, "backend/generate: 3 events", "  977 hits 1/7")
	after(f, 15*time.Minute)
	wantShown(t, f, "backend/generate: 3 events")

	f.RecordHit(977, 2, 2) // starts from zero
	register(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 silent 4 events", "  1 down", "  977 hits 2/2")
}

func TestHitsExpireOnLateDeregistration(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	register(f, generate, 1)
	f.RecordHit(1, 20, 5)
	after(f, time.Hour)
	deregister(f, generate, 1)
	after(f, time.Hour+time.Second)
	wantShown(t, f, "backend/generate: 1 events")
}

func TestHitsContinueWhenWorkerReturns(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	f.RecordHit(1, 20, 5)
	deregister(f, generate, 1)
	after(f, 9*time.Minute)
	f.RecordHit(1, 1, 1) // was on its way when the worker left
	wantShown(t, f, "backend/generate: 2 events", "  1 hits 6/21")
	register(f, generate, 1)
	after(f, time.Hour)
	wantShown(t, f, "backend/generate: 1 silent 2 events", "  1 down hits 6/21")
}
