package collect

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

const (
	// ScrapeTimeout is how long a page may take, unless the Scraper says otherwise: from
	// LeastScrapeTimeout, which a page has in any case, to MostScrapeTimeout.
	ScrapeTimeout    = 2 * time.Second
	MinScrapeTimeout = minQuickTimeout
	MaxScrapeTimeout = time.Minute

	dialTimeout = 500 * time.Millisecond // of it: who is not there is known sooner

	// maxIdle bounds the connections that are kept for the next scrape: a larger fleet is
	// connected to anew each time.
	maxIdle = 256

	// scrapeShare of the file descriptors may be taken, one in so many.
	descriptorShare = 4

	maxHeader = 64 << 10
)

// Scraper reads the workers' own metrics pages, each once an interval, and spread over it.
type Scraper struct {
	Fleet       *fleet.Fleet
	Namespaces  wire.Namespaces
	Interval    time.Duration
	Timeout     time.Duration                   // of one page; 0: ScrapeTimeout
	AllWorkers  bool                            // also of workers whose load is whole without them
	URL         func(fleet.ScrapeTarget) string // where a worker's page is; empty: nowhere
	Descriptors int                             // file descriptors of the program, of which a quarter may be taken; 0: as many as it likes
	TLS         func() (*tls.Config, error)     // what TLS with workers needs now; nil: no more than the system has
	Log         *slog.Logger

	client          *http.Client
	readers         sync.Pool // of *pageReader
	logFirstRead    sync.Once // says that a page was read
	logFirstFailure sync.Once // says that one could not be
	logBadLine      sync.Once // says that a line of one could not be

	tlsConfig    atomic.Pointer[tls.Config] // what TLS last gave
	lastTLSError string                     // why it gave nothing the last time

	dial func(ctx context.Context, network, address string) (net.Conn, error) // nil: over TCP
}

// Run scrapes until ctx ends, for the first time when the registry is known.
func (s *Scraper) Run(ctx context.Context) error {
	quick, slow, long, idle := scrapeLimits(s.Descriptors)
	if s.dial == nil {
		s.dial = new(net.Dialer).DialContext
	}
	s.client = &http.Client{
		Transport: &http.Transport{
			DialContext:            s.dialContext,
			DialTLSContext:         s.dialTLSContext,
			DisableCompression:     true, // it is asked for where it is worth while
			MaxIdleConns:           idle,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        2 * s.Interval,
			MaxResponseHeaderBytes: maxHeader,
		},
		// Who answers for a worker is for the registry to say, not for whoever answers.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer s.client.CloseIdleConnections()
	s.readers.New = func() any { return new(metricsReader) }
	r := newScheduler(s, quick, slow, long)
	defer r.running.Wait()
	select {
	case <-s.Fleet.Synced():
	case <-ctx.Done():
	}
	for begin := time.Now(); ctx.Err() == nil; {
		s.reloadTLS()
		begin = r.runRound(ctx, begin)
		if time.Since(begin) > s.Interval {
			begin = time.Now() // the machine has slept
		}
	}
	return nil
}

// attempt is the key of a context's value: the asking of the attempt to read a page. A
// request that is given up leaves its connection to be made by itself, for whatever comes
// next; many that are out of reach would leave more and more of them.
type dialStateKey struct{}

// asking is the context of an attempt to read a page.
type dialState struct {
	context.Context
	dialing atomic.Bool // a connection is being made, and is not there yet
}

// askingIn is the one that a connection is made for; nil if it is not known.
func dialStateFrom(ctx context.Context) *dialState {
	a, _ := ctx.Value(dialStateKey{}).(*dialState)
	return a
}

// timeout is how long a page may take.
func (s *Scraper) timeout() time.Duration { return cmp.Or(s.Timeout, ScrapeTimeout) }

// connect connects for an attempt, no longer than it lasts.
func (s *Scraper) dialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	a := dialStateFrom(ctx)
	if a != nil {
		a.dialing.Store(true)
		defer context.AfterFunc(a, cancel)()
	}
	conn, err := s.dial(ctx, network, address)
	if err != nil {
		return nil, troubleError{err, stats.ScrapeNotConnected}
	}
	if a != nil {
		a.dialing.Store(false)
	}
	return conn, nil
}

