package collect

import (
	"context"
	"slices"
	"time"
)

// lane is a queue with so many places.
type lane struct {
	places int
	kept   int          // of them for those that were read the last time
	queues [2][]*target // those that were read the last time, before the others: how long those take is not known
}

// The lanes. Each page that does not take its time is tried in the quick one each round, and
// what is not read there in time has another, longer try in the slow one, and then in the
// long one.
const (
	quickLane = iota
	slowLane
	longLane
	lanes
)

// queue lets a page wait in a lane.
func (r *rounds) queue(t *target, in int) {
	t.wants[in] = true
	if t.queued[in] {
		return
	}
	t.queued[in] = true
	q := &r.lanes[in].queues[1]
	if t.readable {
		q = &r.lanes[in].queues[0]
	}
	*q = append(*q, t)
}

// next takes a page out of a lane's queues; nil if there is none, or no place for it.
func (r *rounds) next(in int) *target {
	for i := range r.lanes[in].queues {
		q := &r.lanes[in].queues[i]
		for len(*q) > 0 && r.lanes[in].hasPlace(i == 0) {
			t := (*q)[0]
			*q = (*q)[1:]
			t.queued[in] = false
			if t.wants[in] && t.reading == nil && r.known[t.url] == t { // it may have gone meanwhile, or been read
				return t
			}
			t.wants[in] = false
		}
	}
	return nil
}

// hasPlace reports whether there is a place for a page that could be read the last time, or not.
func (l *lane) hasPlace(readable bool) bool { return l.places > l.kept || readable && l.places > 0 }

// prune takes pages out of the queues that are not there any more: places may be long in
// becoming free.
func (r *rounds) prune() {
	for i := range r.lanes {
		for j := range r.lanes[i].queues {
			q := &r.lanes[i].queues[j]
			*q = slices.DeleteFunc(*q, func(t *target) bool { return r.known[t.url] != t })
		}
	}
}

// patienceIn is for how long a page keeps a place in a lane; 0: for as long as it may take.
func (r *rounds) patienceIn(lane int) time.Duration {
	switch {
	case lane == quickLane:
		return r.patience
	case lane == slowLane && r.timeout() > slowPatience:
		return slowPatience
	}
	return 0
}

// settle gives a page a place in a lane.
func (r *rounds) settle(e *reading, in int) {
	r.lanes[in].places--
	e.lane, e.since = in, time.Now()
	if r.patienceIn(in) > 0 {
		r.hurried[in] = append(r.hurried[in], e)
	}
}

// lapse takes the place in a lane of the page that has had it for longest. It goes on at one
// of the next lane if there is one, and else is given up, and tried again there.
func (r *rounds) lapse(ctx context.Context, in int) {
	e := r.hurried[in][0]
	r.hurried[in] = r.hurried[in][1:]
	r.lanes[in].places++
	if in == slowLane {
		e.readable = false // not as it was
	}
	if r.lanes[in+1].hasPlace(e.readable) {
		r.settle(e, in+1)
	} else {
		e.lane, e.lapsed, e.again = none, true, in+1
		e.cancel()
	}
	r.start(ctx, in)
}

// start reads the pages that wait in a lane, as far as there are places.
func (r *rounds) start(ctx context.Context, in int) {
	for r.lanes[in].places > 0 {
		t := r.next(in)
		if t == nil {
			return
		}
		t.wants[in] = false
		until, cancel := context.WithCancel(ctx)
		e := &reading{target: t, began: time.Now(), cancel: cancel}
		t.reading = e
		r.settle(e, in)
		at, pages, long := t.url, t.pages, t.long
		r.running.Go(func() {
			defer cancel()
			how := r.scrape(until, at, pages, long)
			select {
			case r.ended <- ended{e, how, time.Since(e.began)}:
			case <-ctx.Done(): // the rounds are over
			}
		})
	}
}
