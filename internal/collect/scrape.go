package collect

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

const (
	scrapeTimeout = 2 * time.Second
	dialTimeout   = 500 * time.Millisecond // of it: who is not there is known sooner

	// Pages are read at the same time from so many workers. Those that were slow the last
	// time have places of their own, so that they take none from the others.
	quickPlaces, slowPlaces = 24, 8

	// pageTime is what a round has for each page at least: where there are many, it is longer
	// than the interval. A page takes a quarter of a millisecond of a core.
	pageTime = time.Millisecond

	// maxStretch bounds how much longer rounds become where there are not places enough.
	maxStretch = 16

	// maxIdle bounds the connections that are kept for the next scrape: a larger fleet is
	// connected to anew each time.
	maxIdle = 256

	maxHeader = 64 << 10
)

// Scraper reads the workers' own metrics pages, each once an interval, and spread over it.
type Scraper struct {
	Fleet      *fleet.Fleet
	Namespaces wire.Namespaces
	Interval   time.Duration
	All        bool                          // also of workers whose load is whole without them
	URL        func(fleet.WorkerPage) string // where a worker's page is; empty: nowhere
	Log        *slog.Logger

	client  *http.Client
	readers sync.Pool // of *pageReader
	read    sync.Once // says that a page was read
	unread  sync.Once // says that one could not be
}

// target is one page: of one worker, but where several are said to have the same.
type target struct {
	url   string
	phase float64 // when it is read: which part of a round has gone
	pages []fleet.WorkerPage

	busy  bool // it waits for a place, or is being read
	fresh bool // it has not been read yet
	slow  bool // as of the last time
	long  bool // likewise: it is worth compressing
}

// Run scrapes until ctx ends, for the first time when the registry is known.
func (s *Scraper) Run(ctx context.Context) error {
	s.client = &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:    scrapeTimeout,
			DisableCompression:     true, // it is asked for where it is worth while
			MaxIdleConns:           maxIdle,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        2 * s.Interval,
			MaxResponseHeaderBytes: maxHeader,
		},
		// Who answers for a worker is for the registry to say, not for whoever answers.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer s.client.CloseIdleConnections()
	s.readers.New = func() any { return new(pageReader) }
	r := rounds{Scraper: s, known: make(map[string]*target), ended: make(chan ended, quickPlaces+slowPlaces), stretch: 1}
	r.quick.places, r.slow.places = quickPlaces, slowPlaces
	defer r.running.Wait()
	select {
	case <-s.Fleet.Synced():
	case <-ctx.Done():
	}
	for begin := time.Now(); ctx.Err() == nil; {
		begin = r.round(ctx, begin)
		if time.Since(begin) > s.Interval {
			begin = time.Now() // the machine has slept
		}
	}
	return nil
}

// rounds are the Scraper's; all but the reading is done by one goroutine.
type rounds struct {
	*Scraper
	known       map[string]*target // by URL, as of the last round
	quick, slow lane
	ended       chan ended // of a place for each that is being read
	running     sync.WaitGroup

	length  time.Duration // of the last round
	stretch int           // how much longer it was than it should be
}

// lane is a queue with so many places. Those that were read before go first: of others
// nobody knows how long they take.
type lane struct {
	places         int
	waiting, fresh []*target
}

// next takes a target out of the queue; nil if there is none.
func (l *lane) next() (t *target) {
	switch {
	case len(l.waiting) > 0:
		t, l.waiting = l.waiting[0], l.waiting[1:]
	case len(l.fresh) > 0:
		t, l.fresh = l.fresh[0], l.fresh[1:]
	}
	return t
}

