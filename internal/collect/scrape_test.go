package collect

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

var ofBackend = fleet.Endpoint{Component: "backend", Name: "generate"}

// farm is a Fleet whose workers all have their pages on one server, each at a path of its
// own: its id in hexadecimal.
type farm struct {
	t      *testing.T
	fleet  *fleet.Fleet
	server *httptest.Server
	log    bytes.Buffer

	mu    sync.Mutex
	pages map[uint64]http.HandlerFunc
	asked map[uint64]int
	now   int // requests that are being answered
	most  int // of them at once
}

func newFarm(t *testing.T) *farm {
	f := &farm{t: t, fleet: fleet.New(fleet.Target{}, 1000, true), pages: make(map[uint64]http.HandlerFunc), asked: make(map[uint64]int)}
	f.fleet.Sync(fleet.Listing{})
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *farm) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var id uint64
	fmt.Sscanf(r.URL.Path, "/%x", &id)
	f.mu.Lock()
	page := f.pages[id]
	f.asked[id]++
	f.now++
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	page(w, r)
	f.mu.Lock()
	f.now--
	f.mu.Unlock()
}

// join registers a worker that has this page.
func (f *farm) join(id uint64, page http.HandlerFunc) {
	f.mu.Lock()
	f.pages[id] = page
	f.mu.Unlock()
	f.fleet.Register("", fleet.Instance{Endpoint: ofBackend, ID: id}, fleet.Registration{Publishes: true})
}

// scrape scrapes until the end of the test.
func (f *farm) scrape(change func(*Scraper)) {
	s := &Scraper{
		Fleet: f.fleet, Namespaces: "dynamo", Interval: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&f.log, nil)),
		URL: func(p fleet.ScrapeTarget) string { return f.server.URL + "/" + wire.HexID(p.ID) },
	}
	if change != nil {
		change(s)
	}
	b := bench{t: f.t}
	b.run(s.Run)
	b.run(func(ctx context.Context) error {
		for ctx.Err() == nil {
			f.fleet.Advance(time.Now())
			time.Sleep(time.Millisecond) // the clock's steps
		}
		return nil
	})
}

// shows waits until the workers have these loads, by their ids; those without one have none.
func (f *farm) shows(want map[uint64]fleet.Load) {
	f.t.Helper()
	testutil.Until(f.t, func() error {
		for _, w := range f.fleet.Snapshot().Workers {
			if w.Load.V != want[w.ID.Lease] {
				return fmt.Errorf("worker %d has %+v, want %+v", w.ID.Lease, w.Load, want[w.ID.Lease])
			}
		}
		return nil
	})
}

// scraped waits until the worker's page was asked for so often.
func (f *farm) scraped(id uint64, times int) {
	f.t.Helper()
	testutil.Until(f.t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.asked[id] < times {
			return fmt.Errorf("worker %d was asked %d times, want %d", id, f.asked[id], times)
		}
		return nil
	})
}

func (f *farm) tally(want map[stats.ScrapeResult]bool) {
	f.t.Helper()
	for _, r := range stats.ScrapeResults() {
		if got := f.fleet.Stats.Scrapes(r); got > 0 != want[r] {
			f.t.Errorf("%d scrapes ended with %s, want some: %v", got, r, want[r])
		}
	}
}

// text is a page of this text.
func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, s)
	}
}

// blocks is a page of so many blocks in use of a thousand.
func blocks(n int) http.HandlerFunc {
	return text(fmt.Sprintf("trtllm_kv_cache_used_blocks %d\ntrtllm_kv_cache_max_blocks 1000\ntrtllm_kv_cache_utilization 0.5\n", n))
}

func inUse(n uint64) fleet.Load {
	return fleet.Load{KVActive: fleet.Some(n), KVTotal: fleet.Some[uint64](1000), CacheUsage: fleet.Some(0.5)}
}

// stall answers nothing until the client has gone.
func stall(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// captured is a page of wire's testdata.
func capturedPage(t *testing.T, path string) http.HandlerFunc {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "wire", "testdata", path))
	if err != nil {
		t.Fatal(err)
	}
	return text(string(b))
}

