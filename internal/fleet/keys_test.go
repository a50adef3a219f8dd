package fleet

import (
	"fmt"
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestKeysRegistrationLivesUntilLastKey(t *testing.T) {
	keys := []string{"instances/ns/backend/generate:1", "v1/instances/ns/backend/generate/1", "ns/components/backend/generate:1"}
	permutations(3, func(put []int) {
		permutations(3, func(gone []int) {
			f := newFleet(everything, largeLimit)
			in := Instance{generate, 1}
			for _, i := range put {
				f.Register(keys[i], in, Registration{NATS: true})
				f.SetCard(keys[i], in, Card{Model: "m", KVTotal: Some[uint64](100)})
			}
			publishAt(f, generate, 1, 40)
			for _, i := range gone {
				wantShown(t, f, "backend/generate: 1 answering mean 40", "  1 up kv 40")
				f.Deregister(keys[i], in)
				f.Deregister(keys[i], in)
				f.DropCard(keys[i], in)
			}
			wantShown(t, f, "backend/generate:")
			testutil.Equal(t, "workers", f.workers.len(), 0)
		})
	})
}

// TestKeysMostSpecificRegistrationWins checks which registration counts, in any order of
// arrival, and after each deletion.
func TestKeysMostSpecificRegistrationWins(t *testing.T) {
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
		f := newFleet(everything, largeLimit)
		in := Instance{generate, 1}
		for _, i := range put {
			f.Register(order[i], in, said[order[i]])
		}
		publishAt(f, generate, 1, 40)
		loads, last := 1, order[put[2]]
		for _, key := range order {
			checkInvariants(t, f)
			a := f.workers.get(lease(1)).attachmentAt(generate)
			testutil.Equal(t, "the registration", a.Registration, said[key])
			testutil.Equal(t, "loads", len(a.ranks), loads)
			f.Deregister(key, in)
			if key == last { // the load was of the last process
				loads = 0
			}
		}
		wantShown(t, f, "backend/generate:")
	})
}

func TestKeysRestartIsSeenUnderAnyKey(t *testing.T) {
	f := newFleet(everything, largeLimit)
	in := Instance{generate, 1}
	f.Register("a", in, Registration{Publishes: true, Transport: "192.0.2.1:1"})
	f.Register("b", in, Registration{Publishes: true, Transport: "192.0.2.1:1"})
	for i, key := range []string{"a", "b"} {
		publishAt(f, generate, 1, 40)
		wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40")
		f.Register(key, in, Registration{Publishes: true, Transport: fmt.Sprintf("192.0.2.1:%d", 2+i)})
		wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	}
}

// TestKeysTakeoverKeepsNewLoad checks the load of a process that has taken over the id, with
// any order of the keys, and after the other key is deleted.
func TestKeysTakeoverKeepsNewLoad(t *testing.T) {
	for _, keys := range [][2]string{{"a", "b"}, {"b", "a"}} {
		f := newFleet(everything, largeLimit)
		in := Instance{generate, 1}
		f.Register(keys[0], in, Registration{Publishes: true, Transport: "192.0.2.1:1"})
		publishAt(f, generate, 1, 40)
		f.RecordForwardPass(Origin{Endpoint: generate, Worker: 1}, Pass{Counter: 7, Seconds: 1, PrefillTokens: 3})
		f.RecordHit(1, 8, 4)
		f.Register(keys[1], in, Registration{Publishes: true, Transport: "192.0.2.2:1"})
		wantShown(t, f, "backend/generate: 1 silent 1 events", "  1 down hits 4/8")
		publishAt(f, generate, 1, 5)
		f.RecordForwardPass(Origin{Endpoint: generate, Worker: 1}, Pass{Counter: 1, Seconds: 1, PrefillTokens: 4})
		f.Register(keys[1], in, Registration{Publishes: true, Transport: "192.0.2.2:1"}) // again
		f.Deregister(keys[0], in)
		wantShown(t, f, "backend/generate: 1 answering 1 events", "  1 up kv 5 hits 4/8")
		p := f.Snapshot().Workers[0].Passes.V
		testutil.Equal(t, "passes of both", []uint64{p.Count, p.PrefillTokens, p.Missed, uint64(p.Seconds.Count)}, []uint64{2, 7, 0, 2})
	}
}

func TestKeysSyncReplacesAllKeys(t *testing.T) {
	f := newFleet(everything, largeLimit)
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
	publishAt(f, generate, 1, 40)
	answering := []string{"backend/generate: 1 answering mean 40", "  1 up kv 40"}
	wantShown(t, f, answering...)
	testutil.Equal(t, "publishes", f.workers.get(lease(1)).attachments[0].Publishes, true)
	f.Sync(of("a")) // the deletion of b was not received
	wantShown(t, f, answering...)
	testutil.Equal(t, "publishes", f.workers.get(lease(1)).attachments[0].Publishes, false)
	testutil.Equal(t, "model", f.Snapshot().Workers[0].Model, "a")
	f.Sync(of("c")) // under another key: the worker stays registered
	wantShown(t, f, answering...)
	f.Deregister("a", in)
	wantShown(t, f, answering...)
	f.Deregister("c", in)
	wantShown(t, f, "backend/generate:")
	f.DropCard("a", in)
	testutil.Equal(t, "workers", f.workers.len(), 1)
	f.DropCard("c", in)
	testutil.Equal(t, "workers", f.workers.len(), 0)
}

func TestKeysHashIsStable(t *testing.T) {
	testutil.Equal(t, "hash", hashOf("v1/instances/dynamo/backend/generate/7b"), 8812405857945002995)
}

// TestKeysLeavingStandbyDropsItsLoad checks that the load belongs to the process that
// registered last.
func TestKeysLeavingStandbyDropsItsLoad(t *testing.T) {
	in := Instance{generate, 1}
	at := func(address string) Registration { return Registration{Publishes: true, Transport: address} }
	loads := func(f *Fleet) int { return len(f.workers.get(lease(1)).attachmentAt(generate).ranks) }
	for first := range 2 {
		keys, addresses := []string{"a", "b"}, []string{"192.0.2.1:1", "192.0.2.2:1"}
		f := newFleet(everything, largeLimit)
		f.Register(keys[first], in, at(addresses[first]))
		publishAt(f, generate, 1, 100)
		f.Register(keys[1-first], in, at(addresses[1-first]))
		testutil.Equal(t, "loads after another process takes over", loads(f), 0)
		publishAt(f, generate, 1, 500)
		f.Register(keys[first], in, at(addresses[first])) // no change
		testutil.Equal(t, "loads after the first registers again", loads(f), 1)
		f.Deregister(keys[1-first], in)
		testutil.Equal(t, "loads after the second has left", loads(f), 0)
		publishAt(f, generate, 1, 7)
		f.Register(keys[1-first], in, at(addresses[1-first]))
		publishAt(f, generate, 1, 8)
		f.Deregister(keys[first], in)
		testutil.Equal(t, "loads after the first has left", loads(f), 1)
		checkInvariants(t, f)
	}
}
