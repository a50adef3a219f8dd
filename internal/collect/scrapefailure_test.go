package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// unreadByID returns the workers whose metrics cannot be read, by id.
func unreadByID(f *fleet.Fleet) map[uint64]fleet.FailedScrapes {
	all := make(map[uint64]fleet.FailedScrapes)
	for in, failure := range f.Diagnostics.FailedScrapes() {
		all[in.ID] = failure
	}
	return all
}

// TestScraperTimeoutMayExceedInterval sets up slow workers. If the timeout allows it, they are read
// as often as possible, and their loads stay until then. The others are read as usual.
func TestScraperTimeoutMayExceedInterval(t *testing.T) {
	t.Parallel()
	for timeout, readable := range map[time.Duration]bool{0: false, 11 * time.Second: false, 13 * time.Second: true, time.Minute: true} {
		runMetricsNetworkWith(t, 20, 5*time.Second, func(s *Scraper) { s.Timeout = timeout }, func(w *metricsNetwork) {
			w.setBehavior(responds, shuffled(20, 1)...)
			w.setBehavior(respondsLate, 1, 2)
			w.checkReads(40 * time.Second)
			for range 60 {
				w.checkReads(500 * time.Millisecond)
				for _, x := range w.fleet.Snapshot().Workers {
					if want := x.ID.Lease > 2 || readable; x.Load.OK != want {
						w.t.Fatalf("with %s worker %d has a load: %v, want %v", timeout, x.ID.Lease, x.Load.OK, want)
					}
				}
			}
			switch got := unreadByID(w.fleet); {
			case readable && len(got) > 0:
				w.t.Errorf("with %s, some workers are unread: %v", timeout, got)
			case !readable && (len(got) != 2 || got[1].Times < 3 || got[2].Times < 3 || got[1].Why != stats.ScrapeTimedOut):
				w.t.Errorf("with %s, the unread workers are %v, want 1 and 2", timeout, got)
			}
			w.setBehavior(refuses, 3)
			time.Sleep(16 * time.Second) // three failures, in less time than a slow worker's load is kept
			for _, x := range w.fleet.Snapshot().Workers {
				if want := x.ID.Lease > 3 || readable && x.ID.Lease < 3; x.Load.OK != want {
					w.t.Fatalf("with %s worker %d has a load: %v, want %v after three failures of worker 3", timeout, x.ID.Lease, x.Load.OK, want)
				}
			}
			if n := w.fleet.Stats.ScrapeFailures(stats.ScrapeTimedOut); n > 0 == readable {
				w.t.Errorf("with %s, %d scrapes timed out", timeout, n)
			}
		})
	}
}

// TestScraperReportsUnreadWorkers checks that workers are listed with a reason until they can be
// read, or have left, or need no scrape any more.
func TestScraperReportsUnreadWorkers(t *testing.T) {
	t.Parallel()
	runMetricsNetwork(t, 9, 5*time.Second, func(w *metricsNetwork) {
		w.setBehavior(responds, shuffled(9, 1)...)
		w.checkReads(11 * time.Second)
		if got := unreadByID(w.fleet); len(got) > 0 {
			t.Errorf("the unread workers are %v", got)
		}
		w.setBehavior(dropsPackets, 1, 7)
		w.setBehavior(refuses, 2)
		w.setBehavior(hangs, 3, 8)
		w.setBehavior(stalls, 4)
		w.setBehavior(respondsLate, 5)
		w.checkReads(21 * time.Second)
		why := map[uint64]stats.ScrapeFailure{
			1: stats.ScrapeNotConnected, 7: stats.ScrapeNotConnected, 2: stats.ScrapeNotConnected,
			3: stats.ScrapeTimedOut, 8: stats.ScrapeTimedOut, 4: stats.ScrapeTimedOut, 5: stats.ScrapeTimedOut,
		}
		got := unreadByID(w.fleet)
		for id, want := range why {
			if got[id].Why != want || got[id].Times < 3 || got[id].Times > 4 {
				t.Errorf("worker %d has %v, want three or four failures for %s", id, got[id], want)
			}
		}
		if len(got) != len(why) {
			t.Errorf("the unread workers are %v", got)
		}
		w.setBehavior(responds, 1)
		left := fleet.Listing{Instances: make(map[string]fleet.InstanceEntry)}
		for _, id := range []uint64{1, 5, 7, 8} {
			in := fleet.Instance{Endpoint: backendEndpoint, ID: id}
			left.Instances[fmt.Sprint(id)] = fleet.InstanceEntry{Instance: in, Registration: fleet.Registration{Publishes: true}}
		}
		w.fleet.Sync(left)
		n := fleet.Some[uint64]
		whole := fleet.Load{KVActive: n(1), KVTotal: n(2), ActiveSlots: n(3), TotalSlots: n(4), Waiting: n(5), HitRate: fleet.Some(0.5)}
		w.fleet.RecordLoad(fleet.Origin{Endpoint: backendEndpoint, Worker: 5}, fleet.FromLoadEvent, whole)
		time.Sleep(11 * time.Second)
		if got := unreadByID(w.fleet); len(got) != 2 || got[7].Times < 5 || got[8].Times < 5 {
			t.Errorf("the unread workers are %v, want 7 and 8", got)
		}
	})
}

