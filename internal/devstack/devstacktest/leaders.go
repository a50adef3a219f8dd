package devstacktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// WaitLeads waits until the program acts as the leader, or, if want is false, until it does not.
func WaitLeads(t testing.TB, program *stats.Stats, want bool) {
	t.Helper()
	testutil.Until(t, func() error {
		if got := program.ActsAsLeader.Load(); got != want {
			return fmt.Errorf("the program acts as the leader: %v, want %v", got, want)
		}
		return nil
	})
}

// WaitOneLeads waits until one of two programs acts as the leader, and the other one knows that.
// It returns the index of the leader, 0 for a and 1 for b.
func WaitOneLeads(t testing.TB, a, b *stats.Stats) (leader int) {
	t.Helper()
	testutil.Until(t, func() error {
		switch {
		case len(leadersOf([]*stats.Stats{a, b})) == 2:
			t.Fatal("both lead")
		case a.ActsAsLeader.Load() && b.OtherLeader.Load():
			leader = 0
			return nil
		case b.ActsAsLeader.Load() && a.OtherLeader.Load():
			leader = 1
			return nil
		}
		return errors.New("neither leads, or the other does not know it")
	})
	return leader
}

// WatchLeaders fails the test whenever more than one of the programs acts as the leader. Order
// returns the indexes of those that have led, one after the other.
func WatchLeaders(t testing.TB, programs ...*stats.Stats) (order func() []int) {
	t.Helper()
	var mu sync.Mutex
	var all []int
	testutil.Start(t, func(ctx context.Context) error {
		for ctx.Err() == nil {
			now := leadersOf(programs)
			if len(now) > 1 {
				t.Errorf("the programs %v lead at once", now)
				return nil
			}
			mu.Lock()
			if len(now) == 1 && (len(all) == 0 || all[len(all)-1] != now[0]) {
				all = append(all, now[0])
			}
			mu.Unlock()
			backoff.Wait(ctx, time.Millisecond)
		}
		return nil
	})
	return func() []int { mu.Lock(); defer mu.Unlock(); return slices.Clone(all) }
}

// leadersOf returns the indexes of the programs that act as the leader. It reads all flags twice,
// because between two reads one program may have handed over to another.
func leadersOf(programs []*stats.Stats) (now []int) {
	for range 2 {
		before := now
		now = nil
		for i, p := range programs {
			if p.ActsAsLeader.Load() && (before == nil || slices.Contains(before, i)) {
				now = append(now, i)
			}
		}
	}
	return now
}
