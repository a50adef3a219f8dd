package fleet

import "testing"

// Two generations of workers live side by side while a Kubernetes operator updates
// them: the namespace of each ends in a hash of its configuration.
func TestEndpointsOfSeveralNamespacesAreToldApart(t *testing.T) {
	for _, namespaces := range []string{"lab*", "*"} {
		testEndpointsToldApart(t, fleetAt(Target{Namespace: namespaces}, plenty))
	}
}

func testEndpointsToldApart(t *testing.T, f *Fleet) {
	t.Helper()
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
	for _, namespaces := range []string{"lab*", "*"} {
		testTheFlagsEndpoint(t, fleetAt(Target{Namespace: namespaces, Component: "backend", Name: "generate"}, plenty))
	}
}

func testTheFlagsEndpoint(t *testing.T, f *Fleet) {
	t.Helper()
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

// TestOneNamespaceIsNotNamed is the same where the two have one namespace, which is the
// only one: nothing tells them apart.
func TestOneNamespaceIsNotNamed(t *testing.T) {
	f := fleetAt(Target{}, plenty)
	publishing(f, generate, 1)
	publishing(f, generate, 2)
	publishedAt(f, generate, 1, 10)
	publishedAt(f, Endpoint{}, 2, 30)
	f.Hit(1, 8, 4)
	f.Hit(2, 8, 6)
	f.Hit(3, 8, 8)
	shows(t, f,
		"backend/generate: 2 answering 2 events", "  1 up kv 10 hits 4/8", "  2 up kv 30 hits 6/8",
		"unknown/unknown: not counted 1 events", "  3 hits 8/8")
}