// scrapePlaces is from how many workers pages are read at the same time, quickly, slowly and
// at length, and how many connections are kept: a quarter of the file descriptors in all, so
// that HTTP and the servers have theirs.
func scrapeLimits(descriptors int) (quick, slow, long, idle int) {
	if descriptors <= 0 {
		return quickSlots, slowSlots, longSlots, maxIdle
	}
	all := descriptors / descriptorShare
	slow = max(1, min(all/8, slowSlots))
	long = max(1, min(all/8, longSlots))
	quick = max(1, min(all/3, quickSlots))
	return quick, slow, long, max(1, min(all-quick-slow-long, maxIdle))
}

// outcome is how an attempt to read a page has ended.
type outcome struct {
	ok, large bool                // it was read; it is long
	reason    stats.ScrapeFailure // it was not
}

// scrape reads a page and books what it says of its workers. Nothing is booked nor counted
// if ctx has ended.
func (s *Scraper) scrape(ctx context.Context, at string, pages []fleet.ScrapeTarget, wasLong bool) outcome {
	reader := s.readers.Get().(*metricsReader)
	defer s.readers.Put(reader)
	inTime, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	values, size, err := reader.get(inTime, s.client, at, wasLong)
	if ctx.Err() != nil {
		return outcome{large: wasLong, reason: troubleOf(err)}
	}
	counts, faults := &s.Fleet.Stats, reader.parser.Faults
	switch {
	case err == nil, errors.Is(err, wire.ErrWorkerMetrics):
		counts.CountMessage(stats.WorkerMetrics)
	case errors.Is(err, errTooLarge), errors.Is(err, wire.ErrTooManySamples):
		counts.CountMessage(stats.WorkerMetrics)
		counts.CountRejected(stats.WorkerMetrics, stats.TooLarge)
	}
	counts.AddRejected(stats.WorkerMetrics, stats.BadText, faults.Lines)
	counts.AddRejected(stats.WorkerMetrics, stats.OutOfRange, faults.Invalid)
	if err != nil {
		why := troubleOf(err)
		counts.CountScrapeFailure(why)
		counts.CountFailure(stats.PeerWorkerMetrics)
		s.logFailure(at, err)
		return outcome{large: size > minGzipSize, reason: why}
	}
	if faults.First != nil {
		s.logBadLine.Do(func() {
			s.Log.Warn("A line of a worker's own metrics page cannot be read; more of that is only counted", "url", withoutQuery(at), "error", faults.First)
		})
	}
	counts.CountScrape(s.record(pages, values))
	s.logFirstRead.Do(func() {
		s.Log.Info("Reading the workers' own metrics, at the first of their pages", "url", withoutQuery(at))
	})
	return outcome{ok: true, large: size > minGzipSize}
}

// book books what a page says. Where several workers are said to have the same page, what
// does not say whose it is is nobody's.
func (s *Scraper) record(pages []fleet.ScrapeTarget, values []wire.WorkerMetrics) stats.ScrapeResult {
	result := stats.ScrapeEmpty
	of := make(map[uint64][]wire.WorkerMetrics) // by the worker that they name
	var unnamed []wire.WorkerMetrics
	for _, v := range values {
		if v.Worker.OK {
			of[v.Worker.V] = append(of[v.Worker.V], v)
		} else if len(pages) == 1 {
			unnamed = append(unnamed, v)
		}
	}
	for _, p := range pages {
		var ours []fleet.ScrapedValues
		for _, v := range append(of[p.ID], unnamed...) {
			if v.Namespace == "" || v.Namespace == s.Namespaces.OfEndpoint(p.Endpoint) {
				v.Endpoint.Namespace = p.Endpoint.Namespace
				ours = append(ours, v.ScrapedValues)
			}
		}
		s.Fleet.RecordScrape(p, ours)
		if len(ours) > 0 {
			result = stats.ScrapeOK
		}
	}
	if result == stats.ScrapeEmpty && len(values) > 0 {
		s.Fleet.Stats.CountRejected(stats.WorkerMetrics, stats.BadID)
	}
	return result
}

// tell says for once what is wrong with a page.
func (s *Scraper) logFailure(at string, err error) {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // it says the whole URL again
	}
	s.logFirstFailure.Do(func() {
		s.Log.Warn("A worker's own metrics page cannot be read; more of that is only counted", "url", withoutQuery(at), "error", err)
	})
	s.Log.Debug("A worker's own metrics page cannot be read", "url", withoutQuery(at), "error", err)
}

// shortened is an URL without its query, in which there may be what nobody is to see.
func withoutQuery(at string) string {
	at, _, _ = strings.Cut(at, "?")
	return at
}
