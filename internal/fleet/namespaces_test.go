package fleet

import "testing"

// Two generations of workers live side by side while a Kubernetes operator updates
// them: the namespace of each ends in a hash of its configuration.
func TestEndpointsOfSeveralNamespacesAreToldApart(t *testing.T) {
	f := fleetAt(Target{Namespace: "lab*"}, plenty)
	before, after := generate, generate
	before.Namespace, after.Namespace = "lab-0c1d", "lab-4b5c"
	publishing(f, before, 1)
	publishing(f, after, 2)
	publishedAt(f, before, 1, 10)
	publishedAt(f, Endpoint{Namespace: "lab-4b5c"}, 2, 30)
	f.Hit(1, 8, 4)
	f.Hit(2, 8, 6)
	f.Hit(3, 8, 8) // of nobody that is known
	shows(t, f,
		"lab-0c1d/backend/generate: 1 answering 1 events", "  1 up kv 10 hits 4/8",
		"lab-4b5c/backend/generate: 1 answering 1 events", "  2 up kv 30 hits 6/8",
		"unknown/unknown/unknown: not counted 1 events", "  3 hits 8/8")
	deregister(f, before, 1)
	shows(t, f,
		"lab-0c1d/backend/generate: 1 events", "  1 hits 4/8",
		"lab-4b5c/backend/generate: 1 answering 1 events", "  2 up kv 30 hits 6/8",
		"unknown/unknown/unknown: not counted 1 events", "  3 hits 8/8")
}

func TestFlagsNameTheEndpointInEveryNamespace(t *testing.T) {
	f := fleetAt(Target{Namespace: "lab*", Component: "backend", Name: "generate"}, plenty)
	shows(t, f)
	before, after := generate, generate
	before.Namespace, after.Namespace = "lab-0c1d", "lab-4b5c"
	publishing(f, before, 1)
	publishing(f, after, 2)
	elsewhere := loadMetrics
	elsewhere.Namespace = "lab-4b5c"
	publishing(f, elsewhere, 2)
	publishedAt(f, after, 2, 30)
	f.Hit(2, 8, 6)
	shows(t, f,
		"lab-0c1d/backend/generate: 1 silent", "  1 down",
		"lab-4b5c/backend/generate: 1 answering 1 events", "  2 up kv 30 hits 6/8")
}
