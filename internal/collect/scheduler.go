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
	"dynamo-metrics/internal/stats"
)

const (
	// quickPlaces is from how many workers pages are read at the same time. A page that is
	// not read within leastPatience, or several times what is usual, gives up its place: so
	// many that are out of reach cannot keep the others for longer than pageTime each.
	quickPlaces   = 100
	leastPatience = quickPlaces * pageTime

	// slowPlaces are for pages that took longer than that, the last time or just now, and
	// longPlaces for those that took longer than slowPatience, if they may. Half of these are
	// for pages that could be read: the others may take all the time that a page has.
	slowPlaces   = 8
	longPlaces   = 8
	slowPatience = ScrapeTimeout

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
	pages []fleet.ScrapeTarget

	readable bool          // as of the last time, when it
	took     time.Duration // so long
	long     bool          // as of then, too: it is worth compressing

	failed int                 // so many times in a row
	why    stats.ScrapeFailure // the last time
	blamed bool                // that is counted since it was last due

	reading *reading
	queued  [lanes]bool // it stands in a queue there
	wants   [lanes]bool // and is to be read
}

// reading is an attempt to read a page.
type reading struct {
	*target
	lane   int // whose place it has; none once it has given it up
	began  time.Time
	since  time.Time // it has that place
	cancel context.CancelFunc
	lapsed bool // it was given up, to be tried once more
	again  int  // in which lane
}

const none = -1

// ended is how an attempt has ended.
type ended struct {
	*reading
	outcome
	took time.Duration
}

// rounds are the Scraper's; all but the reading is done by one goroutine.
type rounds struct {
	*Scraper
	known   map[string]*target // by URL, as of the last round
	lanes   [lanes]lane
	hurried [lanes][]*reading // that have a place for a while, in the order in which they got it
	ended   chan ended
	running sync.WaitGroup

	took     []time.Duration // by the pages that were read in this round
	patience time.Duration   // for how long a page keeps a quick place
	length   time.Duration   // of the last round
	stretch  int             // how much longer it was than it should be
}

func newRounds(s *Scraper, quick, slow, long int) *rounds {
	r := &rounds{Scraper: s, known: make(map[string]*target), patience: leastPatience, stretch: 1}
	r.ended = make(chan ended, 2*(quick+slow+long)) // of those that were given up some may not have ended
	r.lanes = [lanes]lane{quickLane: {places: quick}, slowLane: {places: slow}, longLane: {places: long, kept: long / 2}}
	return r
}

// round reads each page once, unless it is still being read, and returns when the next one
// begins. What was scraped of a worker whose page cannot be read is kept until the third
// round without it, or the third failure where pages take longer than that.
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
	r.Fleet.ExpireScraped(2*max(length, r.length) + r.longest())
	r.length = length
	if len(r.took) > 0 {
		slices.Sort(r.took)
		// However long pages may take, who waits for one that is given up is read soon.
		most := min(r.timeout(), max(r.Interval, ScrapeTimeout)) / 2
		r.patience = max(leastPatience, min(3*r.took[len(r.took)/2], most))
		r.took = r.took[:0]
	}
	return length
}

// longest is how long the page takes, of those that can be read, that takes longest.
func (r *rounds) longest() (d time.Duration) {
	for _, t := range r.known {
		if t.readable {
			d = max(d, t.took)
		}
	}
	return d
}

// admit lets a page wait for a place.
func (r *rounds) admit(ctx context.Context, t *target) {
	if t.reading != nil {
		return
	}
	t.blamed = false
	in := quickLane
	switch {
	case !t.readable || t.took <= r.patience:
	case t.took > slowPatience:
		in = longLane
	default:
		in = slowLane
	}
	r.queue(t, in)
	r.start(ctx, in)
}

// targets are the pages there are now, in the order in which they are read.
func (r *rounds) targets() []*target {
	now := make(map[string]*target)
	for _, p := range r.Fleet.ScrapeTargets(!r.All) {
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
	r.prune()
	all := make([]*target, 0, len(now))
	unread := make(map[fleet.Instance]fleet.FailedScrapes)
	for _, t := range now {
		all = append(all, t)
		for _, p := range t.pages {
			if t.failed > 0 {
				unread[p.Instance] = fleet.FailedScrapes{Times: t.failed, Why: t.why}
			}
		}
	}
	r.Fleet.Diagnostics.SetFailedScrapes(unread)
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
		wake, over := at, none
		for i, h := range r.hurried {
			if len(h) > 0 && h[0].since.Add(r.patienceIn(i)).Before(wake) {
				wake, over = h[0].since.Add(r.patienceIn(i)), i
			}
		}
		timer.Reset(time.Until(wake))
		select {
		case e := <-r.ended:
			r.end(ctx, e)
		case <-timer.C:
			if over == none {
				return
			}
			r.lapse(ctx, over)
		case <-ctx.Done():
			return
		}
	}
}

// end takes back the place of a page, and notes how it was read.
func (r *rounds) end(ctx context.Context, e ended) {
	t := e.target
	t.reading = nil
	t.long = e.long
	switch {
	case e.ok:
		t.readable, t.took, t.failed = true, e.took, 0
		t.wants[slowLane], t.wants[longLane] = false, false
		r.took = append(r.took, e.took)
	case e.lapsed:
		r.blame(t, e.why)
		r.queue(t, e.again)
	default:
		t.readable = false
		r.blame(t, e.why)
	}
	if e.lane != none {
		r.hurried[e.lane] = slices.DeleteFunc(r.hurried[e.lane], func(o *reading) bool { return o == e.reading })
		r.lanes[e.lane].places++
		r.start(ctx, e.lane)
	}
	r.start(ctx, slowLane)
	r.start(ctx, longLane)
}

// forgetAfter is with which failure in a row what a page said is forgotten.
const forgetAfter = 3

// blame counts that a page was due and could not be read: once, however often it was tried.
func (r *rounds) blame(t *target, why stats.ScrapeFailure) {
	t.why = why
	if t.blamed {
		return
	}
	t.blamed = true
	if t.failed++; t.failed == forgetAfter {
		for _, p := range t.pages {
			r.Fleet.RecordScrape(p, nil)
		}
	}
}
