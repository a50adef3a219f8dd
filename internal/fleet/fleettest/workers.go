package fleettest

import (
	"encoding/json"
	"io/fs"
	"path"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
	"dynamo-metrics/internal/wire/testdata"
)

// RegisterPolled registers workers that are polled.
func RegisterPolled(f *fleet.Fleet, e fleet.Endpoint, ids ...uint64) {
	for _, id := range ids {
		f.Register("", fleet.Instance{Endpoint: e, ID: id}, fleet.Registration{NATS: true})
	}
}

// RegisterPublishing registers workers that publish their loads, and their model cards.
func RegisterPublishing(f *fleet.Fleet, e fleet.Endpoint, ids ...uint64) {
	for _, id := range ids {
		in := fleet.Instance{Endpoint: e, ID: id}
		f.Register("", in, fleet.Registration{Publishes: true})
		f.SetCard("", in, fleet.Card{Model: "Qwen/Qwen3-8B", KVTotal: fleet.Some[uint64](1000), MaxSeqs: fleet.Some[uint64](64)})
	}
}

// PollReply returns an answer to a poll: this many of a thousand KV blocks are active, and this
// many requests wait.
func PollReply(e fleet.Endpoint, id, blocks, waiting uint64) fleet.PollReply {
	n := fleet.Some[uint64]
	return fleet.PollReply{Endpoint: e, Worker: fleet.WorkerID{Lease: id}, Service: "dynamo_" + e.Component, Load: fleet.Load{
		KVActive: n(blocks), KVTotal: n(1000), ActiveSlots: n(blocks / 20), TotalSlots: n(64), Waiting: n(waiting)}}
}

// MalformedReply returns an answer to a poll whose load cannot be decoded.
func MalformedReply(e fleet.Endpoint, id uint64) fleet.PollReply {
	return fleet.PollReply{Endpoint: e, Worker: fleet.WorkerID{Lease: id}, Service: "dynamo_" + e.Component, Outcome: fleet.Malformed}
}

// RegisterPolledRelease registers all workers of a release whose answers to polls were captured,
// and returns the answers.
func RegisterPolledRelease(t testing.TB, f *fleet.Fleet, release string) (replies []fleet.PollReply) {
	t.Helper()
	files, err := fs.Glob(testdata.Captures, release+"/stats_reply_*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("captured answers of %s: %v, %v", release, files, err)
	}
	for _, file := range files {
		for _, r := range Replies(t, "of-"+release, testutil.Captured(t, file)) {
			if !r.Worker.IsStatic() {
				RegisterPolled(f, r.Endpoint, r.Worker.Lease)
			}
			replies = append(replies, r)
		}
	}
	return replies
}

// RegisterPublishingRelease registers all workers of a release whose registry keys were captured,
// and records its captured events.
func RegisterPublishingRelease(t testing.TB, f *fleet.Fleet, release string) {
	t.Helper()
	var keys []struct{ Key, Value string }
	if err := json.Unmarshal(testutil.Captured(t, path.Join(release, "etcd_keys.json")), &keys); err != nil {
		t.Fatal(err)
	}
	for _, kv := range keys {
		if in, ok := wire.LayoutV1.ParseKey("lab", kv.Key); ok && !wire.IsIgnoredKey("lab", kv.Key) {
			r, err := wire.LayoutV1.ParseValue("lab", in, []byte(kv.Value))
			if err != nil {
				t.Fatal(err)
			}
			f.Register("", in, r)
		}
		if in, ok := wire.ParseCardKey("lab", kv.Key); ok {
			card, err := wire.ParseCard([]byte(kv.Value))
			if err != nil {
				t.Fatal(err)
			}
			f.SetCard("", in, card)
		}
	}
	for _, file := range []string{"nats.jsonl", "zmq.jsonl"} {
		b, err := testdata.Captures.ReadFile(path.Join(release, file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			recordEvent(t, f, line)
		}
	}
}

// recordEvent records one captured event.
func recordEvent(t testing.TB, f *fleet.Fleet, line string) {
	t.Helper()
	var m struct {
		Subject, Payload string
		Base64           []byte   `json:"payload_base64"`
		Frames           [][]byte `json:"frames_base64"`
	}
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatal(err)
	}
	if m.Payload != "" {
		m.Base64 = []byte(m.Payload)
	}
	if load, err := wire.ParseLoadEvent(m.Base64); err == nil {
		f.RecordLoad(fleet.Origin{Worker: load.Worker, Rank: load.Rank}, load.Source, load.Load)
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
			f.RecordLoad(fleet.Origin{Worker: a.Worker, Rank: a.Rank}, fleet.FromActiveLoad, fleet.Load{KVActive: a.KVActive()})
		}
	case wire.TopicForwardPass:
		if p, err := wire.ParseForwardPass(envelope.Payload); err == nil && p.HasWorkerID {
			f.RecordForwardPass(fleet.Origin{Worker: p.Worker, Rank: p.Rank}, fleet.Pass{Counter: p.Counter, Seconds: p.WallTime, Running: p.Running(), Waiting: p.Waiting()})
		}
	}
}
