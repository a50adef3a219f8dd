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
	quickSlots      = 100
	minQuickTimeout = quickSlots * scrapeSpacing

	// slowPlaces are for pages that took longer than that, the last time or just now, and
	// longPlaces for those that took longer than slowPatience, if they may. Half of these are
	// for pages that could be read: the others may take all the time that a page has.
	slowSlots   = 8
	longSlots   = 8
	slowTimeout = ScrapeTimeout

	// pageTime is what a round has for each page at least: where there are many, it is longer
	// than the interval. A page takes a quarter of a millisecond of a core.
	scrapeSpacing = time.Millisecond

	// maxStretch bounds how much longer rounds become where there are not places enough.
	maxStretch = 16
)

// target is one page: of one worker, but where several are said to have the same.
type target struct {
	url   string
	phase float64 // when it is read: which part of a round has gone
	pages []fleet.ScrapeTarget

	readable bool          // as of the last time, when it
	duration time.Duration // so long
	large    bool          // as of then, too: it is worth compressing

	failures       int                 // so many times in a row
	reason         stats.ScrapeFailure // the last time
	failureCounted bool                // that is counted since it was last due

	attempt *attempt
	queued  [queueCount]bool // it stands in a queue there
	due     [queueCount]bool // and is to be read
}

// reading is an attempt to read a page.
type attempt struct {
	*target
	queue     int // whose place it has; none once it has given it up
	started   time.Time
	slotSince time.Time // it has that place
	cancel    context.CancelFunc
	revoked   bool // it was given up, to be tried once more
	retryIn   int  // in which lane
}

const noQueue = -1

// ended is how an attempt has ended.
type attemptResult struct {
	*attempt
	outcome
	duration time.Duration
}

// rounds are the Scraper's; all but the reading is done by one goroutine.
type scheduler struct {
	*Scraper
	byURL   map[string]*target // by URL, as of the last round
	queues  [queueCount]queue
	timed   [queueCount][]*attempt // that have a place for a while, in the order in which they got it
	results chan attemptResult
	running sync.WaitGroup

	durations    []time.Duration // by the pages that were read in this round
	quickTimeout time.Duration   // for how long a page keeps a quick place
	roundLength  time.Duration   // of the last round
	stretch      int             // how much longer it was than it should be
}

func newScheduler(s *Scraper, quick, slow, long int) *scheduler {
	r := &scheduler{Scraper: s, byURL: make(map[string]*target), quickTimeout: minQuickTimeout, stretch: 1}
	r.results = make(chan attemptResult, 2*(quick+slow+long)) // of those that were given up some may not have ended
	r.queues = [queueCount]queue{quickQueue: {free: quick}, slowQueue: {free: slow}, longQueue: {free: long, reserved: long / 2}}
	return r
}

// round reads each page once, unless it is still being read, and returns when the next one
// begins. What was scraped of a worker whose page cannot be read is kept until the third
// round without it, or the third failure where pages take longer than that.
func (r *scheduler) runRound(ctx context.Context, begin time.Time) (next time.Time) {
	targets := r.refreshTargets()
	length := r.nextRoundLength(len(targets))
	next = begin.Add(length)
	for _, t := range targets {
		r.runUntil(ctx, begin.Add(time.Duration(t.phase*float64(length))))
		if ctx.Err() != nil {
			return next
		}
		r.schedule(ctx, t)
	}
	r.runUntil(ctx, next)
	return next
}

// nextLength is how long the next round is: the interval, but for many pages, and where
// those of the last round that could be read before still wait. It forgets what was scraped
// too long ago, and learns how long pages take.
func (r *scheduler) nextRoundLength(pages int) time.Duration {
	if slices.ContainsFunc(r.queues[quickQueue].waiting[0], func(t *target) bool { return t.due[quickQueue] }) {
		r.stretch = min(2*r.stretch, maxStretch)
	} else {
		r.stretch = max(r.stretch/2, 1)
	}
	length := max(r.Interval, time.Duration(pages)*scrapeSpacing) * time.Duration(r.stretch)
	r.Fleet.ExpireScraped(2*max(length, r.roundLength) + r.slowestRead())
	r.roundLength = length
	if len(r.durations) > 0 {
		slices.Sort(r.durations)
		// However long pages may take, who waits for one that is given up is read soon.
		most := min(r.timeout(), max(r.Interval, ScrapeTimeout)) / 2
		r.quickTimeout = max(minQuickTimeout, min(3*r.durations[len(r.durations)/2], most))
		r.durations = r.durations[:0]
	}
	return length
}

