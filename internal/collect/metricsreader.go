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
	// maxPage bounds a page in bytes, compressed or not.
	maxMetricsSize = 4 << 20

	// worthCompressing is from when on a page is asked for in gzip: to compress takes the
	// worker time that its requests need, and Dynamo's own server does not do it at all.
	minGzipSize = 64 << 10
)

var errTooLarge = errors.New("a metrics page of more than 4 MiB")

// pageReader gets pages over HTTP, one after the other.
type metricsReader struct {
	parser wire.WorkerMetricsReader
	gzip   gzip.Reader
}

// get reads a page, and says how long it is. Long: it was so the last time.
func (r *metricsReader) get(ctx context.Context, client *http.Client, url string, long bool) (values []wire.WorkerMetrics, size int, err error) {
	r.parser.Faults = wire.WorkerMetricsFaults{}
	a := &dialState{Context: ctx}
	request, err := http.NewRequestWithContext(context.WithValue(ctx, dialStateKey{}, a), http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Accept", "text/plain;version=0.0.4,*/*;q=0.1")
	request.Header.Set("Accept-Encoding", "identity")
	if long {
		request.Header.Set("Accept-Encoding", "gzip")
	}
	request.Header.Set("User-Agent", "dynamo-metrics")
	response, err := client.Do(request)
	if err != nil && ctx.Err() != nil && a.dialing.Load() { // it is not said by which of the two
		err = troubleError{err, stats.ScrapeNotConnected}
	}
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, 0, troubleError{fmt.Errorf("answered with %s", response.Status), stats.ScrapeBadStatus}
	}
	sent := &limitedReader{r: response.Body}
	page := sent
	switch encoding := response.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		if err := r.gzip.Reset(sent); err != nil {
			return nil, 0, err
		}
		page = &limitedReader{r: &r.gzip}
	default:
		return nil, 0, fmt.Errorf("answered in the encoding %q", encoding)
	}
	values, err = r.parser.Read(page)
	return values, page.n, err
}

// troubled is an error of which it is known what kind of trouble it is.
type troubleError struct {
	error
	kind stats.ScrapeFailure
}

func (t troubleError) Unwrap() error { return t.error }

// troubleOf is why a page could not be read, or, without an error, not soon enough.
func troubleOf(err error) stats.ScrapeFailure {
	t := troubleError{}
	switch {
	case errors.As(err, &t):
		return t.kind
	case err == nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return stats.ScrapeTimedOut
	}
	return stats.ScrapeUnreadable
}

// limited reads no more than a page may have.
type limitedReader struct {
	r io.Reader
	n int
}

func (l *limitedReader) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if l.n += n; l.n > maxMetricsSize { // the end may come with what is too much
		return 0, errTooLarge
	}
	return n, err
}
