package monitor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/monitor/monitortest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// The numbers here are those of SECURITY.md and the documentation. They do not use the constants, so
// that a test fails when a change of one breaks what the documentation promises.

func endpointNumber(n int) fleet.Endpoint {
	return fleet.Endpoint{Component: fmt.Sprintf("c%05d", n), Name: "generate"}
}

// leftOutCounts returns what a snapshot leaves out: endpoints, workers, problems.
func leftOutCounts(s snapshotJSON) []int {
	if s.LeftOut == nil {
		return nil
	}
	return []int{s.LeftOut.Endpoints, s.LeftOut.Workers, s.LeftOut.Problems}
}

// TestLimitForgedNamesAreNotKept sends 30,000 loads of 469 ids at invented endpoints. A snapshot
// of them once took 24 s to write.
func TestLimitForgedNamesAreNotKept(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPublishing(generate, 1)
		h.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 1}, fleet.FromActiveLoad, fleet.Load{KVActive: u(40)})
		h.tick()
		before := h.renderedSize()
		for n := range 30_000 {
			from := fleet.Origin{Endpoint: fleet.Endpoint{Component: fmt.Sprint("made", n), Name: fmt.Sprint("up", n)}, Worker: 1<<40 + uint64(n%469)}
			h.fleet.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: u(7)})
		}
		h.ticks(3 * time.Second)
		s := h.fleet.Snapshot()
		testutil.Equal(t, "endpoints and rows", []int{len(s.Endpoints), len(s.Workers), len(s.Unregistered)}, []int{1, 1, 0})
		testutil.Equal(t, "rejected loads", h.fleet.Stats.Rejected(stats.LoadEvent, stats.NotRegistered), 30_000-469)
		testutil.Equal(t, "over the limits", h.fleet.Stats.AllRefused(), 0)
		if after := h.renderedSize(); after > before+100 {
			t.Errorf("the snapshot grows from %d to %d bytes", before, after)
		}
		testutil.Equal(t, "load", *h.snapshot().Workers[0].KVActive, 40)
	})
}

func TestLimitOfEndpoints(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		for n := range 4098 {
			h.registerPublishing(endpointNumber(n), uint64(n+1))
			h.fleet.RecordLoad(fleet.Origin{Endpoint: endpointNumber(n), Worker: uint64(n + 1)}, fleet.FromActiveLoad, fleet.Load{KVActive: u(500)})
		}
		h.fleet.RecordHit(4098, 100, 30)
		h.ticks(5 * time.Second)
		s := h.snapshot()
		testutil.Equal(t, "endpoints and rows", []int{len(s.Endpoints), len(s.Workers)}, []int{4096, 4096})
		testutil.Equal(t, "left out", leftOutCounts(s), []int{2, 2, 0})
		testutil.Equal(t, "sums", []string{fmt.Sprint(s.Fleet.States.Answering), monitortest.FormatOptional(s.Fleet.LoadMean), monitortest.FormatOptional(s.Fleet.HitRateTotal), monitortest.FormatOptional(s.Fleet.HitRate)}, []string{"4098", "0.5", "0.3", "0.3"})
		testutil.Equal(t, "problem", h.problem("limit:page").Detail,
			"There is no room for 2 endpoints and 2 rows. The limits are 4,096 endpoints, 131,072 rows of workers and ranks (1,000 of them for workers whose registration is gone; 32 MiB in total) and 200 problems. Sums and metrics include everything.")
		signals := func(n int) string {
			json, stale := h.monitor.RenderSignals("dynamo", endpointNumber(n))
			return string(json) + stale
		}
		testutil.Equal(t, "signals of an endpoint that is left out", strings.Contains(signals(4097), "stale: there are more endpoints than the 4,096 that are tracked"), true)
		testutil.Equal(t, "signals of an endpoint that is shown", strings.Contains(signals(7), `"workers":1`), true)
		h.fleet.Deregister("", fleet.Instance{Endpoint: endpointNumber(0), ID: 1})
		h.fleet.DropCard("", fleet.Instance{Endpoint: endpointNumber(0), ID: 1})
		h.fleet.Deregister("", fleet.Instance{Endpoint: endpointNumber(1), ID: 2})
		h.fleet.DropCard("", fleet.Instance{Endpoint: endpointNumber(1), ID: 2})
		time.Sleep(10 * time.Minute) // they are kept for lostWindow
		h.ticks(2 * time.Second)
		s = h.snapshot()
		testutil.Equal(t, "left out when there is room", leftOutCounts(s), nil)
		testutil.Equal(t, "rows", len(s.Workers), 4096)
		h.ticks(15 * time.Second)
		testutil.Equal(t, "problem when there is room", h.problem("limit:page"), problemJSON{})
	})
}

