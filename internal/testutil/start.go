package testutil

import (
	"context"
	"sync"
	"testing"
)

// Start runs loop until stop is called, or the test ends. Ended receives the loop's error.
func Start(t testing.TB, loop func(context.Context) error) (stop func(), ended <-chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { result <- loop(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return cancel, result
}
