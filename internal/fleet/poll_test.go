package fleet

import (
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestOneMissedPollIsForgivenAndTwoInARowAreNot(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	poll(f)
	shows(t, f, "backend/generate: 1 answering mean 10", "  1 down kv 10")
	poll(f)
	shows(t, f, "backend/generate: 1 silent", "  1 down")
	poll(f)
	poll(f, loaded(generate, lease(1), 20))
	shows(t, f, "backend/generate: 1 answering mean 20", "  1 up kv 20")
}

func TestAnAnswerBetweenTwoMissesStartsTheCountAnew(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	for range 3 {
		poll(f)
		poll(f, loaded(generate, lease(1), 10))
	}
	poll(f)
	shows(t, f, "backend/generate: 1 answering mean 10", "  1 down kv 10")
}

func TestALateAnswerIsAnAnswer(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	poll(f)
	f.Report(loaded(generate, lease(1), 20)) // to the poll that has ended
	shows(t, f, "backend/generate: 1 answering mean 20", "  1 up kv 20")
	poll(f)
	shows(t, f, "backend/generate: 1 answering mean 20", "  1 down kv 20")
}

func TestAPollThatDoesNotCountIsNoMiss(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10))
	for range 5 {
		f.BeginPoll()
		f.EndPoll(false)
	}
	shows(t, f, "backend/generate: 1 answering mean 10", "  1 up kv 10")
	poll(f)
	f.BeginPoll()
	f.EndPoll(false)
	shows(t, f, "backend/generate: 1 answering mean 10", "  1 down kv 10")
	poll(f)
	shows(t, f, "backend/generate: 1 silent", "  1 down")
}

func TestASilentWorkerTakesNobodyWithIt(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1, 2)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, lease(2), 20))
	for range 5 {
		poll(f, loaded(generate, lease(2), 30))
	}
	shows(t, f, "backend/generate: 1 answering 1 silent mean 30", "  1 down", "  2 up kv 30")
}

func TestStaticWorkersAreShownAndToldApart(t *testing.T) {
	f := fleetAt(Target(generate), plenty)
	register(f, generate, 1)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, static("a"), 20), loaded(generate, static("b"), 60))
	shows(t, f, "backend/generate: 1 answering 2 unregistered mean 30", "  1 up kv 10", "  a up kv 20", "  b up kv 60")
	poll(f, loaded(generate, lease(1), 10), loaded(generate, static("b"), 60))
	poll(f, loaded(generate, lease(1), 10), loaded(generate, static("b"), 60))
	shows(t, f, "backend/generate: 1 answering 1 unregistered mean 35", "  1 up kv 10", "  b up kv 60")
}

func TestWithoutARegistryEverybodyIsShown(t *testing.T) {
	f := New(Target(generate), plenty, false)
	f.Advance(start)
	poll(f, loaded(generate, lease(1), 10), loaded(generate, static("a"), 20), malformed(generate, lease(2)))
	shows(t, f, "backend/generate: 2 unregistered 1 malformed mean 15", "  1 up kv 10", "  2 up", "  a up kv 20")
}

func TestAWorkerWithoutLoadIsNotCounted(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1, 2)
	poll(f, loaded(generate, lease(1), 10), loadless(generate, lease(2)), loadless(generate, static("a")))
	shows(t, f, "backend/generate: 1 answering mean 10", "  1 up kv 10")
	poll(f, loaded(generate, lease(1), 10), loaded(generate, lease(2), 20))
	shows(t, f, "backend/generate: 2 answering mean 15", "  1 up kv 10", "  2 up kv 20")
	poll(f, loaded(generate, lease(1), 10), loadless(generate, lease(2)))
	shows(t, f, "backend/generate: 1 answering mean 10", "  1 up kv 10")
}

func TestAnEndpointThatCarriesNoLoadIsLeftOut(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1, 2)
	register(f, loadMetrics, 1, 2)
	poll(f, loadless(generate, lease(1)), loaded(loadMetrics, lease(1), 10))
	shows(t, f, "backend/load_metrics: 1 answering 1 silent mean 10", "  1 up kv 10", "  2 down")
	// It stays left out while its workers are silent.
	poll(f)
	poll(f)
	shows(t, f, "backend/load_metrics: 2 silent", "  1 down", "  2 down")
}

func TestOneThatShouldCarryALoadMakesTheEndpointCount(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1, 2, 3)
	poll(f, loadless(generate, lease(1)))
	shows(t, f)
	poll(f, loadless(generate, lease(1)), malformed(generate, lease(2)))
	shows(t, f, "backend/generate: 1 silent 1 malformed", "  2 up", "  3 down")
}

func TestStrangersWithoutLoadAreNotTracked(t *testing.T) {
	f := fleetAt(Target(generate), plenty)
	poll(f, loadless(generate, lease(9)), loadless(generate, static("a")))
	testutil.Equal(t, "tracked", f.workers.len(), 0)
}

func TestAnEndpointThatCarriesNoLoadIsShownIfItIsNamed(t *testing.T) {
	f := fleetAt(Target(generate), plenty)
	register(f, generate, 1)
	shows(t, f, "backend/generate: 1 silent", "  1 down")
	poll(f, loadless(generate, lease(1)))
	shows(t, f, "backend/generate:")
}