// TestLimitOfRows also checks the rows with a history.
func TestLimitOfRows(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.fleet = fleet.New(fleet.Target{}, 600_000, true)
		h.fleet.Advance(time.Now())
		h.fleet.Sync(fleet.Listing{})
		h.monitor = New(options(h.fleet))
		for id := range uint64(513) { // with 256 ranks each: 131,328 rows
			h.registerPublishing(generate, 1+id)
			for rank := range uint32(256) {
				h.fleet.RecordLoad(fleet.Origin{Endpoint: generate, Worker: 1 + id, Rank: rank}, fleet.FromActiveLoad, fleet.Load{KVActive: u(500)})
			}
		}
		h.ticks(5 * time.Second)
		testutil.Equal(t, "rows", len(h.monitor.rows), 131_072)
		testutil.Equal(t, "rows left out", h.monitor.leftOut.rows, 256)
		testutil.Equal(t, "rows with a history", h.monitor.rowsWithHistory, 65_536)
		testutil.Equal(t, "workers", h.monitor.overall.answering, 513)
	})
}

func TestLimitOfUnregisteredRows(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.registerPolled(generate, 1)
		answers := []fleet.PollReply{pollReply(generate, 1, 500, 0)}
		for id := range uint64(1003) {
			answers = append(answers, pollReply(generate, 2+id, 500, 0))
		}
		h.setReplies(answers...)
		h.tick()
		s := h.snapshot()
		testutil.Equal(t, "rows", len(s.Workers), 1001)
		testutil.Equal(t, "left out", leftOutCounts(s), []int{0, 3, 0})
		testutil.Equal(t, "unregistered", s.Fleet.States.Unregistered, 1003)
	})
}

func TestLimitOfProblems(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		answers := []fleet.PollReply(nil)
		for n := range 300 {
			h.registerPolled(endpointNumber(n), uint64(n+1))
			answers = append(answers, pollReply(endpointNumber(n), uint64(n+1), 950, 0)) // full
		}
		h.setReplies(answers...)
		h.tick()
		testutil.Equal(t, "problems", len(h.snapshot().Problems), 200)
		testutil.Equal(t, "left out", leftOutCounts(h.snapshot()), []int{0, 0, 100})
		h.setReplies(answers[:299]...)
		h.ticks(2 * time.Second)
		s := h.snapshot()
		testutil.Equal(t, "the first problems", []string{s.Problems[0].ID, s.Problems[1].ID}, []string{"silent:c00299/generate", "limit:page"})
		testutil.Equal(t, "problems", len(s.Problems), 200)
	})
}

// TestLimitOfSnapshotBytes uses long names. It does not decode the whole snapshot, which would
// take long.
func TestLimitOfSnapshotBytes(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		const workers = 7000
		long := fleet.Endpoint{Component: strings.Repeat("\x01", 256), Name: strings.Repeat("\x02", 256)}
		answers := []fleet.PollReply(nil)
		for id := range uint64(workers) { // they are also at another endpoint, so that keys name the endpoint
			h.registerPolled(generate, 1+id)
			answers = append(answers, pollReply(generate, 1+id, 1, 0))
		}
		h.setReplies(answers...)
		h.tick()
		for id := range uint64(workers) {
			h.registerPolled(long, 1+id)
			answers = append(answers, pollReply(long, 1+id, 950, 0)) // full
		}
		h.setReplies(answers...)
		h.tick()
		r, _ := h.monitor.Render(NoHistory)
		text := string(r.JSON)
		if len(text) < 32<<20 || len(text) > 37<<20 {
			t.Errorf("the snapshot has %d bytes, want 32 MiB of rows and 4 MiB of problems", len(text))
		}
		rows, out := strings.Count(text, `"key":`), h.monitor.omitted()
		if rows+out.rows != 2*workers || out.rows == 0 {
			t.Errorf("%d rows, left out: %+v", rows, out)
		}
		_, problem, _ := strings.Cut(text, `"kind":"full"`)
		problem, _, _ = strings.Cut(problem, "]")
		if listed := strings.Count(problem, "@"); listed < 1000 || listed > workers/2 {
			t.Errorf("a problem lists %d workers, want as many as there is room for", listed)
		}
		h.tick()
		r, _ = h.monitor.Render(NoHistory)
		testutil.Equal(t, "limit:page is raised", strings.Contains(string(r.JSON), `"id":"limit:page"`), true)
	})
}

