package fleet

import (
	"fmt"
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestARegistrationLivesUntilItsLastKeyIsGone(t *testing.T) {
	keys := []string{"instances/ns/backend/generate:1", "v1/instances/ns/backend/generate/1", "ns/components/backend/generate:1"}
	permutations(3, func(put []int) {
		permutations(3, func(gone []int) {
			f := fleetAt(everything, plenty)
			in := Instance{generate, 1}
			for _, i := range put {
				f.Register(keys[i], in, Registration{NATS: true})
				f.SetCard(keys[i], in, Card{Model: "m", KVTotal: Some[uint64](100)})
			}
			publishedAt(f, generate, 1, 40)
			for _, i := range gone {
				shows(t, f, "backend/generate: 1 answering mean 40", "  1 up kv 40")
				f.Deregister(keys[i], in)
				f.Deregister(keys[i], in)
				f.DropCard(keys[i], in)
			}
			shows(t, f, "backend/generate:")
			testutil.Equal(t, "workers", f.workers.len(), 0)
		})
	})
}

// TestOfSeveralRegistrationsTheOneCountsThatSaysMost, whatever comes first, and when it is
// gone the next.
func TestOfSeveralRegistrationsTheOneCountsThatSaysMost(t *testing.T) {
	said := map[string]Registration{
		"instances/ns/backend/generate:1":    {NATS: true, Transport: "old"},
		"v1/instances/ns/backend/generate/1": {Publishes: true, Transport: "192.0.2.1:1"},
		"pod-b/backend/generate/1":           {Publishes: true, Transport: "192.0.2.2:1"},
	}
	publishers := []string{"v1/instances/ns/backend/generate/1", "pod-b/backend/generate/1"}
	if hashOf(publishers[0]) < hashOf(publishers[1]) {
		publishers[0], publishers[1] = publishers[1], publishers[0]
	}
	order := append(publishers, "instances/ns/backend/generate:1")
	permutations(3, func(put []int) {
		f := fleetAt(everything, plenty)
		in := Instance{generate, 1}
		for _, i := range put {
			f.Register(order[i], in, said[order[i]])
		}
		publishedAt(f, generate, 1, 40)
		loads, last := 1, order[put[2]]
		for _, key := range order {
			audit(t, f)
			s := f.workers.of(lease(1)).at(generate)
			testutil.Equal(t, "the registration", s.Registration, said[key])
			testutil.Equal(t, "loads", len(s.ranks), loads)
			f.Deregister(key, in)
			if key == last { // whose load it was
				loads = 0
			}
		}
		shows(t, f, "backend/generate:")
	})
}

func TestARestartIsSeenUnderAnyOfTheKeys(t *testing.T) {
	f := fleetAt(everything, plenty)
	in := Instance{generate, 1}
	f.Register("a", in, Registration{Publishes: true, Transport: "192.0.2.1:1"})
	f.Register("b", in, Registration{Publishes: true, Transport: "192.0.2.1:1"})
	for i, key := range []string{"a", "b"} {
		publishedAt(f, generate, 1, 40)
		shows(t, f, "backend/generate: 1 answering", "  1 up kv 40")
		f.Register(key, in, Registration{Publishes: true, Transport: fmt.Sprintf("192.0.2.1:%d", 2+i)})
		shows(t, f, "backend/generate: 1 silent", "  1 down")
	}
}

// TestAProcessThatTakesOverTheIDKeepsItsLoad, whichever key counts, and when the other one goes.
func TestAProcessThatTakesOverTheIDKeepsItsLoad(t *testing.T) {
	for _, keys := range [][2]string{{"a", "b"}, {"b", "a"}} {
		f := fleetAt(everything, plenty)
		in := Instance{generate, 1}
		f.Register(keys[0], in, Registration{Publishes: true, Transport: "192.0.2.1:1"})
		publishedAt(f, generate, 1, 40)
		f.Pass(Origin{Endpoint: generate, Worker: 1}, Pass{Counter: 7, Seconds: 1, PrefillTokens: 3})
		f.Hit(1, 8, 4)
		f.Register(keys[1], in, Registration{Publishes: true, Transport: "192.0.2.2:1"})
		shows(t, f, "backend/generate: 1 silent 1 events", "  1 down hits 4/8")
		publishedAt(f, generate, 1, 5)
		f.Pass(Origin{Endpoint: generate, Worker: 1}, Pass{Counter: 1, Seconds: 1, PrefillTokens: 4})
		f.Register(keys[1], in, Registration{Publishes: true, Transport: "192.0.2.2:1"}) // once more
		f.Deregister(keys[0], in)
		shows(t, f, "backend/generate: 1 answering 1 events", "  1 up kv 5 hits 4/8")
		p := f.Snapshot().Workers[0].Passes.V
		testutil.Equal(t, "passes of both", []uint64{p.Count, p.PrefillTokens, p.Missed, uint64(p.Seconds.Count)}, []uint64{2, 7, 0, 2})
	}
}

func TestAListingHasAllKeys(t *testing.T) {
	f := fleetAt(everything, plenty)
	in := Instance{generate, 1}
	of := func(keys ...string) Listing {
		l := Listing{Instances: make(map[string]InstanceEntry), Cards: make(map[string]CardEntry)}
		for _, key := range keys {
			l.Instances[key] = InstanceEntry{in, Registration{Publishes: key == "b"}}
			l.Cards[key] = CardEntry{in, Card{Model: key, KVTotal: Some[uint64](100)}}
		}
		return l
	}
	f.Sync(of("a", "b"))
	publishedAt(f, generate, 1, 40)
	answering := []string{"backend/generate: 1 answering mean 40", "  1 up kv 40"}
	shows(t, f, answering...)
	testutil.Equal(t, "publishes", f.workers.of(lease(1)).seats[0].Publishes, true)
	f.Sync(of("a")) // b went unseen
	shows(t, f, answering...)
	testutil.Equal(t, "publishes", f.workers.of(lease(1)).seats[0].Publishes, false)
	testutil.Equal(t, "model", f.Snapshot().Workers[0].Model, "a")
	f.Sync(of("c")) // under another key: it has never been away as far as is known
	shows(t, f, answering...)
	f.Deregister("a", in)
	shows(t, f, answering...)
	f.Deregister("c", in)
	shows(t, f, "backend/generate:")
	f.DropCard("a", in)
	testutil.Equal(t, "workers", f.workers.len(), 1)
	f.DropCard("c", in)
	testutil.Equal(t, "workers", f.workers.len(), 0)
}

func TestHashesOfKeysAreTheSameInEveryProcess(t *testing.T) {
	testutil.Equal(t, "hash", hashOf("v1/instances/dynamo/backend/generate/7b"), 8812405857945002995)
}

// TestAShadowThatLeavesTakesItsLoadAlong: the load is that of the address that came last.
func TestAShadowThatLeavesTakesItsLoadAlong(t *testing.T) {
	in := Instance{generate, 1}
	at := func(address string) Registration { return Registration{Publishes: true, Transport: address} }
	loads := func(f *Fleet) int { return len(f.workers.of(lease(1)).at(generate).ranks) }
	for first := range 2 {
		keys, addresses := []string{"a", "b"}, []string{"192.0.2.1:1", "192.0.2.2:1"}
		f := fleetAt(everything, plenty)
		f.Register(keys[first], in, at(addresses[first]))
		publishedAt(f, generate, 1, 100)
		f.Register(keys[1-first], in, at(addresses[1-first]))
		testutil.Equal(t, "loads when another takes over", loads(f), 0)
		publishedAt(f, generate, 1, 500)
		f.Register(keys[first], in, at(addresses[first])) // the same again is no news
		testutil.Equal(t, "loads of the second", loads(f), 1)
		f.Deregister(keys[1-first], in)
		testutil.Equal(t, "loads when the second has left", loads(f), 0)
		publishedAt(f, generate, 1, 7)
		f.Register(keys[1-first], in, at(addresses[1-first]))
		publishedAt(f, generate, 1, 8)
		f.Deregister(keys[first], in)
		testutil.Equal(t, "loads when the first has left", loads(f), 1)
		audit(t, f)
	}
}
