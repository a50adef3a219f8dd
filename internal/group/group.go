// Package group runs functions concurrently.
package group

import (
	"context"
	"sync"
)

// UntilFirst runs functions concurrently until the first of them ends. It cancels the context of the
// others, waits for them, and returns the first one's error.
func UntilFirst(ctx context.Context, functions ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, f := range functions {
		running.Go(func() { cancel(f(ctx)) })
	}
	running.Wait()
	return context.Cause(ctx)
}
