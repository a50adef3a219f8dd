package group

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestUntilFirstEndsTheOthers(t *testing.T) {
	broken := errors.New("broken")
	synctest.Test(t, func(t *testing.T) {
		ended := 0
		waitForEnd := func(ctx context.Context) error { <-ctx.Done(); ended++; return ctx.Err() }
		err := UntilFirst(t.Context(), waitForEnd, func(context.Context) error { time.Sleep(time.Hour); return broken })
		if !errors.Is(err, broken) || ended != 1 {
			t.Errorf("error %v, and %d others ended; want %v and one", err, ended, broken)
		}
	})
}

func TestUntilFirstEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := UntilFirst(ctx, func(ctx context.Context) error { <-ctx.Done(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}
