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
	// quickSlots is how many workers are scraped at the same time. An attempt that takes longer
	// than minQuickTimeout, or than several times the median, loses its slot. So workers that do
	// not answer delay the others by at most scrapeSpacing each.
	quickSlots      = 100
	minQuickTimeout = quickSlots * scrapeSpacing

	// slowSlots are for workers that took longer than a quick slot allows, the last time or in
	// this attempt, and longSlots for those that took longer than slowTimeout, if the timeout
	// allows that.
	// Half of the long slots are reserved for workers that were readable the last time, because
	// the others may take the whole timeout.
	slowSlots   = 8
	longSlots   = 8
	slowTimeout = ScrapeTimeout

	// scrapeSpacing is the least time that a round has for each worker, so rounds of large
	// fleets are longer than the interval. A scrape takes a quarter of a millisecond of a core.
	scrapeSpacing = time.Millisecond

	// maxStretch bounds how much longer rounds become where there are not enough slots.
	maxStretch = 16
)

// target is a URL to scrape. It belongs to one worker, unless several have the same.
type target struct {
	url     string
	phase   float64 // when in a round it is scraped, from 0 to 1
	workers []fleet.ScrapeTarget

	readable bool          // the last attempt succeeded
	duration time.Duration // of the last successful attempt
	large    bool          // the last response was large enough for gzip

	failures       int                 // in a row
	reason         stats.ScrapeFailure // of the last failure
	failureCounted bool                // since it was last due

	attempt *attempt         // nil: not being scraped
	queued  [queueCount]bool // it is in this queue
	due     [queueCount]bool // it is to be scraped by this queue
}

// attempt is an attempt to scrape a target.
type attempt struct {
	*target
	queue     int // whose slot it holds; noQueue after it has lost it
	started   time.Time
	slotSince time.Time // when it got that slot
	cancel    context.CancelFunc
	revoked   bool // it has lost its slot, and the target is to be tried again
	retryIn   int  // the queue in which the target is tried again
}

const noQueue = -1

// attemptResult is the result of an attempt.
type attemptResult struct {
	*attempt
	outcome
	duration time.Duration
}

// scheduler decides when a Scraper scrapes which target. One goroutine runs it; only the
// attempts run in others.
type scheduler struct {
	*Scraper
	byURL   map[string]*target // the targets of the last round
	queues  [queueCount]queue
	timed   [queueCount][]*attempt // attempts that may hold their slots for a limited time, oldest first
	results chan attemptResult
	running sync.WaitGroup

	durations    []time.Duration // of the successful attempts in this round
	quickTimeout time.Duration   // how long an attempt may hold a quick slot
	roundLength  time.Duration   // of the last round
	stretch      int             // by what factor rounds are longer than they should be
}

func newScheduler(scraper *Scraper, quick, slow, long int) *scheduler {
	s := &scheduler{Scraper: scraper, byURL: make(map[string]*target), quickTimeout: minQuickTimeout, stretch: 1}
	s.results = make(chan attemptResult, 2*(quick+slow+long)) // revoked attempts may still be running
	s.queues = [queueCount]queue{quickQueue: {free: quick}, slowQueue: {free: slow}, longQueue: {free: long, reserved: long / 2}}
	return s
}

// runRound scrapes each target once, unless an attempt is still running, and returns when the
// next round begins. When a worker can no longer be scraped, its last scraped values are kept for
// two rounds, or until the third failure if that takes longer.
func (s *scheduler) runRound(ctx context.Context, begin time.Time) (next time.Time) {
	targets := s.refreshTargets()
	length := s.nextRoundLength(len(targets))
	next = begin.Add(length)
	for _, t := range targets {
		s.runUntil(ctx, begin.Add(time.Duration(t.phase*float64(length))))
		if ctx.Err() != nil {
			return next
		}
		s.schedule(ctx, t)
	}
	s.runUntil(ctx, next)
	return next
}

// nextRoundLength returns the length of the next round: the interval, or more for many targets,
// and more while readable targets of the last round still wait. It also forgets expired scrapes,
// and adapts quickTimeout to the durations of the last round.
func (s *scheduler) nextRoundLength(targets int) time.Duration {
	if slices.ContainsFunc(s.queues[quickQueue].waiting[0], func(t *target) bool { return t.due[quickQueue] }) {
		s.stretch = min(2*s.stretch, maxStretch)
	} else {
		s.stretch = max(s.stretch/2, 1)
	}
	length := max(s.Interval, time.Duration(targets)*scrapeSpacing) * time.Duration(s.stretch)
	s.Fleet.ExpireScraped(2*max(length, s.roundLength) + s.slowestRead())
	s.roundLength = length
	if len(s.durations) > 0 {
		slices.Sort(s.durations)
		// However long the timeout is, a target that waits for a slow one is scraped soon.
		limit := min(s.timeout(), max(s.Interval, ScrapeTimeout)) / 2
		s.quickTimeout = max(minQuickTimeout, min(3*s.durations[len(s.durations)/2], limit))
		s.durations = s.durations[:0]
	}
	return length
}

