package fleet

import "testing"

// as registers an endpoint of a process whose name says what it is for.
func as(f *Fleet, role Role, e Endpoint, ids ...uint64) {
	for _, id := range ids {
		f.Register(keyOf(Instance{Endpoint: e, ID: id}), Instance{Endpoint: e, ID: id}, Registration{Role: role, Publishes: role != LoadRole})
	}
}

var (
	discovered = Endpoint{Component: "backend", Name: "router-discovery"}
	routed     = Endpoint{Component: "router", Name: "generate"}
	best       = Endpoint{Component: "router", Name: "best_worker_id"}
)

func TestAProcessOfARouterIsNoWorkerWhateverElseItRegisters(t *testing.T) {
	f := fleetAt(everything, plenty)
	as(f, AnyRole, routed, 8, 9)
	shows(t, f, "router/generate: 2 silent", "  8 down", "  9 down")
	as(f, RouterRole, best, 8, 9)
	as(f, RouterRole, discovered, 7)
	shows(t, f)
	if found, _ := f.Publishing(); found {
		t.Error("a router is taken for a worker that publishes its load")
	}
	as(f, AnyRole, generate, 1)
	shows(t, f, "backend/generate: 1 silent", "  1 down")
	published(f, 1, 40)
	shows(t, f, "backend/generate: 1 answering", "  1 up kv 40")

	// What has a card, or answers with a load, is a worker whatever its name.
	f.SetCard("card", Instance{Endpoint: routed, ID: 8}, Card{})
	shows(t, f, "backend/generate: 1 answering", "  1 up kv 40", "router/generate: 1 silent", "  8 down")
	f.DropCard("card", Instance{Endpoint: routed, ID: 8})
	shows(t, f, "backend/generate: 1 answering", "  1 up kv 40")

	// One that is a router no more is what it was.
	deregister(f, best, 9)
	shows(t, f, "backend/generate: 1 answering", "  1 up kv 40", "router/generate: 1 silent", "  9 down")
}

func TestAnEndpointIsShownThatIsNamedThoughRoutersAloneAreThere(t *testing.T) {
	f := fleetAt(Target(routed), plenty)
	as(f, AnyRole, routed, 8)
	as(f, RouterRole, best, 8)
	shows(t, f, "router/generate:")
}

func TestAnEndpointBesideOneWithACardIsNoWorker(t *testing.T) {
	f := fleetAt(everything, plenty)
	adapters := Endpoint{Component: "backend", Name: "load_lora"}
	as(f, AnyRole, generate, 1, 2)
	as(f, AnyRole, adapters, 1, 2, 3)
	f.SetCard("card", Instance{Endpoint: generate, ID: 1}, Card{})
	// The second has no card yet, but is where the first has its own. The third is at no
	// endpoint of a load.
	shows(t, f,
		"backend/generate: 2 silent", "  1 down", "  2 down",
		"backend/load_lora: 1 silent", "  3 down")
	deregister(f, adapters, 3)
	shows(t, f, "backend/generate: 2 silent", "  1 down", "  2 down")
}

func TestTheEndpointOfLoadCountsByItsName(t *testing.T) {
	f := fleetAt(everything, plenty)
	register(f, generate, 1, 2)
	as(f, LoadRole, loadMetrics, 1, 2)
	shows(t, f, "backend/load_metrics: 2 silent", "  1 down", "  2 down")
	register(f, generate, 3) // has no other
	shows(t, f,
		"backend/generate: 1 silent", "  3 down",
		"backend/load_metrics: 2 silent", "  1 down", "  2 down")
}
