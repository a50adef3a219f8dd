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
	maxPage = 4 << 20

	// worthCompressing is from when on a page is asked for in gzip: to compress takes the
	// worker time that its requests need, and Dynamo's own server does not do it at all.
	worthCompressing = 64 << 10
)

var errTooLarge = errors.New("a metrics page of more than 4 MiB")

// pageReader gets pages over HTTP, one after the other.
type pageReader struct {
	pages wire.WorkerMetricsReader
	gzip  gzip.Reader
}

// get reads a page, and says how long it is. Long: it was so the last time.
func (r *pageReader) get(ctx context.Context, client *http.Client, url string, long bool) (values []wire.WorkerMetrics, size int, err error) {
	r.pages.Faults = wire.WorkerMetricsFaults{}
	a := &asking{Context: ctx}
	request, err := http.NewRequestWithContext(context.WithValue(ctx, attempt{}, a), http.MethodGet, url, nil)
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
	if err != nil && ctx.Err() != nil && a.dialling.Load() { // it is not said by which of the two
		err = troubled{err, stats.ScrapeNotConnected}
	}
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, 0, troubled{fmt.Errorf("answered with %s", response.Status), stats.ScrapeBadStatus}
	}
	sent := &limited{in: response.Body}
	page := sent
	switch encoding := response.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		if err := r.gzip.Reset(sent); err != nil {
			return nil, 0, err
		}
		page = &limited{in: &r.gzip}
	default:
		return nil, 0, fmt.Errorf("answered in the encoding %q", encoding)
	}
	values, err = r.pages.Read(page)
	return values, page.n, err
}

// troubled is an error of which it is known what kind of trouble it is.
type troubled struct {
	error
	kind stats.ScrapeFailure
}

func (t troubled) Unwrap() error { return t.error }

// troubleOf is why a page could not be read, or, without an error, not soon enough.
func troubleOf(err error) stats.ScrapeFailure {
	t := troubled{}
	switch {
	case errors.As(err, &t):
		return t.kind
	case err == nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return stats.ScrapeTimedOut
	}
	return stats.ScrapeUnreadable
}

// limited reads no more than a page may have.
type limited struct {
	in io.Reader
	n  int
}

func (l *limited) Read(b []byte) (int, error) {
	n, err := l.in.Read(b)
	if l.n += n; l.n > maxPage { // the end may come with what is too much
		return 0, errTooLarge
	}
	return n, err
}
