package testutil

import (
	"testing"
	"time"
)

// Patience is how long a condition may take. It is far beyond what anything here
// needs, so that a slow machine fails no test.
const WaitTimeout = time.Minute

// Until runs check again and again until it has nothing to complain about, and
// fails the test with its last complaint when Patience is over.
func Until(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(WaitTimeout)
	for pause := 5 * time.Millisecond; ; pause = min(pause*5/4, 50*time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after %v: %v", WaitTimeout, err)
		}
		time.Sleep(pause) // longer and longer: most checks ask a program for all that it serves
	}
}
