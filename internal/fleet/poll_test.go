package fleet

import (
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestPollTwoMissesForgetLoad(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	poll(f)
	wantShown(t, f, "backend/generate: 1 answering mean 10", "  1 down kv 10")
	poll(f)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	poll(f)
	poll(f, loaded(generate, lease(1), 20))
	wantShown(t, f, "backend/generate: 1 answering mean 20", "  1 up kv 20")
}

func TestPollReplyResetsMisses(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	for range 3 {
		poll(f)
		poll(f, loaded(generate, lease(1), 10))
	}
	poll(f)
	wantShown(t, f, "backend/generate: 1 answering mean 10", "  1 down kv 10")
}

func TestPollAcceptsLateReply(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	poll(f)
	f.RecordPollReply(loaded(generate, lease(1), 20)) // reply to the poll that has ended
	wantShown(t, f, "backend/generate: 1 answering mean 20", "  1 up kv 20")
	poll(f)
	wantShown(t, f, "backend/generate: 1 answering mean 20", "  1 down kv 20")
}

func TestPollThatDoesNotCountIsNotMissed(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	for range 5 {
		f.BeginPoll()
		f.EndPoll(false)
	}
	wantShown(t, f, "backend/generate: 1 answering mean 10", "  1 up kv 10")
	poll(f)
	f.BeginPoll()
	f.EndPoll(false)
	wantShown(t, f, "backend/generate: 1 answering mean 10", "  1 down kv 10")
	poll(f)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
}

func TestPollSilentWorkerAffectsNoOther(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 2)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, lease(2), 20))
	for range 5 {
		poll(f, loaded(generate, lease(2), 30))
	}
	wantShown(t, f, "backend/generate: 1 answering 1 silent mean 30", "  1 down", "  2 up kv 30")
}

func TestPollShowsStaticWorkers(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, static("a"), 20), loaded(generate, static("b"), 60))
	wantShown(t, f, "backend/generate: 1 answering 2 unregistered mean 30", "  1 up kv 10", "  a up kv 20", "  b up kv 60")
	poll(f, loaded(generate, lease(1), 10), loaded(generate, static("b"), 60))
	poll(f, loaded(generate, lease(1), 10), loaded(generate, static("b"), 60))
	wantShown(t, f, "backend/generate: 1 answering 1 unregistered mean 35", "  1 up kv 10", "  b up kv 60")
}

func TestPollWithoutRegistryShowsAllWorkers(t *testing.T) {
	f := New(Target(generate), largeLimit, false)
	f.Advance(start)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, static("a"), 20), malformed(generate, lease(2)))
	wantShown(t, f, "backend/generate: 2 unregistered 1 malformed mean 15", "  1 up kv 10", "  2 up", "  a up kv 20")
}

func TestPollWorkerWithoutLoadIsNotCounted(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 2)
	poll(f, loaded(generate, lease(1), 10), loadless(generate, lease(2)), loadless(generate, static("a")))
	wantShown(t, f, "backend/generate: 1 answering mean 10", "  1 up kv 10")
	poll(f, loaded(generate, lease(1), 10), loaded(generate, lease(2), 20))
	wantShown(t, f, "backend/generate: 2 answering mean 15", "  1 up kv 10", "  2 up kv 20")
	poll(f, loaded(generate, lease(1), 10), loadless(generate, lease(2)))
	wantShown(t, f, "backend/generate: 1 answering mean 10", "  1 up kv 10")
}

func TestPollEndpointWithoutLoadIsNotShown(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 2)
	register(f, loadMetrics, 1, 2)
	poll(f, loadless(generate, lease(1)), loaded(loadMetrics, lease(1), 10))
	wantShown(t, f, "backend/load_metrics: 1 answering 1 silent mean 10", "  1 up kv 10", "  2 down")
	// It is still left out while its workers are silent.
	poll(f)
	poll(f)
	wantShown(t, f, "backend/load_metrics: 2 silent", "  1 down", "  2 down")
}

func TestPollMalformedLoadCountsEndpoint(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 2, 3)
	poll(f, loadless(generate, lease(1)))
	wantShown(t, f)
	poll(f, loadless(generate, lease(1)), malformed(generate, lease(2)))
	wantShown(t, f, "backend/generate: 1 silent 1 malformed", "  2 up", "  3 down")
}

func TestPollUnregisteredWithoutLoadIsNotTracked(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	poll(f, loadless(generate, lease(9)), loadless(generate, static("a")))
	testutil.Equal(t, "workers", f.workers.len(), 0)
}

func TestPollNamedEndpointWithoutLoadIsShown(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	register(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	poll(f, loadless(generate, lease(1)))
	wantShown(t, f, "backend/generate:")
}

func TestPollMalformedLoadAffectsNoOther(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 2, 3)
	answers := []PollReply{loaded(generate, lease(1), 10), loaded(generate, lease(2), 20), loaded(generate, lease(3), 30)}
	poll(f, answers...)
	answers[1] = malformed(generate, lease(2))
	poll(f, answers...)
	wantShown(t, f, "backend/generate: 2 answering 1 malformed mean 20", "  1 up kv 10", "  2 up", "  3 up kv 30")
	poll(f, answers[0], answers[2])
	poll(f, answers[0], answers[2])
	wantShown(t, f, "backend/generate: 2 answering 1 silent mean 20", "  1 up kv 10", "  2 down", "  3 up kv 30")
	poll(f, answers[0], loaded(generate, lease(2), 20), answers[2])
	wantShown(t, f, "backend/generate: 3 answering mean 20", "  1 up kv 10", "  2 up kv 20", "  3 up kv 30")
}

