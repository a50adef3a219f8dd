//go:build real

// Package survival takes away what the program needs, and sends it what no correct client
// sends: the built binary runs beside real nats-server and etcd processes that are killed,
// workers with invalid replies, garbage from every source, and too few file descriptors.
// The tests check /metrics before, during and after.
//
//	go test -tags real -count=1 -v ./e2e/survival/
//
// With SURVIVAL=long, which .ci/nightly sets, outages have their full length, and tests wait
// for counters to expire. Tests are skipped if a server is not installed; with CI=true they
// fail. bench soak and bench fuzz run for longer, with more forged ids and more garbage.
package survival

import (
	"os"
	"testing"

	"dynamo-metrics/e2e/process"
)

// bin is the directory where TestMain has built the programs.
var bin string

// shortOr returns whole if SURVIVAL=long is set, and otherwise short.
func shortOr[T any](short, whole T) T {
	if os.Getenv("SURVIVAL") == "long" {
		return whole
	}
	return short
}

func TestMain(m *testing.M) { process.Main(m, &bin, "../../cmd/metrics", "../../cmd/mock_worker") }
