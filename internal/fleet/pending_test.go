package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// permutations calls f with every order of the numbers below n.
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

// TestPendingOrderDoesNotMatter records events, a model card, a registration, and the
// registration of another worker at the same endpoint in every order.
func TestPendingOrderDoesNotMatter(t *testing.T) {
	for name, from := range map[string]Endpoint{"named": generate, "of a component": {Component: "backend"}, "not named": {}} {
		steps := []func(f *Fleet){
			func(f *Fleet) { registerPublishing(f, generate, 1) },
			func(f *Fleet) { setCard(f, generate, 1) },
			func(f *Fleet) { publishAt(f, from, 1, 40) },
			func(f *Fleet) {
				f.RecordForwardPass(Origin{Endpoint: from, Worker: 1}, Pass{Counter: 1, Seconds: 0.5, Running: 3})
			},
			func(f *Fleet) { f.RecordHit(1, 20, 5) },
			func(f *Fleet) { registerPublishing(f, generate, 2) },
		}
		want := ""
		permutations(len(steps), func(order []int) {
			f := newFleet(everything, largeLimit)
			for _, i := range order {
				steps[i](f)
				checkInvariants(t, f)
			}
			s := f.Snapshot()
			s.Endpoints = s.Endpoints[:1]
			s.Endpoints[0].HitEvents = 0 // they stay where they were counted, which may be another endpoint
			w := s.Workers[0]
			got := format(s) + fmt.Sprintln(w.State, w.Model, w.Load, w.Passes.V.Count, w.Passes.V.Seconds.Sum)
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

func TestPendingEventsMakeNoEndpoint(t *testing.T) {
	f := newFleet(everything, largeLimit)
	publishAt(f, generate, 1, 40)
	f.RecordForwardPass(Origin{Endpoint: generate, Worker: 1}, Pass{Counter: 1, Seconds: 0.5})
	f.RecordPollReply(loaded(prefill, lease(2), 5), malformed(prefill, lease(2)), loadless(prefill, lease(2)))
	wantShown(t, f)
	testutil.Equal(t, "workers", f.workers.len(), 1)
	testutil.Equal(t, "endpoints", f.endpoints[generate] != nil || f.endpoints[prefill] != nil, false)
	testutil.Equal(t, "rejected replies", f.Stats.Rejected(stats.StatsReply, stats.NotRegistered), 2)
	f.RecordHit(1, 20, 5)
	wantShown(t, f, "unknown/unknown: not counted 1 events", "  1 hits 5/20")
	registerPublishing(f, generate, 1)
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40 hits 5/20", "unknown/unknown: not counted 1 events")
	testutil.Equal(t, "passes", f.Snapshot().Workers[0].Passes.V.Count, 1)
}

// TestPendingIsOfOneEndpoint checks that the newest endpoint's events replace the others, which
// are counted as rejected.
func TestPendingIsOfOneEndpoint(t *testing.T) {
	f := newFleet(everything, largeLimit)
	f.RecordLoad(Origin{Endpoint: generate, Worker: 1, Rank: 0}, FromActiveLoad, Load{KVActive: Some[uint64](1)})
	f.RecordLoad(Origin{Endpoint: generate, Worker: 1, Rank: 1}, FromActiveLoad, Load{KVActive: Some[uint64](2)})
	f.RecordForwardPass(Origin{Endpoint: generate, Worker: 1, Rank: 1}, Pass{Counter: 1, Seconds: 0.5})
	publishAt(f, prefill, 1, 3)
	testutil.Equal(t, "rejected loads", f.Stats.Rejected(stats.LoadEvent, stats.NotRegistered), 2)
	testutil.Equal(t, "rejected passes", f.Stats.Rejected(stats.ForwardPass, stats.NotRegistered), 1)
	registerPublishing(f, generate, 1)
	registerPublishing(f, prefill, 1)
	wantShown(t, f, "prefill/generate: 1 answering", "  1 up kv 3")
}

func TestPendingExpires(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	publishAt(f, prefill, 1, 3) // of a worker that is registered at another endpoint
	publishAt(f, prefill, 2, 3)
	after(f, 10*time.Minute)
	checkInvariants(t, f)
	testutil.Equal(t, "workers", f.workers.len(), 2)
	after(f, 10*time.Minute+time.Second)
	checkInvariants(t, f)
	testutil.Equal(t, "workers", f.workers.len(), 1)
	registerPublishing(f, prefill, 1)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down", "prefill/generate: 1 silent", "  1 down")
}

// TestPendingEventsOfOtherEndpointExpire checks that an event does not keep a worker at an
// endpoint for ever, although the worker is registered at another one.
func TestPendingEventsOfOtherEndpointExpire(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerPublishing(f, generate, 1)
	registerPublishing(f, prefill, 2)
	publishAt(f, generate, 1, 40)
	publishAt(f, prefill, 1, 40)
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40", "prefill/generate: 1 silent 1 unregistered", "  2 down")
	after(f, 10*time.Minute+time.Second)
	testutil.Equal(t, "attachments", len(f.workers.get(lease(1)).attachments), 1)
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40", "prefill/generate: 1 silent", "  2 down")
}

// TestPendingEndpointIsNotRemembered checks that an endpoint without workers is kept only if a
// worker was registered there, or answered while there is no registry.
func TestPendingEndpointIsNotRemembered(t *testing.T) {
	f := newFleet(everything, largeLimit)
	poll(f, loaded(generate, static("a"), 10))
	setCard(f, prefill, 1)
	publishAt(f, prefill, 1, 40)
	wantShown(t, f, "backend/generate: 1 unregistered mean 10", "  a up kv 10", "prefill/generate: 1 unregistered")
	poll(f)
	poll(f)
	f.DropCard(keyOf(Instance{prefill, 1}), Instance{prefill, 1})
	after(f, 10*time.Minute+time.Second)
	wantShown(t, f)
	f = New(everything, largeLimit, false)
	f.Advance(start)
	poll(f, loaded(generate, static("a"), 10))
	poll(f)
	poll(f)
	wantShown(t, f, "backend/generate:")
}
