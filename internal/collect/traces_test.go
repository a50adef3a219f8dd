package collect

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
)

// TestEventsTraceWithoutWorkerIsNotForeign handles captured traces. Frontends of 1.4 name the
// worker only for requests with a session header, which one of eight has. Those of 1.5 name it
// for every request.
func TestEventsTraceWithoutWorkerIsNotForeign(t *testing.T) {
	for _, c := range []struct {
		release             string
		worker              uint64
		unnamed, named      uint64
		isl, overlap, lines uint64
	}{
		{"1.4.2", 6127888516601088976, 7, 1, 19, 17, 1},
		{"1.5.1", 6127888516601088648, 0, 8, 135, 103, 0},
	} {
		records, err := os.ReadFile(filepath.Join(captureDir, c.release, "traces.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		f := fleet.New(fleet.Target{}, 1000, true)
		f.Advance(time.Unix(1, 0))
		f.Sync(fleet.Listing{})
		f.Register("", fleet.Instance{Endpoint: backendEndpoint, ID: c.worker}, fleet.Registration{Publishes: true})
		log, journal := testutil.NewLog()
		e := NewEvents(f, "lab", log)
		for record := range bytes.Lines(records) {
			e.handleTrace(record)
		}
		counts := &f.Stats
		if got := counts.Messages(stats.Trace); got != c.unnamed+c.named {
			t.Errorf("%s: %d traces are received, want %d", c.release, got, c.unnamed+c.named)
		}
		for _, reason := range stats.Reasons() {
			want := uint64(0)
			if reason == stats.NoWorker {
				want = c.unnamed
			}
			if got := counts.Rejected(stats.Trace, reason); got != want {
				t.Errorf("%s: %d traces are rejected for %s, want %d", c.release, got, reason, want)
			}
		}
		if n := counts.ForeignEvents.Load(); n != 0 {
			t.Errorf("%s: %d traces count as foreign, want none", c.release, n)
		}
		w := f.Snapshot().Workers[0]
		if h := w.Hits.V; h.Events != c.named || h.ISLBlocks != c.isl || h.OverlapBlocks != c.overlap || w.Timings.Duration.Count != c.named {
			t.Errorf("%s: hits %+v, %d durations, want %d of %d in %d", c.release, h, w.Timings.Duration.Count, c.overlap, c.isl, c.named)
		}
		if n := journal.Count("Request traces name no worker and cannot be shown"); n != int(c.lines) {
			t.Errorf("%s: %d log lines say that traces name no worker, want %d:\n%s", c.release, n, c.lines, journal)
		}
	}
}
