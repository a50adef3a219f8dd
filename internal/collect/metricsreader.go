package collect

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

const (
	// maxMetricsSize bounds a response in bytes, both compressed and decompressed.
	maxMetricsSize = 4 << 20

	// minGzipSize is the size in bytes from which on a response is requested in gzip.
	// Compression takes time that the worker needs for its requests, and Dynamo's own server
	// does not support it.
	minGzipSize = 64 << 10
)

var errTooLarge = errors.New("the metrics are larger than 4 MiB")

// metricsReader reads workers' metrics over HTTP, one response at a time.
type metricsReader struct {
	parser wire.WorkerMetricsReader
	gzip   gzip.Reader
}

// get reads the metrics at a URL, and returns their size in bytes. wasLarge requests gzip.
func (r *metricsReader) get(ctx context.Context, client *http.Client, url string, wasLarge bool) (values []wire.WorkerMetrics, size int, err error) {
	r.parser.Faults = wire.WorkerMetricsFaults{}
	a := &dialState{Context: ctx}
	request, err := http.NewRequestWithContext(context.WithValue(ctx, dialStateKey{}, a), http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Accept", "text/plain;version=0.0.4,*/*;q=0.1")
	request.Header.Set("Accept-Encoding", "identity")
	if wasLarge {
		request.Header.Set("Accept-Encoding", "gzip")
	}
	request.Header.Set("User-Agent", "dynamo-metrics")
	response, err := client.Do(request)
	if err != nil && ctx.Err() != nil && a.dialing.Load() { // the error does not tell the dial from the response
		err = scrapeError{err, stats.ScrapeNotConnected}
	}
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, 0, scrapeError{fmt.Errorf("answered with %s", response.Status), stats.ScrapeBadStatus}
	}
	sent := &limitedReader{r: response.Body}
	body := sent
	switch encoding := response.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		if err := r.gzip.Reset(sent); err != nil {
			return nil, 0, err
		}
		body = &limitedReader{r: &r.gzip}
	default:
		return nil, 0, fmt.Errorf("answered in the encoding %q", encoding)
	}
	values, err = r.parser.Read(body)
	return values, body.n, err
}

// scrapeError is an error with the reason under which the failed scrape is counted.
type scrapeError struct {
	error
	kind stats.ScrapeFailure
}

func (t scrapeError) Unwrap() error { return t.error }

// failureReason returns the reason why a scrape failed. A nil error means that it was too slow.
func failureReason(err error) stats.ScrapeFailure {
	t := scrapeError{}
	switch {
	case errors.As(err, &t):
		return t.kind
	case err == nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return stats.ScrapeTimedOut
	}
	return stats.ScrapeUnreadable
}

// limitedReader fails once more than maxMetricsSize bytes have been read.
type limitedReader struct {
	r io.Reader
	n int
}

func (l *limitedReader) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if l.n += n; l.n > maxMetricsSize { // also if err is io.EOF
		return 0, errTooLarge
	}
	return n, err
}
