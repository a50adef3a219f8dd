package collect

import (
	"runtime/debug"
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestMain(m *testing.M) {
	testutil.SetParallel(6)
	debug.SetGCPercent(400) // there is memory enough, and a fifth of the time was the collector's
	m.Run()
}
