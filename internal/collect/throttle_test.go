package collect

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestThrottleSlowsFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		deliver := throttle(t.Context(), func([][]byte) { n++ })
		start := time.Now()
		for range 20_000 {
			deliver(nil)
		}
		if got, want := time.Since(start), 2*time.Second; n != 20_000 || got != want {
			t.Errorf("%d messages at once took %s, want %s", n, got, want)
		}
		start = time.Now()
		for range 20_000 {
			time.Sleep(100 * time.Microsecond)
			deliver(nil)
		}
		if got, want := time.Since(start), 20_000*100*time.Microsecond; got != want {
			t.Errorf("messages at the allowed rate took %s, want %s", got, want)
		}
	})
}
