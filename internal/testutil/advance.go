package testutil

import (
	"testing/synctest"
	"time"
)

// Advance lets this much of a synctest bubble's time pass, and then waits until all goroutines
// of the bubble are blocked.
func Advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