func TestPollMalformedReplyOfUnregistered(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	poll(f, malformed(generate, lease(1)))
	wantShown(t, f, "backend/generate: 1 unregistered")
}

func TestPollDropsRepliesOfOtherEndpoints(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	poll(f, loaded(generate2, lease(1), 10), loaded(prefill, lease(2), 20), malformed(generate2, static("a")))
	wantShown(t, f, "backend/generate:")
	testutil.Equal(t, "workers", f.workers.len(), 0)
}

func TestPollAnsweredByAllRegistered(t *testing.T) {
	f := newFleet(Target(generate), largeLimit)
	register(f, generate, 1, 2)
	register(f, loadMetrics, 3) // of the same component: it receives the same request
	register(f, prefill, 4)     // of another component
	testutil.Equal(t, "answered before the poll", f.PollAnswered(), false)
	f.BeginPoll()
	for _, step := range []struct {
		answer PollReply
		want   bool
	}{
		{loaded(generate, lease(1), 10), false},
		{loaded(generate, lease(1), 10), false}, // a second reply does not count
		{malformed(generate, lease(2)), false},
		{loaded(generate, lease(9), 10), false}, // of an unregistered worker
		{loadless(loadMetrics, lease(3)), true},
	} {
		f.RecordPollReply(step.answer)
		checkInvariants(t, f)
		testutil.Equal(t, "answered", f.PollAnswered(), step.want)
	}
	f.EndPoll(true)
	testutil.Equal(t, "answered after the poll", f.PollAnswered(), false)
}

func TestPollAwaitsOnlyWorkersFromItsStart(t *testing.T) {
	f := newFleet(backend, largeLimit)
	register(f, generate, 1, 2)
	register(f, prefill, 2) // worker 2 is in two components, of which one is polled
	f.BeginPoll()
	register(f, generate, 3)
	f.RecordPollReply(loaded(generate, lease(1), 10))
	testutil.Equal(t, "answered before worker 2", f.PollAnswered(), false)
	deregister(f, generate, 2)
	checkInvariants(t, f)
	testutil.Equal(t, "answered after worker 2 left", f.PollAnswered(), true)
}

func TestPollNotAnsweredWhenCountIsUnknown(t *testing.T) {
	t.Run("no worker is registered", func(t *testing.T) {
		f := newFleet(Target(generate), largeLimit)
		f.BeginPoll()
		testutil.Equal(t, "answered", f.PollAnswered(), false)
	})
	t.Run("without a registry", func(t *testing.T) {
		f := New(Target(generate), largeLimit, false)
		f.BeginPoll()
		f.RecordPollReply(loaded(generate, lease(1), 10))
		testutil.Equal(t, "answered", f.PollAnswered(), false)
	})
	t.Run("static workers", func(t *testing.T) {
		f := newFleet(Target(generate), largeLimit)
		register(f, generate, 1)
		f.BeginPoll()
		f.RecordPollReply(loaded(generate, lease(1), 10))
		testutil.Equal(t, "answered by the registered one", f.PollAnswered(), true)
		f.RecordPollReply(loaded(generate, static("a"), 10))
		testutil.Equal(t, "answered, with a static one", f.PollAnswered(), false)
		f.EndPoll(true)
		poll(f, loaded(generate, lease(1), 10))
		poll(f, loaded(generate, lease(1), 10))
		f.BeginPoll()
		f.RecordPollReply(loaded(generate, lease(1), 10))
		testutil.Equal(t, "answered after the static one has left", f.PollAnswered(), true)
	})
	t.Run("a worker has never answered", func(t *testing.T) {
		f := newFleet(Target(generate), largeLimit)
		register(f, generate, 1, 2)
		for range 3 {
			f.BeginPoll()
			f.RecordPollReply(loaded(generate, lease(1), 10))
			testutil.Equal(t, "answered", f.PollAnswered(), false)
			f.EndPoll(true)
		}
	})
}

func TestPollAwaitsEachComponentOfWorker(t *testing.T) {
	f := newFleet(everything, largeLimit)
	prefill := Endpoint{Component: "prefill", Name: "generate"}
	register(f, generate, 1)
	register(f, prefill, 1)
	f.BeginPoll()
	f.RecordPollReply(loaded(generate, lease(1), 10))
	testutil.Equal(t, "answered by one of two components", f.PollAnswered(), false)
	checkInvariants(t, f)
	f.RecordPollReply(loaded(prefill, lease(1), 20))
	testutil.Equal(t, "answered by both", f.PollAnswered(), true)
	checkInvariants(t, f)
}
