package connect

import (
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"
)

func TestMain(m *testing.M) {
	devstacktest.AtOnce(6)
	m.Run()
}
