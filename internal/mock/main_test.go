package mock

import (
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestMain(m *testing.M) {
	testutil.AtOnce(6)
	m.Run()
}