// TestScraperReportsManyDeadWorkersSoon sets up many more dead workers than slots.
func TestScraperReportsManyDeadWorkersSoon(t *testing.T) {
	t.Parallel()
	const many = 500
	for name, how := range map[string]behavior{"drops packets": dropsPackets, "hangs": hangs} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runMetricsNetworkWith(t, many, 5*time.Second, func(s *Scraper) { s.Timeout = time.Minute }, func(w *metricsNetwork) {
				ids := shuffled(many, 7)
				dead := map[behavior]int{dropsPackets: 150, hangs: 400}[how] // the unreachable ones also take long slots
				w.setBehavior(responds, ids...)
				w.checkReads(11 * time.Second)
				w.setBehavior(how, ids[:dead]...)
				w.checkReads(21 * time.Second)
				got := unreadByID(w.fleet)
				if len(got) < dead-slowSlots { // some scrapes are still running
					w.t.Errorf("%d workers are unread, want %d", len(got), dead)
				}
				want := map[behavior]stats.ScrapeFailure{dropsPackets: stats.ScrapeNotConnected, hangs: stats.ScrapeTimedOut}[how]
				often := 0
				for id, failure := range got {
					if failure.Times >= 3 {
						often++
					}
					if failure.Times > 5 {
						w.t.Fatalf("worker %d has %v after five rounds", id, failure)
					}
					if failure.Why != want && failure.Times >= 3 {
						w.t.Fatalf("worker %d has %v, want %s", id, failure, want)
					}
				}
				if often < dead-slowSlots {
					w.t.Errorf("%d workers have failed three times, want %d", often, dead)
				}
			})
		})
	}
}

// TestScraperReportsFailureReason sets up a worker for each way to fail.
func TestScraperReportsFailureReason(t *testing.T) {
	t.Parallel()
	f := newMetricsServer(t)
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/1")
			w.WriteHeader(code)
			blocksHandler(1)(w, r)
		}
	}
	want := make(map[uint64]stats.ScrapeFailure)
	bad := func(why stats.ScrapeFailure, handler http.HandlerFunc) {
		id := uint64(2 + len(want))
		want[id] = why
		f.register(id, handler)
	}
	f.register(1, blocksHandler(1))
	bad(stats.ScrapeBadStatus, status(http.StatusInternalServerError))
	bad(stats.ScrapeBadStatus, status(http.StatusFound))
	bad(stats.ScrapeBadStatus, status(http.StatusNoContent))
	bad(stats.ScrapeUnreadable, textHandler("vllm:num_requests_waiting x\n"))
	bad(stats.ScrapeUnreadable, textHandler(strings.Repeat("x 1\n", 1<<20+1)))
	bad(stats.ScrapeUnreadable, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	bad(stats.ScrapeUnreadable, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		io.WriteString(w, "x")
	})
	bad(stats.ScrapeUnreadable, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "x 1\n")
	})
	gone := uint64(2 + len(want))
	want[gone] = stats.ScrapeNotConnected
	f.register(gone, nil)
	f.scrape(func(s *Scraper) {
		s.Interval, s.Timeout = time.Second, time.Minute // a slow machine must not cause other failures
		s.URL = func(p fleet.ScrapeTarget) string {
			if p.ID == gone {
				return "http://127.0.0.1:1/metrics"
			}
			return f.server.URL + "/" + wire.HexID(p.ID)
		}
	})
	testutil.Until(t, func() error {
		got := unreadByID(f.fleet)
		for id, why := range want {
			if got[id].Times < 3 || got[id].Why != why {
				return fmt.Errorf("worker %d has %v, want three failures for %s", id, got[id], why)
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("the unread workers are %v", got)
		}
		return nil
	})
	all := uint64(0)
	for _, why := range stats.ScrapeFailures() {
		all += f.fleet.Stats.ScrapeFailures(why)
	}
	if n := f.fleet.Stats.ScrapeFailures(stats.ScrapeTimedOut); n > 0 {
		t.Errorf("%d scrapes timed out", n)
	}
	if all < 3*uint64(len(want)) {
		t.Errorf("%d failures are counted by reason", all)
	}
}

func TestFailureReasonClassifiesErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want stats.ScrapeFailure
	}{
		{nil, stats.ScrapeTimedOut},
		{fmt.Errorf("read: %w", context.DeadlineExceeded), stats.ScrapeTimedOut},
		{context.Canceled, stats.ScrapeTimedOut},
		{fmt.Errorf("get: %w", scrapeError{syscall.ECONNREFUSED, stats.ScrapeNotConnected}), stats.ScrapeNotConnected},
		{scrapeError{context.DeadlineExceeded, stats.ScrapeNotConnected}, stats.ScrapeNotConnected},
		{syscall.ECONNRESET, stats.ScrapeUnreadable},
		{errTooLarge, stats.ScrapeUnreadable},
		{errors.New("answered in the encoding"), stats.ScrapeUnreadable},
	} {
		if got := failureReason(c.err); got != c.want {
			t.Errorf("%v is %s, want %s", c.err, got, c.want)
		}
	}
}
