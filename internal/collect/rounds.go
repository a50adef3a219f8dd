package collect

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/fleet"
)

const (
	// quickPlaces is from how many workers pages are read at the same time. A page that is
	// not read within leastPatience, or several times what is usual, gives up its place: so
	// many that are out of reach cannot keep the others for longer than pageTime each.
	quickPlaces   = 100
	leastPatience = quickPlaces * pageTime
	mostPatience  = scrapeTimeout / 2

	// slowPlaces are for pages that took longer than that, the last time or just now.
	slowPlaces = 8

	// pageTime is what a round has for each page at least: where there are many, it is longer
	// than the interval. A page takes a quarter of a millisecond of a core.
	pageTime = time.Millisecond

	// maxStretch bounds how much longer rounds become where there are not places enough.
	maxStretch = 16
)

// target is one page: of one worker, but where several are said to have the same.
type target struct {
	url   string
	phase float64 // when it is read: which part of a round has gone
	pages []fleet.WorkerPage

	readable bool          // as of the last time, when it
	took     time.Duration // so long
	long     bool          // as of then, too: it is worth compressing

	reading *reading
	queued  [lanes]bool // it stands in a queue there
	wants   [lanes]bool // and is to be read
}

// lane is a queue with so many places.
type lane struct {
	places int
	queues [2][]*target // those that were read the last time, before the others: how long those take is not known
}

// The lanes. Each page that does not take its time is tried in the quick one each round, and
// what is not read there in time has another, longer try in the slow one.
const (
	quickLane = iota
	slowLane
	lanes
)

// reading is an attempt to read a page.
type reading struct {
	*target
	lane   int // whose place it has; none once it has given it up
	began  time.Time
	cancel context.CancelFunc
	lapsed bool // it was given up, to be tried once more
}

const none = -1

// ended is how an attempt has ended.
type ended struct {
	*reading
	ok, long bool
	took     time.Duration
}

// rounds are the Scraper's; all but the reading is done by one goroutine.
type rounds struct {
	*Scraper
	known   map[string]*target // by URL, as of the last round
	lanes   [lanes]lane
	hurried []*reading // that have a quick place, in the order in which they began
	ended   chan ended
	running sync.WaitGroup

	took     []time.Duration // by the pages that were read in this round
	patience time.Duration   // for how long a page keeps a quick place
	length   time.Duration   // of the last round
	stretch  int             // how much longer it was than it should be
}

func newRounds(s *Scraper, quick, slow int) *rounds {
	r := &rounds{Scraper: s, known: make(map[string]*target), patience: leastPatience, stretch: 1}
	r.ended = make(chan ended, 2*(quick+slow)) // of those that were given up some may not have ended
	r.lanes[quickLane].places, r.lanes[slowLane].places = quick, slow
	return r
}

// round reads each page once, unless it is still being read, and returns when the next one
// begins. What was scraped of a worker whose page cannot be read is kept until the third
// round without it.
func (r *rounds) round(ctx context.Context, begin time.Time) (next time.Time) {
	targets := r.targets()
	length := r.nextLength(len(targets))
	next = begin.Add(length)
	for _, t := range targets {
		r.until(ctx, begin.Add(time.Duration(t.phase*float64(length))))
		if ctx.Err() != nil {
			return next
		}
		r.admit(ctx, t)
	}
	r.until(ctx, next)
	return next
}

// nextLength is how long the next round is: the interval, but for many pages, and where
// those of the last round that could be read before still wait. It forgets what was scraped
// too long ago, and learns how long pages take.
func (r *rounds) nextLength(pages int) time.Duration {
	if slices.ContainsFunc(r.lanes[quickLane].queues[0], func(t *target) bool { return t.wants[quickLane] }) {
		r.stretch = min(2*r.stretch, maxStretch)
	} else {
		r.stretch = max(r.stretch/2, 1)
	}
	length := max(r.Interval, time.Duration(pages)*pageTime) * time.Duration(r.stretch)
	r.Fleet.ForgetScraped(2 * max(length, r.length))
	r.length = length
	if len(r.took) > 0 {
		slices.Sort(r.took)
		r.patience = min(max(leastPatience, 3*r.took[len(r.took)/2]), mostPatience)
		r.took = r.took[:0]
	}
	return length
}