func TestWorkersOwnPagesAreBooked(t *testing.T) {
	t.Parallel()
	f := newFarm(t)
	n := fleet.Some[uint64]
	f.join(1, blocks(40))
	f.join(2, text("# nothing of use\nup 1\n"))
	f.join(0x6a6ca214c850b02e, capturedPage(t, "engines/vllm.prom"))
	f.scrape(nil)
	f.shows(map[uint64]fleet.Load{
		1: inUse(40),
		0x6a6ca214c850b02e: { // the sum of two ranks
			KVActive: n(3224 + 1), KVTotal: n(2 * 12894), Waiting: n(5), CacheUsage: fleet.Some((0.25 + 8.34e-05) / 2), HitRate: fleet.Some(451475.0 / 1805903),
		},
	})
	f.scraped(2, 2) // the first has been booked
	f.tally(map[stats.ScrapeResult]bool{stats.ScrapeOK: true, stats.ScrapeEmpty: true})
	if got := f.fleet.Stats.Rejected(stats.WorkerMetrics, stats.BadID); got != 0 {
		t.Errorf("%d pages are of others", got)
	}
}

func TestOnlyWorkersWithoutAWholeLoadAreScrapedByThemselves(t *testing.T) {
	t.Parallel()
	n := fleet.Some[uint64]
	whole := fleet.Load{KVActive: n(1), KVTotal: n(2), ActiveSlots: n(3), TotalSlots: n(4), Waiting: n(5), HitRate: fleet.Some(0.5)}
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprint(all), func(t *testing.T) {
			f := newFarm(t)
			f.join(1, blocks(40))
			f.join(2, text("vllm:kv_cache_usage_perc 0.25\n"))
			f.fleet.RecordLoad(fleet.Origin{Endpoint: ofBackend, Worker: 2}, fleet.FromLoadEvent, whole)
			f.scrape(func(s *Scraper) { s.All = all })
			want := whole
			want.CacheUsage = fleet.Some(0.5) // of the blocks
			if all {
				want.CacheUsage = fleet.Some(0.25)
			}
			f.shows(map[uint64]fleet.Load{1: inUse(40), 2: want})
			f.scraped(1, 3)
			f.mu.Lock()
			defer f.mu.Unlock()
			if asked := f.asked[2]; asked > 0 != all {
				t.Errorf("the worker whose load is whole was asked %d times", asked)
			}
		})
	}
}

// TestBadPagesAreNoTroubleOfTheGoodOne has one that stalls, one that stalls in the middle,
// one that sends 100 MB, garbage, a gzip bomb, gzip that breaks, a redirect, headers
// without end, an error, and one that hangs up.
func TestBadPagesAreNoTroubleOfTheGoodOne(t *testing.T) {
	t.Parallel()
	f := newFarm(t)
	good := 0
	f.join(1, func(w http.ResponseWriter, r *http.Request) { good++; blocks(good)(w, r) })
	f.join(2, stall)
	f.join(3, func(w http.ResponseWriter, r *http.Request) {
		blocks(3)(w, r)
		w.(http.Flusher).Flush()
		stall(w, r)
	})
	f.join(4, func(w http.ResponseWriter, _ *http.Request) {
		line := bytes.Repeat([]byte("x 1\n"), 1<<18)
		for range 100 {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	f.join(5, text("trtllm_kv_cache_used_blocks \x00\xff{{{\n"))
	f.join(6, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		zeros := bytes.Repeat([]byte("y 1\n"), 1<<18)
		for range 100 {
			if _, err := z.Write(zeros); err != nil {
				return
			}
		}
	})
	f.join(7, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		blocks(7)(w, r)
	})
	f.join(8, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/1", http.StatusFound) })
	f.join(9, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 64<<10))
		blocks(9)(w, r)
	})
	f.join(10, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		blocks(10)(w, r)
	})
	f.join(11, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	})
	f.join(12, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		blocks(12)(w, r)
	})
	f.join(13, text(strings.Repeat("vllm:num_requests_running{engine=\"0\"} 1\n", 20_000)))
	f.scrape(func(s *Scraper) { s.Interval = time.Second }) // so that two cores can read the large ones, too
	for id := range uint64(13) {
		f.scraped(1+id, 2)
	}
	f.scraped(1, 5)
	seen := false // a slow machine may need longer for the good page than its load is kept
	testutil.Until(t, func() error {
		for _, w := range f.fleet.Snapshot().Workers {
			switch {
			case w.ID.Lease != 1 && w.Load.OK:
				t.Fatalf("worker %d has %+v of a page that is bad", w.ID.Lease, w.Load)
			case w.ID.Lease == 1:
				seen = seen || w.Load.V.KVActive.V >= 4
			}
		}
		if !seen {
			return errors.New("worker 1, whose page is good, has no load")
		}
		for reason, least := range map[stats.Reason]uint64{stats.TooLarge: 3, stats.BadText: 1} {
			if got := f.fleet.Stats.Rejected(stats.WorkerMetrics, reason); got < least {
				return fmt.Errorf("%d pages rejected for %s, want %d", got, reason, least)
			}
		}
		return nil
	})
	f.tally(map[stats.ScrapeResult]bool{stats.ScrapeOK: true, stats.ScrapeError: true})
	if said := strings.Count(f.log.String(), "level=WARN"); said != 1 {
		t.Errorf("the log warns %d times, want once:\n%s", said, f.log.String())
	}
}

