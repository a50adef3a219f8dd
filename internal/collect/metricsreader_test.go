package collect

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/memnet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// TestScraperTLSNeedsTrustedServer sets up a server whose authority is unknown, and one that does
// not respond. Neither delays the other workers.
func TestScraperTLSNeedsTrustedServer(t *testing.T) {
	t.Parallel()
	f := newMetricsServer(t)
	f.register(1, blocksHandler(1))
	f.register(2, blocksHandler(2))
	f.register(3, blocksHandler(3))
	secure := httptest.NewUnstartedServer(f) // its authority is unknown
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	f.scrape(func(s *Scraper) {
		s.URL = func(p fleet.ScrapeTarget) string {
			return []string{f.server.URL, secure.URL, "https://" + silent.Addr().String()}[p.ID-1] + "/" + wire.HexID(p.ID)
		}
	})
	f.waitLoads(map[uint64]fleet.Load{1: blocksLoad(1)})
	testutil.Until(t, func() error {
		if n := f.fleet.Stats.Failures(stats.PeerWorkerMetrics); n < 3 {
			return fmt.Errorf("%d failures", n)
		}
		return nil
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.requests[2]+f.requests[3] > 0 {
		t.Errorf("requests %v, want none to the servers that are not trusted", f.requests)
	}
}

// TestMetricsReaderBoundsSize checks that a response may have 4 MiB, compressed or not, and its
// headers some 60 KiB.
func TestMetricsReaderBoundsSize(t *testing.T) {
	t.Parallel()
	body := func(size int) string {
		const end = "vllm:num_requests_waiting 1\n"
		return strings.Repeat("x 1\n", (size-len(end))/4) + end
	}
	compressed := func(size int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			io.WriteString(z, body(size))
		}
	}
	headers := func(size int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", size))
			textHandler(body(1000))(w, r)
		}
	}
	const most = 4_194_304
	for name, c := range map[string]struct {
		body http.HandlerFunc
		want error
		fits bool
	}{
		"the largest":                 {textHandler(body(most)), nil, true},
		"a little larger":             {textHandler(body(most + 4)), errTooLarge, false},
		"the largest, compressed":     {compressed(most), nil, true},
		"a little larger, compressed": {compressed(most + 4), errTooLarge, false},
		"long headers":                {headers(60_000), nil, true},
		"headers that are too long":   {headers(66_000), nil, false},
		"extremely long headers":      {headers(10 << 20), nil, false},
	} {
		synctest.Test(t, func(t *testing.T) { // a slow machine cannot exceed the timeout
			network := memnet.New()
			server := &http.Server{Handler: c.body}
			go server.Serve(network)
			s := &Scraper{Fleet: fleet.New(fleet.Target{}, 10, true), Interval: time.Second, dial: network.Dial}
			ctx, stop := context.WithCancel(t.Context())
			stop()
			s.Run(ctx) // sets s.client
			values, _, err := new(metricsReader).get(t.Context(), s.client, "http://h:1/", false)
			if fits := err == nil && len(values) == 1; fits != c.fits || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s: %d values and %v; want it read: %v", name, len(values), err, c.fits)
			}
			s.client.CloseIdleConnections()
			server.Close()
			network.Close()
			time.Sleep(time.Second)
		})
	}
}
