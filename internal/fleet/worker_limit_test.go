package fleet

import (
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

func overLimit(t *testing.T, f *Fleet, want uint64) {
	t.Helper()
	audit(t, f)
	testutil.Equal(t, "over limit", f.Tally.OverLimit(), want)
}

func TestWhatDoesNotFitIsCounted(t *testing.T) {
	f := fleetAt(everything, 2)
	register(f, generate, 1, 2)
	overLimit(t, f, 0)
	register(f, generate, 3)
	overLimit(t, f, 1)
	f.Hit(977, 3, 1)
	f.Hit(977, 3, 1)
	overLimit(t, f, 3)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, static("a"), 20))
	overLimit(t, f, 4)
	shows(t, f, "backend/generate: 1 answering 1 silent mean 10", "  1 up kv 10", "  2 down")
}

func TestKnownWorkersAreServedAtTheLimit(t *testing.T) {
	f := fleetAt(everything, 1)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	f.Hit(1, 20, 5)
	f.Sync(listing([]Instance{{generate, 1}}...))
	overLimit(t, f, 0)
	shows(t, f, "backend/generate: 1 answering 1 events mean 10", "  1 up kv 10 hits 5/20")
}

func TestThereIsRoomAgainWhenAWorkerLeaves(t *testing.T) {
	f := fleetAt(everything, 2)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	deregister(f, generate, 1)
	register(f, generate, 2)
	deregister(f, generate, 2)
	deregister(f, loadMetrics, 1)
	register(f, generate, 3, 4)
	overLimit(t, f, 0)
	f.Sync(listing([]Instance{{generate, 5}, {generate, 6}}...))
	overLimit(t, f, 0)
	shows(t, f, "backend/generate: 2 silent", "  5 down", "  6 down")
}

func TestARegisteringWorkerPushesOutAStranger(t *testing.T) {
	f := fleetAt(Target(generate), 2)
	f.Hit(976, 3, 1)
	f.Hit(977, 3, 1)
	register(f, generate, 1)
	overLimit(t, f, 1)
	register(f, generate, 2)
	overLimit(t, f, 2)
	register(f, generate, 3)
	overLimit(t, f, 3)
	shows(t, f, "backend/generate: 2 silent 2 events", "  1 down", "  2 down")
}

func TestARegisteringWorkerPushesOutOneThatOnlyAnswers(t *testing.T) {
	f := fleetAt(Target(generate), 1)
	poll(f, loaded(generate, lease(9), 10))
	shows(t, f, "backend/generate: 1 unregistered")
	register(f, generate, 1)
	overLimit(t, f, 1)
	shows(t, f, "backend/generate: 1 silent", "  1 down")
}

func TestAWorkerIsCountedOnceHoweverManyEndpointsItHas(t *testing.T) {
	f := fleetAt(everything, 1)
	f.Hit(1, 20, 5)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	overLimit(t, f, 0)
	shows(t, f, "backend/generate: 1 silent", "  1 down hits 5/20", "backend/load_metrics: 1 silent", "  1 down", "unknown/unknown: not counted 1 events")
}

func TestTheEndpointsOfOneWorkerAreBounded(t *testing.T) {
	f := fleetAt(everything, plenty)
	for i := range 64 + 3 {
		register(f, Endpoint{Component: "c", Name: fmt.Sprint(i)}, 1)
	}
	overLimit(t, f, 3)
	testutil.Equal(t, "attachments", len(f.workers.of(lease(1)).seats), 64)
}

func TestTheRegistryIsWantedAgainWhenThereIsRoomForWhoWasTurnedAway(t *testing.T) {
	f := fleetAt(everything, 1)
	register(f, generate, 1)
	register(f, generate, 2)
	testutil.Equal(t, "wanted while full", f.WantsSync(), false)
	f.Deregister(keyOf(Instance{Endpoint: generate, ID: 1}), Instance{Endpoint: generate, ID: 1})
	testutil.Equal(t, "wanted with room", f.WantsSync(), true)
	f.Sync(listing([]Instance{{Endpoint: generate, ID: 2}}...))
	testutil.Equal(t, "wanted after it was listed", f.WantsSync(), false)
	shows(t, f, "backend/generate: 1 silent", "  2 down")
}

func TestARegisteringWorkerPushesOutNoStaticWorker(t *testing.T) {
	f := fleetAt(everything, 2)
	poll(f, loaded(generate, static("a"), 10), loaded(generate, static("b"), 20))
	register(f, generate, 1)
	overLimit(t, f, 1)
	shows(t, f, "backend/generate: 2 unregistered mean 15", "  a up kv 10", "  b up kv 20")
}

func TestStrangersFillTheLimitOnlyUntilTheyExpire(t *testing.T) {
	f := fleetAt(Target(generate), 100)
	for id := range uint64(1000) {
		f.Hit(id, 1, 0)
	}
	overLimit(t, f, 900)
	after(f, retention)
	overLimit(t, f, 900)
	testutil.Equal(t, "tracked", f.workers.len(), 0)
	f.Hit(5000, 1, 0)
	overLimit(t, f, 900)
	shows(t, f, "backend/generate: 101 events", "  5000 hits 0/1")
	after(f, 2*retention+time.Second)
	testutil.Equal(t, "tracked", f.workers.len(), 0)
}