func TestLostNamesLatestDepartures(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		answers := []fleet.PollReply(nil)
		for id := range uint64(200) {
			h.registerPolled(generate, 1+id)
			answers = append(answers, pollReply(generate, 1+id, 1, 0))
		}
		h.setReplies(answers...)
		h.ticks(10 * time.Second)
		for id := range uint64(200) {
			h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 1 + id})
		}
		h.setReplies()
		h.ticks(10 * time.Second)
		testutil.Equal(t, "detail", h.problem("lost:backend/generate").Detail,
			"backend/generate: of 200 workers in the last 10 min none is left. These deregistered, and reported until then: c8, c7, c6 and 197 more.")
	})
}

func TestLimitOfListedEndpoints(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		h.fleet = fleet.New(fleet.Target(generate), 1000, true)
		h.fleet.Advance(time.Now())
		h.fleet.Sync(fleet.Listing{})
		h.monitor = New(options(h.fleet))
		for n := range 60 {
			h.registerPolled(endpointNumber(n), uint64(n+1))
		}
		h.tick()
		testutil.Equal(t, "registered endpoints", len(h.snapshot().Looking.Sees), 50)
	})
}

// TestRowsPerWorkerAreCounted checks the counts that make it unnecessary to search all endpoints
// for a worker.
func TestRowsPerWorkerAreCounted(t *testing.T) {
	inBubble(t, func(h *harness) {
		t := h.t
		for n := range 10 {
			h.registerPublishing(endpointNumber(n), 7)
			for rank := range uint32(1 + n%3) {
				h.fleet.RecordLoad(fleet.Origin{Endpoint: endpointNumber(n), Worker: 7, Rank: rank}, fleet.FromActiveLoad, fleet.Load{KVActive: u(1)})
			}
		}
		h.tick()
		testutil.Equal(t, "endpoints of the worker", h.monitor.endpointsPerWorker[fleet.WorkerID{Lease: 7}], 10)
		for n := range 10 {
			in := fleet.Instance{Endpoint: endpointNumber(n), ID: 7}
			h.fleet.Deregister("", in)
			h.fleet.DropCard("", in)
		}
		time.Sleep(11 * time.Minute)
		h.ticks(2 * time.Second)
		testutil.Equal(t, "remaining workers, rows and endpoints", []int{len(h.monitor.endpointsPerWorker), h.monitor.rowCount, len(h.monitor.byEndpoint)}, []int{0, 0, 0})
	})
}

func TestLimitsTimesAreDocumented(t *testing.T) {
	t.Run("workers count as lost for ten minutes", func(t *testing.T) {
		inBubble(t, func(h *harness) {
			h.registerPolled(generate, 1, 2)
			h.setReplies(pollReply(generate, 1, 1, 0), pollReply(generate, 2, 1, 0))
			h.ticks(30 * time.Second)
			h.fleet.Deregister("", fleet.Instance{Endpoint: generate, ID: 2})
			h.setReplies(pollReply(generate, 1, 1, 0))
			h.expectWithin(6, "lost:backend/generate", true)
			h.expectStays(10*time.Minute-10*time.Second, "lost:backend/generate", true)
			h.expectWithin(5, "lost:backend/generate", false)
		})
	})
	t.Run("a hit rate covers five minutes", func(t *testing.T) {
		inBubble(t, func(h *harness) {
			h.registerPolled(generate, 1)
			h.setReplies(pollReply(generate, 1, 1, 0))
			h.tick()
			h.fleet.RecordHit(1, 100, 50)
			h.tick()
			h.ticks(4*time.Minute + 20*time.Second)
			testutil.Equal(t, "hit rate", monitortest.FormatOptional(h.snapshot().Fleet.HitRate), "0.5")
			h.ticks(40 * time.Second)
			testutil.Equal(t, "hit rate", monitortest.FormatOptional(h.snapshot().Fleet.HitRate), "–")
		})
	})
	t.Run("a sample is followed by a pause fifty times as long", func(t *testing.T) {
		inBubble(t, func(h *harness) {
			h.monitor.sampleTook = 80 * time.Millisecond
			testutil.Equal(t, "can skip", h.monitor.canSkip(h.monitor.sampledAt.Add(3990*time.Millisecond)), true)
			testutil.Equal(t, "can skip", h.monitor.canSkip(h.monitor.sampledAt.Add(4*time.Second)), false)
			h.monitor.sampleTook = time.Second // but each step of the history needs a sample
			testutil.Equal(t, "can skip", h.monitor.canSkip(h.monitor.sampledAt.Add(4490*time.Millisecond)), true)
			testutil.Equal(t, "can skip", h.monitor.canSkip(h.monitor.sampledAt.Add(4500*time.Millisecond)), false)
		})
	})
}