func TestAMalformedLoadIsItsWorkersTroubleOnly(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1, 2, 3)
	answers := []Report{loaded(generate, lease(1), 10), loaded(generate, lease(2), 20), loaded(generate, lease(3), 30)}
	poll(f, answers...)
	answers[1] = malformed(generate, lease(2))
	poll(f, answers...)
	shows(t, f, "backend/generate: 2 answering 1 malformed mean 20", "  1 up kv 10", "  2 up", "  3 up kv 30")
	poll(f, answers[0], answers[2])
	poll(f, answers[0], answers[2])
	shows(t, f, "backend/generate: 2 answering 1 silent mean 20", "  1 up kv 10", "  2 down", "  3 up kv 30")
	poll(f, answers[0], loaded(generate, lease(2), 20), answers[2])
	shows(t, f, "backend/generate: 3 answering mean 20", "  1 up kv 10", "  2 up kv 20", "  3 up kv 30")
}

func TestAMalformedAnswerWithoutAKeyCountsAsUnregistered(t *testing.T) {
	f := fleetAt(Target(generate), plenty)
	poll(f, malformed(generate, lease(1)))
	shows(t, f, "backend/generate: 1 unregistered")
}

func TestAnswersForOtherEndpointsAreNotKept(t *testing.T) {
	f := fleetAt(Target(generate), plenty)
	poll(f, loaded(generate2, lease(1), 10), loaded(prefill, lease(2), 20), malformed(generate2, static("a")))
	shows(t, f, "backend/generate:")
	testutil.Equal(t, "tracked", f.workers.len(), 0)
}

func TestAPollIsAnsweredWhenEveryRegisteredWorkerHasAnswered(t *testing.T) {
	f := fleetAt(Target(generate), plenty)
	register(f, generate, 1, 2)
	register(f, loadMetrics, 3) // of the same component: it answers the same request
	register(f, prefill, 4)     // of another
	testutil.Equal(t, "answered before the poll", f.PollAnswered(), false)
	f.BeginPoll()
	for _, step := range []struct {
		answer Report
		want   bool
	}{
		{loaded(generate, lease(1), 10), false},
		{loaded(generate, lease(1), 10), false}, // twice is once
		{malformed(generate, lease(2)), false},
		{loaded(generate, lease(9), 10), false}, // a stranger
		{loadless(loadMetrics, lease(3)), true},
	} {
		f.Report(step.answer)
		audit(t, f)
		testutil.Equal(t, "answered", f.PollAnswered(), step.want)
	}
	f.EndPoll(true)
	testutil.Equal(t, "answered after the poll", f.PollAnswered(), false)
}

func TestAPollDoesNotWaitForWhoLeavesOrComesMeanwhile(t *testing.T) {
	f := fleetAt(backend, plenty)
	register(f, generate, 1, 2)
	register(f, prefill, 2) // one worker of two components, of which one is polled
	f.BeginPoll()
	register(f, generate, 3)
	f.Report(loaded(generate, lease(1), 10))
	testutil.Equal(t, "answered before worker 2", f.PollAnswered(), false)
	deregister(f, generate, 2)
	audit(t, f)
	testutil.Equal(t, "answered after worker 2 left", f.PollAnswered(), true)
}

func TestAPollWaitsWhereNobodyKnowsHowManyAnswer(t *testing.T) {
	t.Run("nobody is registered", func(t *testing.T) {
		f := fleetAt(Target(generate), plenty)
		f.BeginPoll()
		testutil.Equal(t, "answered", f.PollAnswered(), false)
	})
	t.Run("without a registry", func(t *testing.T) {
		f := New(Target(generate), plenty, false)
		f.BeginPoll()
		f.Report(loaded(generate, lease(1), 10))
		testutil.Equal(t, "answered", f.PollAnswered(), false)
	})
	t.Run("static workers", func(t *testing.T) {
		f := fleetAt(Target(generate), plenty)
		register(f, generate, 1)
		f.BeginPoll()
		f.Report(loaded(generate, lease(1), 10))
		testutil.Equal(t, "answered by the registered one", f.PollAnswered(), true)
		f.Report(loaded(generate, static("a"), 10))
		testutil.Equal(t, "answered, with a static one", f.PollAnswered(), false)
		f.EndPoll(true)
		poll(f, loaded(generate, lease(1), 10))
		poll(f, loaded(generate, lease(1), 10))
		f.BeginPoll()
		f.Report(loaded(generate, lease(1), 10))
		testutil.Equal(t, "answered when the static one has gone", f.PollAnswered(), true)
	})
	t.Run("one has never answered", func(t *testing.T) {
		f := fleetAt(Target(generate), plenty)
		register(f, generate, 1, 2)
		for range 3 {
			f.BeginPoll()
			f.Report(loaded(generate, lease(1), 10))
			testutil.Equal(t, "answered", f.PollAnswered(), false)
			f.EndPoll(true)
		}
	})
}

func TestAPollWaitsForEachComponentOfAWorker(t *testing.T) {
	f := fleetAt(everything, plenty)
	prefill := Endpoint{Component: "prefill", Name: "generate"}
	register(f, generate, 1)
	register(f, prefill, 1)
	f.BeginPoll()
	f.Report(loaded(generate, lease(1), 10))
	testutil.Equal(t, "answered by one of two components", f.PollAnswered(), false)
	audit(t, f)
	f.Report(loaded(prefill, lease(1), 20))
	testutil.Equal(t, "answered by both", f.PollAnswered(), true)
	audit(t, f)
}