// admit lets a page wait for a place.
func (r *rounds) admit(ctx context.Context, t *target) {
	if t.reading != nil {
		return
	}
	in := quickLane
	if t.readable && t.took > r.patience {
		in = slowLane
	}
	r.queue(t, in)
	r.start(ctx, in)
}

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

// next takes a page out of a lane's queues; nil if there is none.
func (r *rounds) next(in int) *target {
	for i := range r.lanes[in].queues {
		q := &r.lanes[in].queues[i]
		for len(*q) > 0 {
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

// targets are the pages there are now, in the order in which they are read.
func (r *rounds) targets() []*target {
	now := make(map[string]*target)
	for _, p := range r.Fleet.WorkerPages(!r.All) {
		at := r.URL(p)
		if at == "" {
			continue
		}
		t := now[at]
		if t == nil {
			if t = r.known[at]; t == nil {
				t = &target{url: at, phase: phase(at)}
			}
			t.pages, now[at] = nil, t // not the memory of before: it may be in use
		}
		t.pages = append(t.pages, p)
	}
	r.known = now
	all := make([]*target, 0, len(now))
	for _, t := range now {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *target) int { return cmp.Or(cmp.Compare(a.phase, b.phase), strings.Compare(a.url, b.url)) })
	return all
}

// phase spreads pages over a round, each always at the same time in it.
func phase(url string) float64 {
	h := fnv.New64a()
	h.Write([]byte(url))
	return float64(h.Sum64()>>11) / (1 << 53)
}

// until waits until a time. Meanwhile it gives places that become free to those who wait,
// and takes those of pages that are not read in time.
func (r *rounds) until(ctx context.Context, at time.Time) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	for {
		wake := at
		if len(r.hurried) > 0 {
			if over := r.hurried[0].began.Add(r.patience); over.Before(at) {
				wake = over
			}
		}
		timer.Reset(time.Until(wake))
		select {
		case e := <-r.ended:
			r.end(ctx, e)
		case <-timer.C:
			if wake.Equal(at) {
				return
			}
			r.lapse(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// lapse takes the quick place of the page that has had it for longest. It goes on at a slow
// one if there is one, and else is given up, and tried again there.
func (r *rounds) lapse(ctx context.Context) {
	e := r.hurried[0]
	r.hurried = r.hurried[1:]
	r.lanes[quickLane].places++
	slow := &r.lanes[slowLane]
	if slow.places > 0 {
		slow.places--
		e.lane = slowLane
	} else {
		e.lane, e.lapsed = none, true
		e.cancel()
	}
	r.start(ctx, quickLane)
}

// end takes back the place of a page, and notes how it was read.
func (r *rounds) end(ctx context.Context, e ended) {
	t := e.target
	t.reading = nil
	t.long = e.long
	switch {
	case e.ok:
		t.readable, t.took = true, e.took
		t.wants[slowLane] = false
		r.took = append(r.took, e.took)
	case e.lapsed:
		r.queue(t, slowLane)
	default:
		t.readable = false
	}
	if e.lane == quickLane {
		r.hurried = slices.DeleteFunc(r.hurried, func(o *reading) bool { return o == e.reading })
	}
	if e.lane != none {
		r.lanes[e.lane].places++
		r.start(ctx, e.lane)
	}
	r.start(ctx, slowLane)
}

// start reads the pages that wait in a lane, as far as there are places.
func (r *rounds) start(ctx context.Context, in int) {
	for r.lanes[in].places > 0 {
		t := r.next(in)
		if t == nil {
			return
		}
		t.wants[in] = false
		r.lanes[in].places--
		until, cancel := context.WithCancel(ctx)
		e := &reading{target: t, lane: in, began: time.Now(), cancel: cancel}
		t.reading = e
		if in == quickLane {
			r.hurried = append(r.hurried, e)
		}
		at, pages, long := t.url, t.pages, t.long
		r.running.Go(func() {
			defer cancel()
			ok, long := r.scrape(until, at, pages, long)
			select {
			case r.ended <- ended{e, ok, long, time.Since(e.began)}:
			case <-ctx.Done(): // the rounds are over
			}
		})
	}
}
