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
	// ScrapeTimeout is how long a scrape may take if the Scraper sets no timeout. Timeouts may
	// be from MinScrapeTimeout to MaxScrapeTimeout.
	ScrapeTimeout    = 2 * time.Second
	MinScrapeTimeout = minQuickTimeout
	MaxScrapeTimeout = time.Minute

	dialTimeout = 500 * time.Millisecond // for the connection, so that an unreachable worker is found soon

	// maxIdle bounds the connections that are kept for the next scrape. The other workers of a
	// larger fleet are connected to again for each scrape.
	maxIdle = 256

	// descriptorShare is the part of the file descriptors that scrapes may use: a quarter.
	descriptorShare = 4

	maxHeader = 64 << 10
)

// Scraper reads the workers' own metrics. It reads each worker once per interval, and spreads the
// workers over the interval.
type Scraper struct {
	Fleet       *fleet.Fleet
	Namespaces  wire.Namespaces
	Interval    time.Duration
	Timeout     time.Duration                   // of one scrape; 0: ScrapeTimeout
	AllWorkers  bool                            // also scrape workers that report a complete load otherwise
	URL         func(fleet.ScrapeTarget) string // of a worker's metrics; empty: not scraped
	Descriptors int                             // file descriptors of the program, of which scrapes use a quarter at most; 0: no limit
	TLS         func() (*tls.Config, error)     // returns the configuration for TLS with workers; nil: the system's authorities, no client certificate
	Log         *slog.Logger

	client          *http.Client
	readers         sync.Pool // of *metricsReader
	logFirstRead    sync.Once
	logFirstFailure sync.Once
	logBadLine      sync.Once

	tlsConfig    atomic.Pointer[tls.Config] // the last one that TLS returned
	lastTLSError string                     // the last error of TLS; empty after a success

	dial func(ctx context.Context, network, address string) (net.Conn, error) // nil: over TCP
}

// Run scrapes until ctx ends, for the first time when the registry is synced.
func (s *Scraper) Run(ctx context.Context) error {
	quick, slow, long, idle := scrapeLimits(s.Descriptors)
	if s.dial == nil {
		s.dial = new(net.Dialer).DialContext
	}
	s.client = &http.Client{
		Transport: &http.Transport{
			DialContext:            s.dialContext,
			DialTLSContext:         s.dialTLSContext,
			DisableCompression:     true, // metricsReader requests it for large responses
			MaxIdleConns:           idle,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        2 * s.Interval,
			MaxResponseHeaderBytes: maxHeader,
		},
		// The registry decides where a worker's metrics are, and a response must not change that.
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
			begin = time.Now() // the machine was suspended
		}
	}
	return nil
}

// dialStateKey is the context key of an attempt's dialState. When a request is cancelled,
// http.Transport continues to dial for a later request. Many unreachable workers would leave
// more and more of these dials, so dialContext ends them with the attempt.
type dialStateKey struct{}

// dialState is the context of an attempt.
type dialState struct {
	context.Context
	dialing atomic.Bool // the connection is not made yet
}

// dialStateFrom returns the dialState of the attempt that a connection is made for, or nil.
func dialStateFrom(ctx context.Context) *dialState {
	a, _ := ctx.Value(dialStateKey{}).(*dialState)
	return a
}

// timeout returns how long a scrape may take.
func (s *Scraper) timeout() time.Duration { return cmp.Or(s.Timeout, ScrapeTimeout) }

// dialContext connects for an attempt, and stops when the attempt ends.
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
		return nil, scrapeError{err, stats.ScrapeNotConnected}
	}
	if a != nil {
		a.dialing.Store(false)
	}
	return conn, nil
}

// scrapeLimits returns how many scrapes of each queue run at the same time, and how many idle
// connections are kept: together a quarter of the file descriptors, so that enough are left for
// HTTP and the servers.
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

// outcome is the result of scraping a target once.
type outcome struct {
	ok     bool
	large  bool                // the response is large enough for gzip
	reason stats.ScrapeFailure // valid unless ok
}

// scrape reads a worker's metrics and records them. If ctx has ended, it records and counts
// nothing.
func (s *Scraper) scrape(ctx context.Context, at string, workers []fleet.ScrapeTarget, wasLarge bool) outcome {
	reader := s.readers.Get().(*metricsReader)
	defer s.readers.Put(reader)
	inTime, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	values, size, err := reader.get(inTime, s.client, at, wasLarge)
	if ctx.Err() != nil {
		return outcome{large: wasLarge, reason: failureReason(err)}
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
		why := failureReason(err)
		counts.CountScrapeFailure(why)
		counts.CountFailure(stats.PeerWorkerMetrics)
		s.logFailure(at, err)
		return outcome{large: size > minGzipSize, reason: why}
	}
	if faults.First != nil {
		s.logBadLine.Do(func() {
			s.Log.Warn("A line of a worker's metrics cannot be read; further ones are only counted", "url", withoutQuery(at), "error", faults.First)
		})
	}
	counts.CountScrape(s.record(workers, values))
	s.logFirstRead.Do(func() {
		s.Log.Info("Reading the workers' own metrics, at the first of their URLs", "url", withoutQuery(at))
	})
	return outcome{ok: true, large: size > minGzipSize}
}

// record records the metrics from one URL. Where several workers have the same URL, metrics that
// name no worker are ignored.
func (s *Scraper) record(workers []fleet.ScrapeTarget, values []wire.WorkerMetrics) stats.ScrapeResult {
	result := stats.ScrapeEmpty
	byWorker := make(map[uint64][]wire.WorkerMetrics) // by the id that they name
	var unnamed []wire.WorkerMetrics
	for _, v := range values {
		if v.Worker.OK {
			byWorker[v.Worker.V] = append(byWorker[v.Worker.V], v)
		} else if len(workers) == 1 {
			unnamed = append(unnamed, v)
		}
	}
	for _, w := range workers {
		var own []fleet.ScrapedValues
		for _, v := range append(byWorker[w.ID], unnamed...) {
			if v.Namespace == "" || v.Namespace == s.Namespaces.OfEndpoint(w.Endpoint) {
				v.Endpoint.Namespace = w.Endpoint.Namespace
				own = append(own, v.ScrapedValues)
			}
		}
		s.Fleet.RecordScrape(w, own)
		if len(own) > 0 {
			result = stats.ScrapeOK
		}
	}
	if result == stats.ScrapeEmpty && len(values) > 0 {
		s.Fleet.Stats.CountRejected(stats.WorkerMetrics, stats.BadID)
	}
	return result
}

// logFailure logs the first failure as a warning, and each one at debug.
func (s *Scraper) logFailure(at string, err error) {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // without the URL, which may contain secrets
	}
	s.logFirstFailure.Do(func() {
		s.Log.Warn("A worker's metrics cannot be read; further failures are only counted", "url", withoutQuery(at), "error", err)
	})
	s.Log.Debug("A worker's metrics cannot be read", "url", withoutQuery(at), "error", err)
}

// withoutQuery removes the query of a URL, which may contain secrets.
func withoutQuery(at string) string {
	at, _, _ = strings.Cut(at, "?")
	return at
}
