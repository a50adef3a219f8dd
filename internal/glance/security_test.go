package glance

import (
	"fmt"
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"
)

// TestTheBoundsAreThoseOfSecurity: each is reached by a test of its own, with its number.
func TestTheBoundsAreThoseOfSecurity(t *testing.T) {
	devstacktest.Promises(t, "streams of the page", fmt.Sprintf("%d, each", mostStreams), fmt.Sprintf("%d KiB", sendBuffer>>10), fmt.Sprintf("for %.0f s", patience.Seconds()))
	devstacktest.Promises(t, "answers in JSON", fmt.Sprintf("%.0f s;", patience.Seconds()))
}
