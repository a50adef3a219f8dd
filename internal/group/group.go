// Package group runs functions side by side.
package group

import (
	"context"
	"sync"
)

// UntilFirst runs parts of something until the first of them ends, which ends the others, and
// returns why.
func UntilFirst(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, part := range parts {
		running.Go(func() { cancel(part(ctx)) })
	}
	running.Wait()
	return context.Cause(ctx)
}
