package expose

import (
	"fmt"
	"testing"

	"dynamo-metrics/internal/devstack/devstacktest"
)

// TestTheBoundsAreThoseOfSecurity: each is reached by a test of its own, with its number.
func TestTheBoundsAreThoseOfSecurity(t *testing.T) {
	devstacktest.Promises(t, "a Pushgateway's answer", fmt.Sprintf("%d KiB", maxAnswer>>10), fmt.Sprintf("%d requests", maxHops), fmt.Sprintf("last push %.0f s", lastPush.Seconds()))
	devstacktest.Promises(t, "an HTTP request", "64 KiB of headers in 5 s", "all of it in 10 s", "the answer in 30 s", "without one 2 min", fmt.Sprintf("no byte %.0f s", Stalled.Seconds()))
	devstacktest.Promises(t, "metrics pages that clients read", fmt.Sprintf("%d in memory", maxPages), fmt.Sprintf("%.0f s for %d KiB", slowPiece.Seconds(), pieceSize>>10), fmt.Sprintf("%.0f s for all", slowPage.Seconds()))
	devstacktest.Promises(t, "answers in JSON", fmt.Sprintf("lists of targets %d at once", maxTargetLists))
	devstacktest.Promises(t, "a web configuration", fmt.Sprintf("%d MiB a file", maxWebFile>>20), fmt.Sprintf("%d are remembered", mostWrong))
}