// longest is how long the page takes, of those that can be read, that takes longest.
func (r *scheduler) slowestRead() (d time.Duration) {
	for _, t := range r.byURL {
		if t.readable {
			d = max(d, t.duration)
		}
	}
	return d
}

// admit lets a page wait for a place.
func (r *scheduler) schedule(ctx context.Context, t *target) {
	if t.attempt != nil {
		return
	}
	t.failureCounted = false
	in := quickQueue
	switch {
	case !t.readable || t.duration <= r.quickTimeout:
	case t.duration > slowTimeout:
		in = longQueue
	default:
		in = slowQueue
	}
	r.enqueue(t, in)
	r.startAttempts(ctx, in)
}

// targets are the pages there are now, in the order in which they are read.
func (r *scheduler) refreshTargets() []*target {
	now := make(map[string]*target)
	for _, p := range r.Fleet.ScrapeTargets(!r.AllWorkers) {
		at := r.URL(p)
		if at == "" {
			continue
		}
		t := now[at]
		if t == nil {
			if t = r.byURL[at]; t == nil {
				t = &target{url: at, phase: scrapePhase(at)}
			}
			t.pages, now[at] = nil, t // not the memory of before: it may be in use
		}
		t.pages = append(t.pages, p)
	}
	r.byURL = now
	r.pruneQueues()
	all := make([]*target, 0, len(now))
	unread := make(map[fleet.Instance]fleet.FailedScrapes)
	for _, t := range now {
		all = append(all, t)
		for _, p := range t.pages {
			if t.failures > 0 {
				unread[p.Instance] = fleet.FailedScrapes{Times: t.failures, Why: t.reason}
			}
		}
	}
	r.Fleet.Diagnostics.SetFailedScrapes(unread)
	slices.SortFunc(all, func(a, b *target) int { return cmp.Or(cmp.Compare(a.phase, b.phase), strings.Compare(a.url, b.url)) })
	return all
}

// phase spreads pages over a round, each always at the same time in it.
func scrapePhase(url string) float64 {
	h := fnv.New64a()
	h.Write([]byte(url))
	return float64(h.Sum64()>>11) / (1 << 53)
}

// until waits until a time. Meanwhile it gives places that become free to those who wait,
// and takes those of pages that are not read in time.
func (r *scheduler) runUntil(ctx context.Context, at time.Time) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	for {
		wake, over := at, noQueue
		for i, h := range r.timed {
			if len(h) > 0 && h[0].slotSince.Add(r.slotTimeout(i)).Before(wake) {
				wake, over = h[0].slotSince.Add(r.slotTimeout(i)), i
			}
		}
		timer.Reset(time.Until(wake))
		select {
		case e := <-r.results:
			r.finish(ctx, e)
		case <-timer.C:
			if over == noQueue {
				return
			}
			r.revokeSlot(ctx, over)
		case <-ctx.Done():
			return
		}
	}
}

// end takes back the place of a page, and notes how it was read.
func (r *scheduler) finish(ctx context.Context, e attemptResult) {
	t := e.target
	t.attempt = nil
	t.large = e.large
	switch {
	case e.ok:
		t.readable, t.duration, t.failures = true, e.duration, 0
		t.due[slowQueue], t.due[longQueue] = false, false
		r.durations = append(r.durations, e.duration)
	case e.revoked:
		r.countFailure(t, e.reason)
		r.enqueue(t, e.retryIn)
	default:
		t.readable = false
		r.countFailure(t, e.reason)
	}
	if e.queue != noQueue {
		r.timed[e.queue] = slices.DeleteFunc(r.timed[e.queue], func(o *attempt) bool { return o == e.attempt })
		r.queues[e.queue].free++
		r.startAttempts(ctx, e.queue)
	}
	r.startAttempts(ctx, slowQueue)
	r.startAttempts(ctx, longQueue)
}

// forgetAfter is with which failure in a row what a page said is forgotten.
const maxFailures = 3

// blame counts that a page was due and could not be read: once, however often it was tried.
func (r *scheduler) countFailure(t *target, why stats.ScrapeFailure) {
	t.reason = why
	if t.failureCounted {
		return
	}
	t.failureCounted = true
	if t.failures++; t.failures == maxFailures {
		for _, p := range t.pages {
			r.Fleet.RecordScrape(p, nil)
		}
	}
}
