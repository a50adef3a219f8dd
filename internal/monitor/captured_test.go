package monitor

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
	"dynamo-metrics/internal/wire/testdata"
)

// polled registers and reports all workers whose answers were captured of a release.
func (h *harness) registerPolledRelease(release string) {
	h.t.Helper()
	files, err := fs.Glob(testdata.Captures, release+"/stats_reply_*.json")
	if err != nil || len(files) == 0 {
		h.t.Fatalf("captured answers of %s: %v, %v", release, files, err)
	}
	for _, file := range files {
		for _, r := range fleettest.Replies(h.t, "of-"+release, testutil.Captured(h.t, file)) {
			if !r.Worker.IsStatic() {
				h.registerPolled(r.Endpoint, r.Worker.Lease)
			}
			h.replies = append(h.replies, r)
		}
	}
}

// published registers and hears all workers whose events were captured of a release.
func (h *harness) registerPublishingRelease(release string) {
	h.t.Helper()
	var keys []struct{ Key, Value string }
	if err := json.Unmarshal(testutil.Captured(h.t, path.Join(release, "etcd_keys.json")), &keys); err != nil {
		h.t.Fatal(err)
	}
	for _, kv := range keys {
		if in, ok := wire.LayoutV1.ParseKey("lab", kv.Key); ok && !wire.IsIgnoredKey("lab", kv.Key) {
			r, err := wire.LayoutV1.ParseValue("lab", in, []byte(kv.Value))
			if err != nil {
				h.t.Fatal(err)
			}
			h.fleet.Register("", in, r)
		}
		if in, ok := wire.ParseCardKey("lab", kv.Key); ok {
			card, err := wire.ParseCard([]byte(kv.Value))
			if err != nil {
				h.t.Fatal(err)
			}
			h.fleet.SetCard("", in, card)
		}
	}
	for _, file := range []string{"nats.jsonl", "zmq.jsonl"} {
		b, err := testdata.Captures.ReadFile(path.Join(release, file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			h.applyEvent(line)
		}
	}
}

// event hears one captured event.
func (h *harness) applyEvent(line string) {
	h.t.Helper()
	var m struct {
		Subject, Payload string
		Base64           []byte   `json:"payload_base64"`
		Frames           [][]byte `json:"frames_base64"`
	}
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		h.t.Fatal(err)
	}
	if m.Payload != "" {
		m.Base64 = []byte(m.Payload)
	}
	if load, err := wire.ParseLoadEvent(m.Base64); err == nil {
		h.fleet.RecordLoad(fleet.Origin{Worker: load.Worker, Rank: load.Rank}, load.Source, load.Load)
		return
	}
	envelope, err := wire.ParseEnvelope(m.Base64)
	if m.Frames != nil {
		_, envelope, err = wire.ParseFrames(m.Frames)
	}
	if err != nil {
		return // hit rates in JSON, and traces
	}
	switch string(envelope.Topic) {
	case wire.TopicLoad:
		if a, err := wire.ParseActiveLoad(envelope.Payload); err == nil && !a.IsEstimate() {
			h.fleet.RecordLoad(fleet.Origin{Worker: a.Worker, Rank: a.Rank}, fleet.FromActiveLoad, fleet.Load{KVActive: a.KVActive()})
		}
	case wire.TopicForwardPass:
		if p, err := wire.ParseForwardPass(envelope.Payload); err == nil && p.HasWorkerID {
			h.fleet.RecordForwardPass(fleet.Origin{Worker: p.Worker, Rank: p.Rank}, fleet.Pass{Counter: p.Counter, Seconds: p.WallTime, Running: p.Running(), Waiting: p.Waiting()})
		}
	}
}

// golden compares the newest snapshot with a file of testdata.
func (h *harness) compareGolden(name string) {
	h.t.Helper()
	e, _ := h.monitor.latestEvent(-1)
	var b bytes.Buffer
	if err := json.Indent(&b, e.json(), "", " "); err != nil {
		h.t.Fatalf("%v in %s", err, e.json())
	}
	testutil.Golden(h.t, name, b.String()+"\n")
}

// TestSnapshotOfEveryReleaseGolden has workers of all eras as they were captured: polled,
// publishing, with cards and passes.
func TestSnapshotOfEveryReleaseGolden(t *testing.T) {
	inBubble(t, func(h *harness) {
		for _, release := range []string{"0.1.1", "0.3.0", "0.5.1"} {
			h.registerPolledRelease(release)
		}
		for _, release := range []string{"0.6.1", "0.9.1", "1.6.1"} {
			h.registerPublishingRelease(release)
		}
		h.ticks(3 * time.Second)
		h.compareGolden("releases.json")
		s := h.snapshot()
		var sources []string
		for _, w := range s.Workers {
			sources = append(sources, w.Source)
		}
		slices.Sort(sources)
		testutil.Equal(t, "sources", slices.Compact(sources), []string{"", "active_load", "fpm", "load_event", "stats"}) // one has published nothing
	})
}
