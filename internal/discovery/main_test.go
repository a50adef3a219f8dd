package discovery

import (
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"
)

func TestMain(m *testing.M) {
	devstacktest.AtOnce(16)
	m.Run()
}
