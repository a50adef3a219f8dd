package fleet

import "testing"

// registerAs registers an endpoint with a role.
func registerAs(f *Fleet, role Role, e Endpoint, ids ...uint64) {
	for _, id := range ids {
		f.Register(keyOf(Instance{Endpoint: e, ID: id}), Instance{Endpoint: e, ID: id}, Registration{Role: role, Publishes: role != LoadRole})
	}
}

var (
	discovered = Endpoint{Component: "backend", Name: "router-discovery"}
	routed     = Endpoint{Component: "router", Name: "generate"}
	best       = Endpoint{Component: "router", Name: "best_worker_id"}
)

func TestRolesRouterProcessIsNoWorker(t *testing.T) {
	f := newFleet(everything, largeLimit)
	registerAs(f, AnyRole, routed, 8, 9)
	wantShown(t, f, "router/generate: 2 silent", "  8 down", "  9 down")
	registerAs(f, RouterRole, best, 8, 9)
	registerAs(f, RouterRole, discovered, 7)
	wantShown(t, f)
	if found, _ := f.FindPublishers(); found {
		t.Error("a router is taken for a worker that publishes its load")
	}
	registerAs(f, AnyRole, generate, 1)
	wantShown(t, f, "backend/generate: 1 silent", "  1 down")
	publishUnattributed(f, 1, 40)
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40")

	// A process with a card is a worker, whatever its role.
	f.SetCard("card", Instance{Endpoint: routed, ID: 8}, Card{})
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40", "router/generate: 1 silent", "  8 down")
	f.DropCard("card", Instance{Endpoint: routed, ID: 8})
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40")

	// A process that is no longer a router is a worker again.
	deregister(f, best, 9)
	wantShown(t, f, "backend/generate: 1 answering", "  1 up kv 40", "router/generate: 1 silent", "  9 down")
}

func TestRolesNamedEndpointOfRoutersIsShown(t *testing.T) {
	f := newFleet(Target(routed), largeLimit)
	registerAs(f, AnyRole, routed, 8)
	registerAs(f, RouterRole, best, 8)
	wantShown(t, f, "router/generate:")
}

func TestRolesEndpointBesideCardIsNoWorker(t *testing.T) {
	f := newFleet(everything, largeLimit)
	adapters := Endpoint{Component: "backend", Name: "load_lora"}
	registerAs(f, AnyRole, generate, 1, 2)
	registerAs(f, AnyRole, adapters, 1, 2, 3)
	f.SetCard("card", Instance{Endpoint: generate, ID: 1}, Card{})
	// The second worker has no card yet, but is at the endpoint of the first one's card. The
	// third is at no endpoint with a load.
	wantShown(t, f,
		"backend/generate: 2 silent", "  1 down", "  2 down",
		"backend/load_lora: 1 silent", "  3 down")
	deregister(f, adapters, 3)
	wantShown(t, f, "backend/generate: 2 silent", "  1 down", "  2 down")
}

func TestRolesLoadEndpointIsKnownByName(t *testing.T) {
	f := newFleet(everything, largeLimit)
	register(f, generate, 1, 2)
	registerAs(f, LoadRole, loadMetrics, 1, 2)
	wantShown(t, f, "backend/load_metrics: 2 silent", "  1 down", "  2 down")
	register(f, generate, 3) // has no other endpoint
	wantShown(t, f,
		"backend/generate: 1 silent", "  3 down",
		"backend/load_metrics: 2 silent", "  1 down", "  2 down")
}
