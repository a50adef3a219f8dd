package collect

import (
	"context"
	"slices"
	"time"
)

// queue has targets that wait for one of its slots.
type queue struct {
	free     int          // slots
	reserved int          // slots for targets that were readable the last time
	waiting  [2][]*target // those that were readable, which are first, and the others, whose duration is not known
}

// Every target that is usually quick is tried in the quick queue in each round. A target that is
// not scraped there in time gets a longer try in the slow queue, and then in the long one.
const (
	quickQueue = iota
	slowQueue
	longQueue
	queueCount
)

// enqueue puts a target into a queue.
func (s *scheduler) enqueue(t *target, in int) {
	t.due[in] = true
	if t.queued[in] {
		return
	}
	t.queued[in] = true
	q := &s.queues[in].waiting[1]
	if t.readable {
		q = &s.queues[in].waiting[0]
	}
	*q = append(*q, t)
}

// dequeue takes a target out of a queue. It returns nil if none waits, or if no slot is free for
// it.
func (s *scheduler) dequeue(in int) *target {
	for i := range s.queues[in].waiting {
		q := &s.queues[in].waiting[i]
		for len(*q) > 0 && s.queues[in].hasSlot(i == 0) {
			t := (*q)[0]
			*q = (*q)[1:]
			t.queued[in] = false
			if t.due[in] && t.attempt == nil && s.byURL[t.url] == t { // it may have been removed or scraped since
				return t
			}
			t.due[in] = false
		}
	}
	return nil
}

// hasSlot reports whether a slot is free for a target that was readable the last time, or was
// not.
func (q *queue) hasSlot(readable bool) bool { return q.free > q.reserved || readable && q.free > 0 }

// pruneQueues removes targets that no longer exist. Otherwise they would stay until a slot is
// free, which may take long.
func (s *scheduler) pruneQueues() {
	for i := range s.queues {
		for j := range s.queues[i].waiting {
			q := &s.queues[i].waiting[j]
			*q = slices.DeleteFunc(*q, func(t *target) bool { return s.byURL[t.url] != t })
		}
	}
}

// slotTimeout returns how long an attempt may hold a slot of a queue; 0 is no limit.
func (s *scheduler) slotTimeout(in int) time.Duration {
	switch {
	case in == quickQueue:
		return s.quickTimeout
	case in == slowQueue && s.timeout() > slowTimeout:
		return slowTimeout
	}
	return 0
}

// takeSlot gives an attempt a slot.
func (s *scheduler) takeSlot(a *attempt, in int) {
	s.queues[in].free--
	a.queue, a.slotSince = in, time.Now()
	if s.slotTimeout(in) > 0 {
		s.timed[in] = append(s.timed[in], a)
	}
}

// revokeSlot takes the slot of the attempt that has held it for longest. The attempt continues
// in a slot of the next queue if one is free, and is otherwise cancelled and repeated there.
func (s *scheduler) revokeSlot(ctx context.Context, in int) {
	a := s.timed[in][0]
	s.timed[in] = s.timed[in][1:]
	s.queues[in].free++
	if in == slowQueue {
		a.readable = false // it must not use the reserved slots any more
	}
	if s.queues[in+1].hasSlot(a.readable) {
		s.takeSlot(a, in+1)
	} else {
		a.queue, a.revoked, a.retryIn = noQueue, true, in+1
		a.cancel()
	}
	s.startAttempts(ctx, in)
}

// startAttempts starts attempts for the targets in a queue while slots are free.
func (s *scheduler) startAttempts(ctx context.Context, in int) {
	for s.queues[in].free > 0 {
		t := s.dequeue(in)
		if t == nil {
			return
		}
		t.due[in] = false
		attemptCtx, cancel := context.WithCancel(ctx)
		a := &attempt{target: t, started: time.Now(), cancel: cancel}
		t.attempt = a
		s.takeSlot(a, in)
		at, workers, large := t.url, t.workers, t.large
		s.running.Go(func() {
			defer cancel()
			outcome := s.scrape(attemptCtx, at, workers, large)
			select {
			case s.results <- attemptResult{a, outcome, time.Since(a.started)}:
			case <-ctx.Done(): // the scheduler has ended
			}
		})
	}
}