func TestLongPagesAreAskedForInGzip(t *testing.T) {
	t.Parallel()
	f := newFarm(t)
	long := strings.Repeat("x 1\n", 64<<10/4)
	var mu sync.Mutex
	asked := make(map[string][]string)
	page := func(name, more string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked[name] = append(asked[name], r.Header.Get("Accept-Encoding"))
			mu.Unlock()
			if r.Header.Get("Accept-Encoding") != "gzip" {
				io.WriteString(w, more+"vllm:num_requests_waiting 1\n")
				return
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			io.WriteString(z, more+"vllm:num_requests_waiting 2\n")
		}
	}
	f.join(1, page("short", ""))
	f.join(2, page("long", long))
	f.scrape(nil)
	f.scraped(1, 3)
	f.scraped(2, 3)
	n := fleet.Some[uint64]
	f.shows(map[uint64]fleet.Load{1: {Waiting: n(1)}, 2: {Waiting: n(2)}})
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(asked["short"][:3], " "); got != "identity identity identity" {
		t.Errorf("the short page was asked for in %s", got)
	}
	if got := strings.Join(asked["long"][:3], " "); got != "identity gzip gzip" {
		t.Errorf("the long page was asked for in %s", got)
	}
}

func TestAPageOfAnotherWorkerIsNotBooked(t *testing.T) {
	t.Parallel()
	f := newFarm(t)
	f.join(1, text(`vllm:num_requests_waiting{worker_id="2",dynamo_namespace="dynamo"} 5`))
	f.join(2, text(`vllm:num_requests_waiting{worker_id="2",dynamo_namespace="other"} 5`))
	f.join(3, text(`vllm:num_requests_waiting{worker_id="3",dynamo_namespace="dynamo"} 5`))
	f.scrape(nil)
	f.shows(map[uint64]fleet.Load{3: {Waiting: fleet.Some[uint64](5)}})
	for id := range uint64(3) {
		f.scraped(1+id, 3)
	}
	f.shows(map[uint64]fleet.Load{3: {Waiting: fleet.Some[uint64](5)}})
	if got := f.fleet.Stats.Rejected(stats.WorkerMetrics, stats.BadID); got < 4 {
		t.Errorf("%d pages are of others, want at least 4", got)
	}
}

// TestOnAPageOfSeveralOnlyWhatIsNamedIsBooked, as on that of several workers in a process.
func TestOnAPageOfSeveralOnlyWhatIsNamedIsBooked(t *testing.T) {
	t.Parallel()
	f := newFarm(t)
	page := text("sglang:token_usage 0.5\n" + `vllm:num_requests_waiting{worker_id="1"} 5` + "\n" + `vllm:num_requests_waiting{worker_id="2"} 6`)
	f.join(1, page)
	f.join(2, page)
	f.join(3, page)
	f.scrape(func(s *Scraper) { s.URL = func(fleet.ScrapeTarget) string { return f.server.URL + "/1" } })
	n := fleet.Some[uint64]
	f.shows(map[uint64]fleet.Load{1: {Waiting: n(5)}, 2: {Waiting: n(6)}})
	f.scraped(1, 3)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked[2]+f.asked[3] > 0 {
		t.Errorf("asked for %v", f.asked)
	}
	f.tally(map[stats.ScrapeResult]bool{stats.ScrapeOK: true})
}
