//go:build real

package real

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"dynamo-metrics/e2e/process"
	"dynamo-metrics/internal/testutil"
)

// releases of ai-dynamo-runtime whose workers the tests start: the last one before and the
// last one after the poll reply, the key and the id in the key changed their forms.
var releases = []string{"0.2.1", "0.5.1"}

// What the workers of the golden files report.
const (
	valuesA = `{"active_slots": 3, "total_slots": 16, "waiting": 2, "kv_active": 40, "kv_total": 100, "usage": 0.4, "hit": 0.25}`
	valuesB = `{"active_slots": 5, "total_slots": 32, "waiting": 0, "kv_active": 10, "kv_total": 200, "usage": 0.05, "hit": 0.75}`
	valuesC = `{"active_slots": 7, "total_slots": 64, "waiting": 9, "kv_active": 100, "kv_total": 400, "usage": 0.25, "hit": 0.5}`
	valuesD = `{"active_slots": 11, "total_slots": 100, "waiting": 4, "kv_active": 42, "kv_total": 1000, "usage": 0.25, "hit": 0.5,
		"spec": [2, 10, 20, 15, [8, 7]]}`
)

// worker is a real Dynamo worker that serves backend/generate and backend/load_metrics
// in the namespace dynamo.
type worker struct {
	*process.Process
	id  uint64
	key string // of load_metrics in etcd
}

// worker starts a worker and waits until it is registered.
func (s *servers) worker(release, values string) *worker {
	s.t.Helper()
	p := process.Start(s.t, s.env(), python(s.t, release), filepath.Join("testdata", "worker.py"), "dynamo", "backend", values)
	text := p.WaitForLine("worker ")
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		s.t.Fatalf("the worker prints %q, want its id: %v", text, err)
	}
	prefix := "instances/dynamo/"
	if strings.HasPrefix(release, "0.2.") {
		prefix = "dynamo/components/"
	}
	w := &worker{p, id, fmt.Sprintf("%sbackend/load_metrics:%x", prefix, id)}
	testutil.Until(s.t, func() error {
		if w.HasEnded() {
			s.t.Fatalf("the worker of %s has ended", release)
		}
		if !s.registered(w.key) {
			return fmt.Errorf("the worker of %s has not registered %s", release, w.key)
		}
		return nil
	})
	return w
}

// python returns the Python of the virtualenv in which a release of ai-dynamo-runtime is
// installed: DYNAMO_VENVS/RELEASE, by default in the cache that .ci/run fills.
func python(t *testing.T, release string) string {
	t.Helper()
	venvs := os.Getenv("DYNAMO_VENVS")
	if venvs == "" {
		venvs = filepath.Join(process.Cache(t), "venvs")
	}
	venv := filepath.Join(venvs, release)
	path := filepath.Join(venv, "bin", "python")
	if _, err := os.Stat(path); err != nil {
		process.FailOrSkip(t, fmt.Sprintf("ai-dynamo-runtime %[1]s is not installed in %[2]s: "+
			"python3 -m venv %[2]s && %[2]s/bin/pip install ai-dynamo-runtime==%[1]s (DYNAMO_VENVS names another directory)",
			release, venv))
	}
	return path
}
