package monitor

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire/wiretest"
)

// compareGolden compares the newest snapshot with a file of testdata.
func (h *harness) compareGolden(name string) {
	h.t.Helper()
	r, _ := h.monitor.Render(-1)
	var b bytes.Buffer
	if err := json.Indent(&b, r.JSON, "", " "); err != nil {
		h.t.Fatalf("%v in %s", err, r.JSON)
	}
	testutil.Golden(h.t, name, b.String()+"\n")
}

// TestSnapshotOfEveryReleaseGolden uses captured workers of releases of all kinds: polled,
// publishing, with model cards and with forward passes.
func TestSnapshotOfEveryReleaseGolden(t *testing.T) {
	inBubble(t, func(h *harness) {
		for _, release := range []string{"0.1.1", "0.3.0", "0.5.1"} {
			h.replies = append(h.replies, wiretest.RegisterPolledRelease(h.t, h.fleet, release)...)
		}
		for _, release := range []string{"0.6.1", "0.9.1", "1.6.1"} {
			wiretest.RegisterPublishingRelease(h.t, h.fleet, release)
		}
		h.ticks(3 * time.Second)
		h.compareGolden("releases.json")
		s := h.snapshot()
		var sources []string
		for _, w := range s.Workers {
			sources = append(sources, w.Source)
		}
		slices.Sort(sources)
		testutil.Equal(t, "sources", slices.Compact(sources), []string{"", "active_load", "fpm", "load_event", "stats"}) // one worker has published nothing
	})
}
