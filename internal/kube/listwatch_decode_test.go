package kube

import (
	"testing"

	"dynamo-metrics/internal/kube/kubetest"
)

// TestListWatchKeepsUndecodableObject makes an object undecodable, in the watch and then in the
// listing. Its last valid version stays until it is deleted.
func TestListWatchKeepsUndecodableObject(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]kubetest.Object{
		"its value": object("a", "no number"),
		"its spec":  {"metadata": kubetest.Object{"name": "a", "namespace": "team-a"}, "spec": "text"},
		"its labels": {"metadata": kubetest.Object{"name": "a", "namespace": "team-a", "annotations": "text", "labels": 7},
			"spec": kubetest.Object{"data": kubetest.Object{"value": 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := serve(t)
			s.Put(kubetest.WorkerMetadata, object("a", 1))
			s.Put(kubetest.WorkerMetadata, object("z", 1))
			f := startListWatch(t, c, things)
			f.waitValues(map[string]int{"a": 1, "z": 1})
			s.Put(kubetest.WorkerMetadata, bad)
			s.Put(kubetest.WorkerMetadata, object("z", 2))
			f.waitValues(map[string]int{"a": 1, "z": 2}) // from the watch

			s.Forbid(kubetest.WorkerMetadata, true)
			f.waitError("403")
			s.Put(kubetest.WorkerMetadata, object("z", 3))
			s.Compact()
			s.Forbid(kubetest.WorkerMetadata, false)
			f.waitValues(map[string]int{"a": 1, "z": 3}) // from the listing
			f.mu.Lock()
			if f.lists != 2 || len(f.decodeErrors) != 2 {
				t.Errorf("%d listings and the errors %v, want two of each", f.lists, f.decodeErrors)
			}
			f.mu.Unlock()

			s.Delete(kubetest.WorkerMetadata, "team-a", "a")
			f.waitValues(map[string]int{"z": 3})
		})
	}
}
