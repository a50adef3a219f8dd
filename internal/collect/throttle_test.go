package collect

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAFloodWaitsInItsOwnConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		deliver := throttled(t.Context(), func([][]byte) { n++ })
		start := time.Now()
		for range 10 * burst {
			deliver(nil)
		}
		if got, want := time.Since(start), 10*period; n != 10*burst || got != want {
			t.Errorf("%d messages at once took %s, want %s", n, got, want)
		}
		start = time.Now()
		for range 10 * burst {
			time.Sleep(period / burst)
			deliver(nil)
		}
		if got, want := time.Since(start), 10*burst*(period/burst); got != want {
			t.Errorf("messages at the rate that is allowed took %s, want %s", got, want)
		}
	})
}
