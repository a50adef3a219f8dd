//go:build real

// Package survival takes away what the program needs, and gives it what nobody should:
// the built binary beside real nats-server and etcd processes that are killed, workers
// that lie, garbage everywhere, too few file descriptors. What the page says is checked
// before, during and after.
//
//	go test -tags real -count=1 -v ./e2e/survival/
//
// With SURVIVAL=long it takes the whole time that the outages are meant to last, and waits
// for counters to expire, as .ci/nightly has it. A server that is not installed skips its
// tests; with CI=true that is a failure. bench soak and bench fuzz go on for longer, with
// more of the same strangers and garbage.
package survival

import (
	"os"
	"testing"

	"dynamo-metrics/e2e/process"
)

// bin is where TestMain has put the programs.
var bin string

// pick is what is meant, or its shortened form.
func shortOr[T any](short, whole T) T {
	if os.Getenv("SURVIVAL") == "long" {
		return whole
	}
	return short
}

func TestMain(m *testing.M) { process.Main(m, &bin, "../../cmd/metrics", "../../cmd/mock_worker") }
