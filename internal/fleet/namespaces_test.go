package fleet

import "testing"

// TestNamespacesKeepEndpointsApart checks two generations of workers, as during an update by
// Dynamo's operator. The namespace of each ends in a hash of its configuration.
func TestNamespacesKeepEndpointsApart(t *testing.T) {
	for _, namespaces := range []string{"lab*", "*"} {
		checkSeparateNamespaces(t, newFleet(Target{Namespace: namespaces}, largeLimit))
	}
}

func checkSeparateNamespaces(t *testing.T, f *Fleet) {
	t.Helper()
	before, after := generate, generate
	before.Namespace, after.Namespace = "lab-0c1d", "lab-4b5c"
	registerPublishing(f, before, 1)
	registerPublishing(f, after, 2)
	publishAt(f, before, 1, 10)
	publishAt(f, Endpoint{Namespace: "lab-4b5c"}, 2, 30)
	f.RecordHit(1, 8, 4)
	f.RecordHit(2, 8, 6)
	f.RecordHit(3, 8, 8) // of an unknown worker
	wantShown(t, f,
		"lab-0c1d/backend/generate: 1 answering 1 events", "  1 up kv 10 hits 4/8",
		"lab-4b5c/backend/generate: 1 answering 1 events", "  2 up kv 30 hits 6/8",
		"unknown/unknown/unknown: not counted 1 events", "  3 hits 8/8")
	deregister(f, before, 1)
	wantShown(t, f,
		"lab-0c1d/backend/generate: 1 events", "  1 hits 4/8",
		"lab-4b5c/backend/generate: 1 answering 1 events", "  2 up kv 30 hits 6/8",
		"unknown/unknown/unknown: not counted 1 events", "  3 hits 8/8")
}

func TestNamespacesNamedTargetIsInEach(t *testing.T) {
	for _, namespaces := range []string{"lab*", "*"} {
		checkTargetInNamespaces(t, newFleet(Target{Namespace: namespaces, Component: "backend", Name: "generate"}, largeLimit))
	}
}

func checkTargetInNamespaces(t *testing.T, f *Fleet) {
	t.Helper()
	wantShown(t, f)
	before, after := generate, generate
	before.Namespace, after.Namespace = "lab-0c1d", "lab-4b5c"
	registerPublishing(f, before, 1)
	registerPublishing(f, after, 2)
	elsewhere := loadMetrics
	elsewhere.Namespace = "lab-4b5c"
	registerPublishing(f, elsewhere, 2)
	publishAt(f, after, 2, 30)
	f.RecordHit(2, 8, 6)
	wantShown(t, f,
		"lab-0c1d/backend/generate: 1 silent", "  1 down",
		"lab-4b5c/backend/generate: 1 answering 1 events", "  2 up kv 30 hits 6/8")
}

// TestNamespacesSingleIsNotNamed watches one namespace with both generations in it. Nothing
// distinguishes them there.
func TestNamespacesSingleIsNotNamed(t *testing.T) {
	f := newFleet(Target{}, largeLimit)
	registerPublishing(f, generate, 1)
	registerPublishing(f, generate, 2)
	publishAt(f, generate, 1, 10)
	publishAt(f, Endpoint{}, 2, 30)
	f.RecordHit(1, 8, 4)
	f.RecordHit(2, 8, 6)
	f.RecordHit(3, 8, 8)
	wantShown(t, f,
		"backend/generate: 2 answering 2 events", "  1 up kv 10 hits 4/8", "  2 up kv 30 hits 6/8",
		"unknown/unknown: not counted 1 events", "  3 hits 8/8")
}
