package backoff

import (
	"testing"
	"time"
)

func TestPauseGrowsToHalfSecond(t *testing.T) {
	for range 100 {
		for n, want := range map[int]time.Duration{-1: 100, 0: 100, 1: 200, 2: 400, 3: 500, 1e9: 500} {
			want *= time.Millisecond
			if got := Pause(n); got > want || got < want*4/5 {
				t.Errorf("Pause(%d) = %v, want at most %v and at least four fifths of it", n, got, want)
			}
		}
	}
}
