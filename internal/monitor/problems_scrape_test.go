package monitor

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// setFailedScrapes records that the scrapes of these workers failed this many times, for a
// reason.
func (h *harness) setFailedScrapes(e fleet.Endpoint, times int, why stats.ScrapeFailure, ids ...uint64) {
	all := make(map[fleet.Instance]fleet.FailedScrapes)
	for in, failed := range h.fleet.Diagnostics.FailedScrapes() {
		all[in] = failed
	}
	for _, id := range ids {
		all[fleet.Instance{Endpoint: e, ID: id}] = fleet.FailedScrapes{Times: times, Why: why}
	}
	h.fleet.Diagnostics.SetFailedScrapes(all)
}

func TestProblemUnreadAfterThreeFailures(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "unread:backend/generate"
		h.registerPublishing(generate, 0x1a, 0x2b)
		h.setFailedScrapes(generate, 2, stats.ScrapeTimedOut, 0x1a)
		h.expectStays(30*time.Second, id, false)
		h.setFailedScrapes(generate, 3, stats.ScrapeTimedOut, 0x1a)
		h.expectWithin(1, id, true)
		p := h.problem(id)
		testutil.Equal(t, "problem", []string{p.Kind, p.Severity, p.Title, p.Detail}, []string{"unread", "warn", "The metrics of 1 worker of backend/generate cannot be read",
			"backend/generate: timed out (limit 2s): 1a. Values that are known only from there are not shown."})
		testutil.Equal(t, "check", p.Check, "does the response take longer while the worker is busy? Then raise --scrape-timeout. With DYN_LOG=info,metrics=debug the log has each error.")
		testutil.Equal(t, "workers", p.Workers, []string{"26"})
		var history struct {
			Odd []struct{ Text, Check string }
		}
		if err := json.Unmarshal(h.worker("26"), &history); err != nil || len(history.Odd) == 0 {
			t.Fatalf("%+v: %v", history, err)
		}
		if got := history.Odd[len(history.Odd)-1].Text; got != "Its own metrics could not be read 3 times in a row: timed out (limit 2s)." {
			t.Errorf("the anomalies are %+v", history.Odd)
		}

		h.setFailedScrapes(generate, 1, stats.ScrapeBadStatus, 0x1a) // another process failed once: the problem stays raised
		h.expectStays(10*time.Second, id, true)
		h.fleet.Diagnostics.SetFailedScrapes(nil)
		h.expectWithin(1, id, false)
		h.setFailedScrapes(generate, 9, stats.ScrapeBadStatus, 0x1a)
		h.expectWithin(1, id, true)
		in := fleet.Instance{Endpoint: generate, ID: 0x1a}
		h.fleet.Deregister("", in)
		h.fleet.DropCard("", in)
		h.expectWithin(1, id, false) // the worker is gone, although its failed scrapes are still listed
	})
}

func TestProblemUnreadAdvicePerError(t *testing.T) {
	inBubble(t, func(h *harness) {
		const id = "unread:backend/generate"
		h.registerPublishing(generate, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		for rank := range uint32(3) {
			h.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 2, Rank: rank}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
		}
		h.registerPublishing(prefill, 0x77)
		for _, c := range []struct {
			why         stats.ScrapeFailure
			text, check string
		}{
			{stats.ScrapeTimedOut, "timed out (limit 2s)", "--scrape-timeout"},
			{stats.ScrapeNotConnected, "the connection failed", "network policies"},
			{stats.ScrapeTLSFailed, "TLS failed", "--worker-tls-ca"},
			{stats.ScrapeBadStatus, "the status was not 200", "--worker-metrics-url"},
			{stats.ScrapeUnreadable, "the response is not in a metrics format", "4 MiB"},
		} {
			h.fleet.Diagnostics.SetFailedScrapes(nil)
			h.setFailedScrapes(generate, 5, c.why, 3)
			h.tick()
			if p := h.problem(id); p.Detail != "backend/generate: "+c.text+": 3. Values that are known only from there are not shown." || !strings.Contains(p.Check, c.check) {
				t.Errorf("%s: %q, %q", c.why, p.Detail, p.Check)
			}
		}
		h.fleet.Diagnostics.SetFailedScrapes(nil)
		h.setFailedScrapes(generate, 3, stats.ScrapeTLSFailed, 1, 2, 3, 4, 5)
		h.setFailedScrapes(generate, 4, stats.ScrapeTimedOut, 6)
		h.setFailedScrapes(generate, 1, stats.ScrapeNotConnected, 7)
		h.setFailedScrapes(prefill, 4, stats.ScrapeTimedOut, 0x77)
		h.tick()
		p := h.problem(id)
		testutil.Equal(t, "title", p.Title, "The metrics of 6 workers of backend/generate cannot be read") // three ranks are one worker
		testutil.Equal(t, "detail", p.Detail, "backend/generate: timed out (limit 2s): 6; TLS failed: 1, 2, 3 and 2 more. Values that are known only from there are not shown.")
		testutil.Equal(t, "workers", p.Workers, []string{"1", "2/0", "2/1", "2/2", "3", "4", "5", "6"})
		if !strings.HasPrefix(p.Check, "does the response take longer while the worker is busy? Then raise --scrape-timeout. --worker-tls-ca must") || strings.Contains(p.Check, "network policies") {
			t.Errorf("check is %q", p.Check)
		}
		testutil.Equal(t, "workers of the other endpoint", h.problem("unread:prefill/generate").Workers, []string{"119"})
	})
}
