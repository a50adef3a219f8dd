package kube

import (
	"testing"

	"dynamo-metrics/internal/kube/kubetest"
)

// TestAnObjectThatTurnsBadIsKept by the watch and by the listing after it, until it is gone.
func TestAnObjectThatTurnsBadIsKept(t *testing.T) {
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
			s.Put(kubetest.Metadatas, object("a", 1))
			s.Put(kubetest.Metadatas, object("z", 1))
			f := follow(t, c, things)
			f.has(map[string]int{"a": 1, "z": 1})
			s.Put(kubetest.Metadatas, bad)
			s.Put(kubetest.Metadatas, object("z", 2))
			f.has(map[string]int{"a": 1, "z": 2}) // the watch

			s.Forbid(kubetest.Metadatas, true)
			f.complains("403")
			s.Put(kubetest.Metadatas, object("z", 3))
			s.Compact()
			s.Forbid(kubetest.Metadatas, false)
			f.has(map[string]int{"a": 1, "z": 3}) // the listing
			f.mu.Lock()
			if f.lists != 2 || len(f.bad) != 2 {
				t.Errorf("%d listings and the errors %v, want two of each", f.lists, f.bad)
			}
			f.mu.Unlock()

			s.Delete(kubetest.Metadatas, "team-a", "a")
			f.has(map[string]int{"z": 3})
		})
	}
}
