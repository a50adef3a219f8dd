package fleet

import (
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestRegistryWorkerIsSilentUntilReply(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	poll(f, loaded(generate, lease(1), 10))
	wantShown(t, f, "backend/generate: 1 answering mean 10", "  1 up kv 10")
}

func TestRegistryDeregisteredWorkerIsGone(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 2)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, lease(2), 20))
	deregister(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 answering mean 20", "  2 up kv 20")
}

func TestRegistryRepliesAfterDeregistration(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 2)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, lease(2), 20))
	deregister(f, generate, 1)

	f.RecordPollReply(loaded(generate, lease(1), 11))
	wantShown(t, f, "backend/generate: 1 answering 1 unregistered mean 20", "  2 up kv 20")
	poll(f, loaded(generate, lease(1), 12), loaded(generate, lease(2), 20))
	wantShown(t, f, "backend/generate: 1 answering 1 unregistered mean 20", "  2 up kv 20")

	register(f, generate, 1)
	wantShown(t, f, "backend/generate: 2 answering mean 16", "  1 up kv 12", "  2 up kv 20")
}

func TestRegistryReturningWorkerIsSilent(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	deregister(f, generate, 1)
	register(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
}

func TestRegistryUnregisteredWorkerIsForgotten(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 2)
	deregister(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, lease(2), 20))
	poll(f, loaded(generate, lease(2), 20))
	wantShown(t, f, "backend/generate: 1 answering 1 unregistered mean 20", "  2 up kv 20")
	poll(f, loaded(generate, lease(2), 20))
	wantShown(t, f, "backend/generate: 1 answering mean 20", "  2 up kv 20")
}

func TestRegistryReplyBeforeRegistration(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	poll(f, loaded(generate, lease(1), 10))
	wantShown(t, f, "backend/generate: 1 unregistered")
	register(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 answering mean 10", "  1 up kv 10")
}

func TestRegistryDeregistersOneEndpointOfTwo(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	register(f, loadMetrics, 1)
	poll(f, loaded(generate, lease(1), 10), loaded(loadMetrics, lease(1), 30))
	deregister(f, generate, 1)
	wantShown(t, f, "backend/generate:", "backend/load_metrics: 1 answering mean 30", "  1 up kv 30")
}

func TestRegistryRegisterIsIdempotent(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 1)
	deregister(f, generate, 1)
	wantShown(t, f)
	deregister(f, generate, 1, 2)
	wantShown(t, f)
}

func TestRegistryShowsOnlyTheTarget(t *testing.T) {
	all := []Endpoint{generate, generate2, loadMetrics, prefill}
	for _, c := range []struct {
		target Target
		want   []string
	}{
		{everything, []string{
			"backend/generate: 1 answering mean 10", "  1 up kv 10",
			"backend/generate2: 1 answering mean 20", "  1 up kv 20",
			"backend/load_metrics: 1 answering mean 30", "  1 up kv 30",
			"prefill/generate: 1 answering mean 40", "  1 up kv 40",
		}},
		{backend, []string{
			"backend/generate: 1 answering mean 10", "  1 up kv 10",
			"backend/generate2: 1 answering mean 20", "  1 up kv 20",
			"backend/load_metrics: 1 answering mean 30", "  1 up kv 30",
		}},
		{Target(generate), []string{"backend/generate: 1 answering mean 10", "  1 up kv 10"}},
		{Target{Component: "backend", Name: "gen"}, []string{"backend/gen:"}},
	} {
		t.Run(Endpoint(c.target).String(), func(t *testing.T) {
			f := newFleet(c.target, largeLimit)
			var answers []PollReply
			for i, e := range all {
				register(f, e, 1)
				answers = append(answers, loaded(e, lease(1), uint64(10*(i+1))))
			}
			poll(f, answers...)
			wantShown(t, f, c.want...)
		})
	}
}

func TestRegistrySyncReplacesEverything(t *testing.T) {
	f := newFleet(backend, largeLimit)
	register(f, generate, 1, 2)
	register(f, loadMetrics, 1)
	register(f, prefill, 3)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, lease(2), 20), loaded(loadMetrics, lease(1), 30))

	f.Sync(listing([]Instance{{generate, 2}, {loadMetrics, 1}, {generate, 4}, {prefill, 5}}...))
	wantShown(t, f,
		"backend/generate: 1 answering 1 silent mean 20", "  2 up kv 20", "  4 down",
		"backend/load_metrics: 1 answering mean 30", "  1 up kv 30")
	testutil.Equal(t, "prefill worker 3 is registered", f.IsRegistered(Instance{prefill, 3}), false)
	testutil.Equal(t, "prefill worker 5 is registered", f.IsRegistered(Instance{prefill, 5}), true)

	f.Sync(Listing{})
	wantShown(t, f, "backend/generate:", "backend/load_metrics:")
	testutil.Equal(t, "registered", f.RegisteredEndpoints(), []Endpoint{})
}

func TestRegistrySyncedAfterFirstSync(t *testing.T) {
	synced := func(f *Fleet) bool {
		select {
		case <-f.Synced():
			return true
		default:
			return false
		}
	}
	f := New(Target(generate), largeLimit, true)
	testutil.Equal(t, "synced before Sync", synced(f), false)
	testutil.Equal(t, "endpoints whose workers are counted before Sync", len(f.Snapshot().Endpoints), 0)
	f.Sync(Listing{})
	f.Sync(Listing{})
	testutil.Equal(t, "endpoints after Sync", len(f.Snapshot().Endpoints), 1)
	testutil.Equal(t, "synced after Sync", synced(f), true)
	testutil.Equal(t, "synced without a registry", synced(New(everything, largeLimit, false)), true)
}

func TestRegistryListsAllEndpoints(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	register(f, prefill, 1, 2)
	register(f, loadMetrics, 1)
	register(f, generate, 3)
	deregister(f, generate, 3)
	f.RecordPollReply(loaded(generate, lease(3), 10)) // answers, but its key is deleted
	testutil.Equal(t, "registered", f.RegisteredEndpoints(), []Endpoint{loadMetrics, prefill})
	testutil.Equal(t, "watched", f.Target(), Target(generate))
	for in, want := range map[Instance]bool{{prefill, 1}: true, {loadMetrics, 2}: false, {generate, 3}: false, {generate, 9}: false} {
		testutil.Equal(t, in.String(), f.IsRegistered(in), want)
	}
}
