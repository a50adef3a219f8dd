package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// permutations calls f with the numbers below n in every order.
func permutations(n int, f func(order []int)) {
	var next func(order, left []int)
	next = func(order, left []int) {
		if len(left) == 0 {
			f(order)
		}
		for i := range left {
			rest := append(append([]int{}, left[:i]...), left[i+1:]...)
			next(append(append([]int{}, order...), left[i]), rest)
		}
	}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	next(nil, all)
}

// TestTheOrderOfWhatIsToldDoesNotMatter has events, model card, registration and another
// worker's registration at the same endpoint in every order.
func TestTheOrderOfWhatIsToldDoesNotMatter(t *testing.T) {
	for name, from := range map[string]Endpoint{"named": generate, "of a component": {Component: "backend"}, "not named": {}} {
		steps := []func(f *Fleet){
			func(f *Fleet) { publishing(f, generate, 1) },
			func(f *Fleet) { card(f, generate, 1) },
			func(f *Fleet) { publishedAt(f, from, 1, 40) },
			func(f *Fleet) { f.Pass(Origin{Endpoint: from, Worker: 1}, Pass{Counter: 1, Seconds: 0.5, Running: 3}) },
			func(f *Fleet) { f.Hit(1, 20, 5) },
			func(f *Fleet) { publishing(f, generate, 2) },
		}
		want := ""
		permutations(len(steps), func(order []int) {
			f := fleetAt(everything, plenty)
			for _, i := range order {
				steps[i](f)
				audit(t, f)
			}
			s := f.Snapshot()
			s.Endpoints = s.Endpoints[:1]
			s.Endpoints[0].HitEvents = 0 // they stay where they were booked, which may be elsewhere
			w := s.Workers[0]
			got := shown(s) + fmt.Sprintln(w.State, w.Model, w.Load, w.Passes.V.Count, w.Passes.V.Seconds.Sum)
			if want == "" {
				want = got
				if !strings.Contains(got, "  1 up kv 40 hits 5/20") {
					t.Errorf("%s: it is shown as %s", name, got)
				}
			}
			if got != want {
				t.Errorf("%s, in the order %v: it is shown as %s, want %s", name, order, got, want)
			}
		})
	}
}

func TestAnEventMakesNoEndpoint(t *testing.T) {
	f := fleetAt(everything, plenty)
	publishedAt(f, generate, 1, 40)
	f.Pass(Origin{Endpoint: generate, Worker: 1}, Pass{Counter: 1, Seconds: 0.5})
	f.Report(loaded(prefill, lease(2), 5), malformed(prefill, lease(2)), loadless(prefill, lease(2)))
	shows(t, f)
	testutil.Equal(t, "workers", f.workers.len(), 1)
	testutil.Equal(t, "endpoints", f.endpoints[generate] != nil || f.endpoints[prefill] != nil, false)
	testutil.Equal(t, "answers of no use", f.Tally.Rejected(stats.StatsReply, stats.NotRegistered), 2)
	f.Hit(1, 20, 5)
	shows(t, f, "unknown/unknown: not counted 1 events", "  1 hits 5/20")
	publishing(f, generate, 1)
	shows(t, f, "backend/generate: 1 answering", "  1 up kv 40 hits 5/20", "unknown/unknown: not counted 1 events")
	testutil.Equal(t, "passes", f.Snapshot().Workers[0].Passes.V.Count, 1)
}

// TestWhatWaitsIsOfOneEndpoint says that the newest wins, and that the others count.
func TestWhatWaitsIsOfOneEndpoint(t *testing.T) {
	f := fleetAt(everything, plenty)
	f.Publish(Origin{Endpoint: generate, Worker: 1, Rank: 0}, FromActiveLoad, Load{KVActive: Some[uint64](1)})
	f.Publish(Origin{Endpoint: generate, Worker: 1, Rank: 1}, FromActiveLoad, Load{KVActive: Some[uint64](2)})
	f.Pass(Origin{Endpoint: generate, Worker: 1, Rank: 1}, Pass{Counter: 1, Seconds: 0.5})
	publishedAt(f, prefill, 1, 3)
	testutil.Equal(t, "loads of no use", f.Tally.Rejected(stats.LoadEvent, stats.NotRegistered), 2)
	testutil.Equal(t, "passes of no use", f.Tally.Rejected(stats.ForwardPass, stats.NotRegistered), 1)
	publishing(f, generate, 1)
	publishing(f, prefill, 1)
	shows(t, f, "prefill/generate: 1 answering", "  1 up kv 3")
}

func TestWhatWaitsExpires(t *testing.T) {
	f := fleetAt(everything, plenty)
	publishing(f, generate, 1)
	publishedAt(f, prefill, 1, 3) // of a worker that is registered elsewhere
	publishedAt(f, prefill, 2, 3)
	after(f, 10*time.Minute)
	audit(t, f)
	testutil.Equal(t, "workers", f.workers.len(), 2)
	after(f, 10*time.Minute+time.Second)
	audit(t, f)
	testutil.Equal(t, "workers", f.workers.len(), 1)
	publishing(f, prefill, 1)
	shows(t, f, "backend/generate: 1 silent", "  1 down", "prefill/generate: 1 silent", "  1 down")
}

// TestAnEventOfARegisteredWorkerElsewhereExpires says that no event keeps a worker at an
// endpoint for good, though it is registered at another.
func TestAnEventOfARegisteredWorkerElsewhereExpires(t *testing.T) {
	f := fleetAt(everything, plenty)
	publishing(f, generate, 1)
	publishing(f, prefill, 2)
	publishedAt(f, generate, 1, 40)
	publishedAt(f, prefill, 1, 40)
	shows(t, f, "backend/generate: 1 answering", "  1 up kv 40", "prefill/generate: 1 silent 1 unregistered", "  2 down")
	after(f, 10*time.Minute+time.Second)
	testutil.Equal(t, "attachments", len(f.workers.of(lease(1)).seats), 1)
	shows(t, f, "backend/generate: 1 answering", "  1 up kv 40", "prefill/generate: 1 silent", "  2 down")
}

// TestOnlyWhereAWorkerWasRegisteredAnEndpointIsRemembered, or answered without a registry.
func TestOnlyWhereAWorkerWasRegisteredAnEndpointIsRemembered(t *testing.T) {
	f := fleetAt(everything, plenty)
	poll(f, loaded(generate, static("a"), 10))
	card(f, prefill, 1)
	publishedAt(f, prefill, 1, 40)
	shows(t, f, "backend/generate: 1 unregistered mean 10", "  a up kv 10", "prefill/generate: 1 unregistered")
	poll(f)
	poll(f)
	f.DropCard(keyOf(Instance{prefill, 1}), Instance{prefill, 1})
	after(f, 10*time.Minute+time.Second)
	shows(t, f)
	f = New(everything, plenty, false)
	f.Advance(start)
	poll(f, loaded(generate, static("a"), 10))
	poll(f)
	poll(f)
	shows(t, f, "backend/generate:")
}
