// Package wiretest makes fleets of what Dynamo processes sent, as internal/wire/testdata has it, for
// the tests of packages that read a fleet.
package wiretest

import (
	"encoding/json"
	"io/fs"
	"path"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
	"dynamo-metrics/internal/wire/testdata"
)

// Replies decodes one worker's answer into a reply for each endpoint in it.
func Replies(t testing.TB, component string, answer []byte) []fleet.PollReply {
	t.Helper()
	reply, err := wire.ParseStatsReply(answer)
	if err != nil {
		t.Fatal(err)
	}
	var rs []fleet.PollReply
	for _, e := range reply.Endpoints {
		name, lease, ok := wire.SplitSubject(reply.Service, e.Subject, func(string) bool { return false })
		if !ok {
			t.Fatalf("subject %q is not a subject of the service %q", e.Subject, reply.Service)
		}
		r := fleet.PollReply{
			Endpoint: fleet.Endpoint{Component: component, Name: name},
			Worker:   fleet.WorkerID{Lease: lease}, Service: reply.Service, Outcome: fleet.NoLoad,
		}
		if lease == 0 {
			r.Worker.Static = reply.ID
		}
		load, rank, found, err := wire.ParseLoad(e.Data)
		switch {
		case err != nil:
			r.Outcome = fleet.Malformed
		case found:
			r.Outcome, r.Load, r.Rank = fleet.Reported, load, rank
		}
		rs = append(rs, r)
	}
	return rs
}

// RegisterAll registers every worker of these answers that has a lease.
func RegisterAll(t testing.TB, f *fleet.Fleet, component string, answers ...[]byte) {
	t.Helper()
	for _, a := range answers {
		for _, r := range Replies(t, component, a) {
			if !r.Worker.IsStatic() {
				fleettest.RegisterPolled(f, r.Endpoint, r.Worker.Lease)
			}
		}
	}
}

// Poll records one poll with these answers.
func Poll(t testing.TB, f *fleet.Fleet, component string, answers ...[]byte) {
	t.Helper()
	f.BeginPoll()
	for _, a := range answers {
		f.RecordPollReply(Replies(t, component, a)...)
	}
	f.EndPoll(true)
}

// Original returns the fleet whose metrics were captured from the original.
func Original(t testing.TB) *fleet.Fleet {
	t.Helper()
	f := fleettest.New(fleet.Target(fleettest.LoadMetrics), true)
	answers := OriginalAnswers(t)
	RegisterAll(t, f, "backend", answers...)
	Poll(t, f, "backend", answers...)
	var events []json.RawMessage
	if err := json.Unmarshal(testutil.Captured(t, "original", "hit_rate_events.json"), &events); err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		hit, err := wire.ParseHitRate(e)
		if err != nil {
			t.Fatal(err)
		}
		f.RecordHit(hit.Worker, hit.ISLBlocks, hit.OverlapBlocks)
	}
	return f
}

// OriginalAnswers returns the answers of the workers of that fleet.
func OriginalAnswers(t testing.TB) [][]byte {
	t.Helper()
	return [][]byte{
		testutil.Captured(t, "original", "stats_reply_1.json"),
		testutil.Captured(t, "original", "stats_reply_2.json"),
		testutil.Captured(t, "original", "stats_reply_3.json"),
	}
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
				fleettest.RegisterPolled(f, r.Endpoint, r.Worker.Lease)
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
