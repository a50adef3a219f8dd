package collect

import (
	"context"
	"slices"
	"time"
)

// lane is a queue with so many places.
type queue struct {
	free     int
	reserved int          // of them for those that were read the last time
	waiting  [2][]*target // those that were read the last time, before the others: how long those take is not known
}

// The lanes. Each page that does not take its time is tried in the quick one each round, and
// what is not read there in time has another, longer try in the slow one, and then in the
// long one.
const (
	quickQueue = iota
	slowQueue
	longQueue
	queueCount
)

// queue lets a page wait in a lane.
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

// next takes a page out of a lane's queues; nil if there is none, or no place for it.
func (r *scheduler) dequeue(in int) *target {
	for i := range r.queues[in].waiting {
		q := &r.queues[in].waiting[i]
		for len(*q) > 0 && r.queues[in].hasSlot(i == 0) {
			t := (*q)[0]
			*q = (*q)[1:]
			t.queued[in] = false
			if t.due[in] && t.attempt == nil && r.byURL[t.url] == t { // it may have gone meanwhile, or been read
				return t
			}
			t.due[in] = false
		}
	}
	return nil
}

// hasPlace reports whether there is a place for a page that could be read the last time, or not.
func (l *queue) hasSlot(readable bool) bool { return l.free > l.reserved || readable && l.free > 0 }

// prune takes pages out of the queues that are not there any more: places may be long in
// becoming free.
func (r *scheduler) pruneQueues() {
	for i := range r.queues {
		for j := range r.queues[i].waiting {
			q := &r.queues[i].waiting[j]
			*q = slices.DeleteFunc(*q, func(t *target) bool { return r.byURL[t.url] != t })
		}
	}
}

// patienceIn is for how long a page keeps a place in a lane; 0: for as long as it may take.
func (r *scheduler) slotTimeout(lane int) time.Duration {
	switch {
	case lane == quickQueue:
		return r.quickTimeout
	case lane == slowQueue && r.timeout() > slowTimeout:
		return slowTimeout
	}
	return 0
}

// settle gives a page a place in a lane.
func (r *scheduler) takeSlot(e *attempt, in int) {
	r.queues[in].free--
	e.queue, e.slotSince = in, time.Now()
	if r.slotTimeout(in) > 0 {
		r.timed[in] = append(r.timed[in], e)
	}
}

// lapse takes the place in a lane of the page that has had it for longest. It goes on at one
// of the next lane if there is one, and else is given up, and tried again there.
func (r *scheduler) revokeSlot(ctx context.Context, in int) {
	e := r.timed[in][0]
	r.timed[in] = r.timed[in][1:]
	r.queues[in].free++
	if in == slowQueue {
		e.readable = false // not as it was
	}
	if r.queues[in+1].hasSlot(e.readable) {
		r.takeSlot(e, in+1)
	} else {
		e.queue, e.revoked, e.retryIn = noQueue, true, in+1
		e.cancel()
	}
	r.startAttempts(ctx, in)
}

// start reads the pages that wait in a lane, as far as there are places.
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
		at, pages, long := t.url, t.pages, t.large
		r.running.Go(func() {
			defer cancel()
			how := r.scrape(until, at, pages, long)
			select {
			case r.results <- attemptResult{e, how, time.Since(e.started)}:
			case <-ctx.Done(): // the rounds are over
			}
		})
	}
}
