package collect

import (
	"runtime/debug"
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestMain(m *testing.M) {
	testutil.SetParallel(6)
	debug.SetGCPercent(400) // memory is plentiful, and garbage collection took a fifth of the time
	m.Run()
}
