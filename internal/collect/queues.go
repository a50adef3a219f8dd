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
	waiting  [2][]*target // first those that were readable, because the duration of the others is not known
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
func (r *scheduler) enqueue(t *target, in int) {
	t.due[in] = true
	if t.queued[in] {
		return
	}
	t.queued[in] = true
	q := &r.queues[in].waiting[1]
	if t.readable {
		q = &r.queues[in].waiting[0]
	}
	*q = append(*q, t)
}

// dequeue takes a target out of a queue. It returns nil if none waits, or if no slot is free for
// it.
func (r *scheduler) dequeue(in int) *target {
	for i := range r.queues[in].waiting {
		q := &r.queues[in].waiting[i]
		for len(*q) > 0 && r.queues[in].hasSlot(i == 0) {
			t := (*q)[0]
			*q = (*q)[1:]
			t.queued[in] = false
			if t.due[in] && t.attempt == nil && r.byURL[t.url] == t { // meanwhile it may have been removed or scraped
				return t
			}
			t.due[in] = false
		}
	}
	return nil
}

// hasSlot reports whether a slot is free for a target that was readable the last time, or was
// not.
func (l *queue) hasSlot(readable bool) bool { return l.free > l.reserved || readable && l.free > 0 }

// pruneQueues removes targets that no longer exist, since it may take long until a slot is free
// for them.
func (r *scheduler) pruneQueues() {
	for i := range r.queues {
		for j := range r.queues[i].waiting {
			q := &r.queues[i].waiting[j]
			*q = slices.DeleteFunc(*q, func(t *target) bool { return r.byURL[t.url] != t })
		}
	}
}

// slotTimeout returns for how long an attempt may hold a slot of a queue; 0 means without limit.
func (r *scheduler) slotTimeout(in int) time.Duration {
	switch {
	case in == quickQueue:
		return r.quickTimeout
	case in == slowQueue && r.timeout() > slowTimeout:
		return slowTimeout
	}
	return 0
}

// takeSlot gives an attempt a slot.
func (r *scheduler) takeSlot(e *attempt, in int) {
	r.queues[in].free--
	e.queue, e.slotSince = in, time.Now()
	if r.slotTimeout(in) > 0 {
		r.timed[in] = append(r.timed[in], e)
	}
}

// revokeSlot takes the slot of the attempt that has held it for longest. The attempt continues
// in a slot of the next queue if one is free, and is otherwise cancelled and repeated there.
func (r *scheduler) revokeSlot(ctx context.Context, in int) {
	e := r.timed[in][0]
	r.timed[in] = r.timed[in][1:]
	r.queues[in].free++
	if in == slowQueue {
		e.readable = false // it must not use the reserved slots any more
	}
	if r.queues[in+1].hasSlot(e.readable) {
		r.takeSlot(e, in+1)
	} else {
		e.queue, e.revoked, e.retryIn = noQueue, true, in+1
		e.cancel()
	}
	r.startAttempts(ctx, in)
}

// startAttempts starts attempts for the targets in a queue while slots are free.
func (r *scheduler) startAttempts(ctx context.Context, in int) {
	for r.queues[in].free > 0 {
		t := r.dequeue(in)
		if t == nil {
			return
		}
		t.due[in] = false
		until, cancel := context.WithCancel(ctx)
		e := &attempt{target: t, started: time.Now(), cancel: cancel}
		t.attempt = e
		r.takeSlot(e, in)
		at, workers, large := t.url, t.workers, t.large
		r.running.Go(func() {
			defer cancel()
			outcome := r.scrape(until, at, workers, large)
			select {
			case r.results <- attemptResult{e, outcome, time.Since(e.started)}:
			case <-ctx.Done(): // the scheduler has ended
			}
		})
	}
}
