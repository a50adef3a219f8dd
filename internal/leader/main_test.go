package leader

import (
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestMain(m *testing.M) {
	testutil.SetParallel(16)
	m.Run()
}