// slowestRead returns the longest duration of the readable targets.
func (s *scheduler) slowestRead() (d time.Duration) {
	for _, t := range s.byURL {
		if t.readable {
			d = max(d, t.duration)
		}
	}
	return d
}

// schedule puts a target into the queue for its usual duration.
func (s *scheduler) schedule(ctx context.Context, t *target) {
	if t.attempt != nil {
		return
	}
	t.failureCounted = false
	in := quickQueue
	switch {
	case !t.readable || t.duration <= s.quickTimeout:
	case t.duration > slowTimeout:
		in = longQueue
	default:
		in = slowQueue
	}
	s.enqueue(t, in)
	s.startAttempts(ctx, in)
}

// refreshTargets returns the current targets in the order in which they are scraped.
func (s *scheduler) refreshTargets() []*target {
	byURL := make(map[string]*target)
	for _, w := range s.Fleet.ScrapeTargets(!s.AllWorkers) {
		at := s.URL(w)
		if at == "" {
			continue
		}
		t := byURL[at]
		if t == nil {
			if t = s.byURL[at]; t == nil {
				t = &target{url: at, phase: scrapePhase(at)}
			}
			t.workers, byURL[at] = nil, t // a new slice, because an attempt may use the old one
		}
		t.workers = append(t.workers, w)
	}
	s.byURL = byURL
	s.pruneQueues()
	all := make([]*target, 0, len(byURL))
	unread := make(map[fleet.Instance]fleet.FailedScrapes)
	for _, t := range byURL {
		all = append(all, t)
		for _, w := range t.workers {
			if t.failures > 0 {
				unread[w.Instance] = fleet.FailedScrapes{Times: t.failures, Why: t.reason}
			}
		}
	}
	s.Fleet.Diagnostics.SetFailedScrapes(unread)
	slices.SortFunc(all, func(a, b *target) int { return cmp.Or(cmp.Compare(a.phase, b.phase), strings.Compare(a.url, b.url)) })
	return all
}

// scrapePhase spreads targets over a round. A target has the same phase in every round.
func scrapePhase(url string) float64 {
	h := fnv.New64a()
	h.Write([]byte(url))
	return float64(h.Sum64()>>11) / (1 << 53)
}

// runUntil waits until a time. Meanwhile it handles results, starts attempts as slots become
// free, and revokes the slots of attempts that take too long.
func (s *scheduler) runUntil(ctx context.Context, at time.Time) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	for {
		wake, expired := at, noQueue
		for i, attempts := range s.timed {
			if len(attempts) > 0 && attempts[0].slotSince.Add(s.slotTimeout(i)).Before(wake) {
				wake, expired = attempts[0].slotSince.Add(s.slotTimeout(i)), i
			}
		}
		timer.Reset(time.Until(wake))
		select {
		case result := <-s.results:
			s.finish(ctx, result)
		case <-timer.C:
			if expired == noQueue {
				return
			}
			s.revokeSlot(ctx, expired)
		case <-ctx.Done():
			return
		}
	}
}

// finish handles the result of an attempt, and frees its slot.
func (s *scheduler) finish(ctx context.Context, result attemptResult) {
	t := result.target
	t.attempt = nil
	t.large = result.large
	switch {
	case result.ok:
		t.readable, t.duration, t.failures = true, result.duration, 0
		t.due[slowQueue], t.due[longQueue] = false, false
		s.durations = append(s.durations, result.duration)
	case result.revoked:
		s.countFailure(t, result.reason)
		s.enqueue(t, result.retryIn)
	default:
		t.readable = false
		s.countFailure(t, result.reason)
	}
	if result.queue != noQueue {
		s.timed[result.queue] = slices.DeleteFunc(s.timed[result.queue], func(o *attempt) bool { return o == result.attempt })
		s.queues[result.queue].free++
		s.startAttempts(ctx, result.queue)
	}
	s.startAttempts(ctx, slowQueue)
	s.startAttempts(ctx, longQueue)
}

// maxFailures is how many failures in a row a target may have before its scraped values are
// forgotten.
const maxFailures = 3

// countFailure counts a failure of a target that was due: once, however often it was tried.
func (s *scheduler) countFailure(t *target, why stats.ScrapeFailure) {
	t.reason = why
	if t.failureCounted {
		return
	}
	t.failureCounted = true
	if t.failures++; t.failures == maxFailures {
		for _, w := range t.workers {
			s.Fleet.RecordScrape(w, nil)
		}
	}
}
