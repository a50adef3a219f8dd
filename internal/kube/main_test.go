package kube

import (
	"testing"

	"dynamo-metrics/internal/testutil"
)

func TestMain(m *testing.M) {
	testutil.AtOnce(16)
	m.Run()
}
