package testutil

import (
	"testing"
	"time"
)

// WaitTimeout is how long a condition may take to become true. It is far longer than any
// test needs, so that no test fails because the machine is slow.
const WaitTimeout = time.Minute

// Until runs check until it returns nil. After WaitTimeout it fails the test with check's
// last error.
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
		time.Sleep(pause) // the pauses grow, because most checks request everything that a program serves
	}
}
