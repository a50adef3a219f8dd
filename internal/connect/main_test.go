package connect

import (
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestMain(m *testing.M) {
	testutil.SetParallel(6)
	m.Run()
}
