package fleet

import (
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

func wantAllRefused(t *testing.T, f *Fleet, want uint64) {
	t.Helper()
	checkInvariants(t, f)
	testutil.Equal(t, "over limit", f.Stats.AllRefused(), want)
}

func TestWorkerLimitCountsRefused(t *testing.T) {
	f := newFleet(everything, 2)
	register(f, generate, 1, 2)
	wantAllRefused(t, f, 0)
	register(f, generate, 3)
	wantAllRefused(t, f, 1)
	f.RecordHit(977, 3, 1)
	f.RecordHit(977, 3, 1)
	wantAllRefused(t, f, 3)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, static("a"), 20))
	wantAllRefused(t, f, 4)
	wantShown(t, f, "backend/generate: 1 answering 1 silent mean 10", "  1 up kv 10", "  2 down")
}

func TestWorkerLimitServesKnownWorkers(t *testing.T) {
	f := newFleet(everything, 1)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	f.RecordHit(1, 20, 5)
	f.Sync(listing([]Instance{{generate, 1}}...))
	wantAllRefused(t, f, 0)
	wantShown(t, f, "backend/generate: 1 answering 1 events mean 10", "  1 up kv 10 hits 5/20")
}

func TestWorkerLimitFreesRoomOfDeregistered(t *testing.T) {
	f := newFleet(everything, 2)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	deregister(f, generate, 1)
	register(f, generate, 2)
	deregister(f, generate, 2)
	deregister(f, loadMetrics, 1)
	register(f, generate, 3, 4)
	wantAllRefused(t, f, 0)
	f.Sync(listing([]Instance{{generate, 5}, {generate, 6}}...))
	wantAllRefused(t, f, 0)
	wantShown(t, f, "backend/generate: 2 silent", "  5 down", "  6 down")
}

func TestWorkerLimitEvictsUnregisteredHits(t *testing.T) {
	f := newFleet(Target(generate), 2)
	f.RecordHit(976, 3, 1)
	f.RecordHit(977, 3, 1)
	register(f, generate, 1)
	wantAllRefused(t, f, 1)
	register(f, generate, 2)
	wantAllRefused(t, f, 2)
	register(f, generate, 3)
	wantAllRefused(t, f, 3)
	wantShown(t, f, "backend/generate: 2 silent 2 events", "  1 down", "  2 down")
}

func TestWorkerLimitEvictsUnregisteredReplies(t *testing.T) {
	f := newFleet(Target(generate), 1)
	poll(f, loaded(generate, lease(9), 10))
	wantShown(t, f, "backend/generate: 1 unregistered")
	register(f, generate, 1)
	wantAllRefused(t, f, 1)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
}

func TestWorkerLimitCountsWorkersNotEndpoints(t *testing.T) {
	f := newFleet(everything, 1)
	f.RecordHit(1, 20, 5)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	wantAllRefused(t, f, 0)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down hits 5/20", "backend/load_metrics: 1 silent", "  1 down", "unknown/unknown: not counted 1 events")
}

func TestWorkerLimitOnEndpointsOfOneWorker(t *testing.T) {
	f := newFleet(everything, largeLimit)
	for i := range 64 + 3 {
		register(f, Endpoint{Component: "c", Name: fmt.Sprint(i)}, 1)
	}
	wantAllRefused(t, f, 3)
	testutil.Equal(t, "attachments", len(f.workers.get(lease(1)).attachments), 64)
}

func TestWorkerLimitNeedsSyncWhenRoomIsFreed(t *testing.T) {
	f := newFleet(everything, 1)
	register(f, generate, 1)
	register(f, generate, 2)
	testutil.Equal(t, "needs sync while full", f.NeedsSync(), false)
	f.Deregister(keyOf(Instance{Endpoint: generate, ID: 1}), Instance{Endpoint: generate, ID: 1})
	testutil.Equal(t, "needs sync with room", f.NeedsSync(), true)
	f.Sync(listing([]Instance{{Endpoint: generate, ID: 2}}...))
	testutil.Equal(t, "needs sync after a sync", f.NeedsSync(), false)
	wantShown(t, f, "backend/generate: 1 silent", "  2 down")
}

func TestWorkerLimitKeepsStaticWorkers(t *testing.T) {
	f := newFleet(everything, 2)
	poll(f, loaded(generate, static("a"), 10), loaded(generate, static("b"), 20))
	register(f, generate, 1)
	wantAllRefused(t, f, 1)
	wantShown(t, f, "backend/generate: 2 unregistered mean 15", "  a up kv 10", "  b up kv 20")
}

func TestWorkerLimitIsFreedByExpiry(t *testing.T) {
	f := newFleet(Target(generate), 100)
	for id := range uint64(1000) {
		f.RecordHit(id, 1, 0)
	}
	wantAllRefused(t, f, 900)
	after(f, retention)
	wantAllRefused(t, f, 900)
	testutil.Equal(t, "workers", f.workers.len(), 0)
	f.RecordHit(5000, 1, 0)
	wantAllRefused(t, f, 900)
	wantShown(t, f, "backend/generate: 101 events", "  5000 hits 0/1")
	after(f, 2*retention+time.Second)
	testutil.Equal(t, "workers", f.workers.len(), 0)
}