// ended is how a page was read.
type ended struct {
	*target
	from       *lane
	slow, long bool
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
// those of the last round still wait. It forgets what was scraped too long ago.
func (r *rounds) nextLength(pages int) time.Duration {
	if len(r.quick.waiting) > 0 {
		r.stretch = min(2*r.stretch, maxStretch)
	} else {
		r.stretch = max(r.stretch/2, 1)
	}
	length := max(r.Interval, time.Duration(pages)*pageTime) * time.Duration(r.stretch)
	r.Fleet.ForgetScraped(2 * max(length, r.length))
	r.length = length
	return length
}

// admit lets a page wait for a place.
func (r *rounds) admit(ctx context.Context, t *target) {
	if t.busy {
		return
	}
	t.busy = true
	from := &r.quick
	if t.slow {
		from = &r.slow
	}
	if t.fresh {
		from.fresh = append(from.fresh, t)
	} else {
		from.waiting = append(from.waiting, t)
	}
	r.start(ctx, from)
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
				t = &target{url: at, phase: phase(at), fresh: true}
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

// until waits until a time, and meanwhile gives places that become free to those who wait.
func (r *rounds) until(ctx context.Context, at time.Time) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	for {
		select {
		case e := <-r.ended:
			e.busy, e.fresh, e.target.slow, e.target.long = false, false, e.slow, e.long
			e.from.places++
			r.start(ctx, e.from)
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// start reads the pages that wait, as far as there are places.
func (r *rounds) start(ctx context.Context, from *lane) {
	for from.places > 0 {
		t := from.next()
		if t == nil {
			return
		}
		if r.known[t.url] != t { // it has gone meanwhile
			continue
		}
		from.places--
		at, pages, long := t.url, t.pages, t.long
		r.running.Go(func() {
			began := time.Now()
			long := r.scrape(ctx, at, pages, long)
			r.ended <- ended{t, from, time.Since(began) > scrapeTimeout/2, long}
		})
	}
}

// scrape reads a page and books what it says of its workers. It reports whether the page
// is long.
func (s *Scraper) scrape(ctx context.Context, at string, pages []fleet.WorkerPage, long bool) bool {
	reader := s.readers.Get().(*pageReader)
	defer s.readers.Put(reader)
	values, size, err := reader.get(ctx, s.client, at, long)
	if ctx.Err() != nil {
		return long
	}
	tally := &s.Fleet.Tally
	switch {
	case err == nil:
		tally.Receive(fleet.Pages)
	case errors.Is(err, errTooLarge), errors.Is(err, wire.ErrTooManySamples):
		tally.Receive(fleet.Pages)
		tally.Reject(fleet.Pages, fleet.TooLarge)
	case errors.Is(err, wire.ErrPage):
		tally.Receive(fleet.Pages)
		tally.Reject(fleet.Pages, fleet.BadText)
	}
	if err != nil {
		tally.Scraped(fleet.ScrapeError)
		s.tell(at, err)
		return size > worthCompressing
	}
	tally.Scraped(s.book(pages, values))
	s.read.Do(func() {
		s.Log.Info("Reading the workers' own metrics, at the first of their pages", "url", shortened(at))
	})
	return size > worthCompressing
}

// book books what a page says. Where several workers are said to have the same page, what
// does not say whose it is is nobody's.
func (s *Scraper) book(pages []fleet.WorkerPage, values []wire.PageValues) fleet.ScrapeResult {
	result := fleet.ScrapeEmpty
	for _, p := range pages {
		var ours []fleet.Scraped
		for _, v := range values {
			named := v.Worker.OK || len(pages) == 1
			if named && (!v.Worker.OK || v.Worker.V == p.ID) && (v.Namespace == "" || v.Namespace == s.Namespaces.Name(p.Endpoint)) {
				v.Endpoint.Namespace = p.Endpoint.Namespace
				ours = append(ours, v.Scraped)
			}
		}
		s.Fleet.Scrape(p, ours)
		if len(ours) > 0 {
			result = fleet.ScrapeOK
		}
	}
	if result == fleet.ScrapeEmpty && len(values) > 0 {
		s.Fleet.Tally.Reject(fleet.Pages, fleet.BadID)
	}
	return result
}

// tell says for once what is wrong with a page.
func (s *Scraper) tell(at string, err error) {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // it says the whole URL again
	}
	s.unread.Do(func() {
		s.Log.Warn("A worker's own metrics page cannot be read; more of that is only counted", "url", shortened(at), "error", err)
	})
	s.Log.Debug("A worker's own metrics page cannot be read", "url", shortened(at), "error", err)
}

// shortened is an URL without its query, in which there may be what nobody is to see.
func shortened(at string) string {
	at, _, _ = strings.Cut(at, "?")
	return at
}
