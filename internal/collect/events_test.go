package collect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
)

// captureDir has the captured bytes of every release.
const captureDir = "../wire/testdata"

// TestEventsCapturedMatchGolden handles everything that was captured of each release, from NATS
// and from ZeroMQ, in its namespace. The result must be the same where several namespaces are
// watched, apart from the namespace's name.
func TestEventsCapturedMatchGolden(t *testing.T) {
	got := make(map[string]*strings.Builder)
	releases, err := filepath.Glob(filepath.Join(captureDir, "*.*.*"))
	if err != nil || len(releases) == 0 {
		t.Fatalf("captures: %v, %v", releases, err)
	}
	slices.SortFunc(releases, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	for _, dir := range releases {
		for _, plane := range []string{"nats", "zmq"} {
			lines, err := os.ReadFile(filepath.Join(dir, plane+".jsonl"))
			if err != nil {
				continue
			}
			namespace := "lab"
			if strings.HasPrefix(filepath.Base(dir), "0.5") {
				namespace = "dynamo"
			}
			for sort, namespaces := range map[string]string{"x": namespace, "x*": namespace[:2] + "*", "*": "*"} {
				if got[sort] == nil {
					got[sort] = new(strings.Builder)
				}
				fmt.Fprintf(got[sort], "%s over %s\n%s\n", filepath.Base(dir), plane, recordedState(t, dir, lines, namespace, wire.Namespaces(namespaces)))
			}
		}
	}
	testutil.Golden(t, "captured.txt", got["x"].String())
	for _, sort := range []string{"x*", "*"} {
		if diff := cmp.Diff(got["x"].String(), got[sort].String()); diff != "" {
			t.Errorf("where namespaces like %s are watched (-one +several):\n%s", sort, diff)
		}
	}
}

// recordedState returns the state of a Fleet after these lines were handled while the namespaces
// were watched. It leaves out the name of the namespace that was captured.
func recordedState(t *testing.T, dir string, lines []byte, namespace string, namespaces wire.Namespaces) string {
	var all fleet.Target
	if namespaces.IsPattern() {
		all.Namespace = string(namespaces)
	}
	f := fleet.New(all, 1000, true)
	f.Advance(time.Unix(1, 0))
	label := namespaces.Label(namespace)
	f.Sync(capturedRegistry(t, dir, label))
	e := NewEvents(f, namespaces, slog.New(slog.DiscardHandler))
	for line := range bytes.Lines(lines) {
		for _, id := range recordLine(t, e, line) {
			// Some keys were not captured. They are registered late.
			in := fleet.Instance{Endpoint: fleet.Endpoint{Namespace: label, Component: "backend", Name: "generate"}, ID: id}
			if !f.IsRegistered(in) {
				f.Register("", in, fleet.Registration{Publishes: true})
			}
		}
	}
	return strings.NewReplacer("  "+namespace+"/", "  ", "  unknown/unknown/", "  unknown/").Replace(describe(f))
}

// recordLine handles a line of captured events, and returns the workers whose loads or passes it
// contains.
func recordLine(t *testing.T, e *Events, line []byte) (workers []uint64) {
	t.Helper()
	var m struct {
		Subject, Payload string
		Base64           []byte   `json:"payload_base64"`
		Frames           [][]byte `json:"frames_base64"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatal(err)
	}
	if m.Payload != "" {
		m.Base64 = []byte(m.Payload)
	}
	switch {
	case m.Frames != nil:
		// Such frames do not name their channel, so it is found by the publisher's id.
		channels, _ := e.fleet.Channels()
		_, envelope, err := wire.ParseFrames(m.Frames)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(m.Frames[0], []byte("namespace.")) {
			e.handleBrokered(new(deduper), m.Frames)
			return envelopeWorkers(envelope)
		}
		at := fleet.Channel{Topic: string(m.Frames[0]), Publisher: envelope.Publisher}
		for _, c := range channels {
			if c.Publisher == at.Publisher && c.Topic == at.Topic {
				at = c
			}
		}
		if _, read := kindOfTopic[at.Topic]; read {
			e.handleDirect(&at, &e.gapDetector, m.Frames)
		}
		return envelopeWorkers(envelope)
	case m.Subject == wire.TraceSubject:
		e.handleTrace(m.Base64)
	case strings.HasSuffix(m.Subject, wire.TopicHitRate):
		e.handleMessage(fleet.Endpoint{}, wire.TopicHitRate, m.Base64)
	case !strings.HasSuffix(m.Subject, wire.TopicKVEvents): // the program does not subscribe to those
		e.handleSubject(&nats.Msg{Subject: m.Subject, Data: m.Base64})
		if l, err := wire.ParseLoadEvent(m.Base64); err == nil {
			return []uint64{l.Worker}
		}
		if envelope, err := wire.ParseEnvelope(m.Base64); err == nil {
			return envelopeWorkers(envelope)
		}
	}
	return nil
}

func envelopeWorkers(v wire.Envelope) []uint64 {
	if l, err := wire.ParseActiveLoad(v.Payload); err == nil && string(v.Topic) == wire.TopicLoad && !l.IsEstimate() {
		return []uint64{l.Worker}
	}
	if p, err := wire.ParseForwardPass(v.Payload); err == nil && p.HasWorkerID {
		return []uint64{p.Worker}
	}
	return nil
}

// capturedRegistry returns what was registered when a release was captured, with this namespace
// label.
func capturedRegistry(t *testing.T, dir, label string) fleet.Listing {
	t.Helper()
	all := fleet.Listing{Instances: make(map[string]fleet.InstanceEntry), Cards: make(map[string]fleet.CardEntry), Channels: make(map[string]fleet.Channel)}
	put := func(key, value string) {
		if in, ok := wire.LayoutV1.ParseKey("lab", key); ok && !wire.IsIgnoredKey("lab", key) {
			r, err := wire.LayoutV1.ParseValue("lab", in, []byte(value))
			if err != nil {
				t.Fatal(err)
			}
			in.Namespace = label
			all.Instances[key] = fleet.InstanceEntry{Instance: in, Registration: r}
		}
		if in, ok := wire.ParseCardKey("lab", key); ok {
			c, _ := wire.ParseCard([]byte(value))
			in.Namespace = label
			all.Cards[key] = fleet.CardEntry{Instance: in, Card: c}
		}
		if _, ok := wire.ParseChannelKey("lab", key); ok {
			c, _ := wire.ParseChannel("lab", key, []byte(value))
			c.Endpoint.Namespace = label
			all.Channels[key] = c
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "etcd_keys.json")); err == nil {
		var keys []struct{ Key, Value string }
		if err := json.Unmarshal(b, &keys); err != nil {
			t.Fatal(err)
		}
		for _, kv := range keys {
			put(kv.Key, kv.Value)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file_kv.json")); err == nil {
		var files map[string]string
		if err := json.Unmarshal(b, &files); err != nil {
			t.Fatal(err)
		}
		for path, value := range files {
			at := strings.LastIndexByte(path, '/')
			key, ok := wire.FileKey(path[:at], path[at+1:])
			if !ok {
				t.Fatalf("%s is not the file of a key", path)
			}
			put(key, value)
		}
	}
	return all
}

// TestEventsRejectSubjectWithoutEndpoint checks that such a message counts as rejected, as the
// kind that its last token names, both from NATS and from ZeroMQ.
func TestEventsRejectSubjectWithoutEndpoint(t *testing.T) {
	for topic, kind := range map[string]stats.Kind{wire.TopicLoad: stats.LoadEvent, wire.TopicForwardPass: stats.ForwardPass} {
		for _, name := range []string{"%", "%2", "%zz", "%2f", "%FF"} {
			subject := "namespace.lab.component." + name + ".endpoint.generate." + topic
			for plane, handle := range map[string]func(*Events){
				"nats": func(e *Events) { e.handleSubject(&nats.Msg{Subject: subject, Data: []byte{0x80}}) },
				"zmq":  func(e *Events) { e.handleBrokered(new(deduper), [][]byte{[]byte(subject), {0x80}}) },
			} {
				for _, namespaces := range []wire.Namespaces{"lab", "la*", "*"} {
					f := fleet.New(fleet.Target{}, 1000, true)
					handle(NewEvents(f, namespaces, slog.New(slog.DiscardHandler)))
					want := fmt.Sprintf("  rejected %s name 1\n", kind)
					if got := describe(f); got != want || f.Stats.Messages(kind) != 1 {
						t.Errorf("%s over %s, %s watched: %q and %d received, want %q and 1", subject, plane, namespaces, got, f.Stats.Messages(kind), want)
					}
				}
			}
		}
	}
}

// describe returns the whole Fleet, and what was rejected, as text.
func describe(f *fleet.Fleet) string {
	var b strings.Builder
	s := f.Snapshot()
	for _, w := range s.Workers {
		fmt.Fprintf(&b, "  %s %s %q up=%v %s:", w.Endpoint, w.Label, w.Model, w.Up, w.Source)
		for _, v := range []struct {
			name string
			fleet.Opt[uint64]
		}{{"blocks", w.Load.V.KVActive}, {"of", w.Load.V.KVTotal}, {"slots", w.Load.V.ActiveSlots}, {"of", w.Load.V.TotalSlots}, {"waiting", w.Load.V.Waiting}, {"drafts", w.Load.V.SpecDrafts}} {
			if v.OK {
				fmt.Fprintf(&b, " %s %d", v.name, v.V)
			}
		}
		for _, v := range []struct {
			name string
			fleet.Opt[float64]
		}{{"usage", w.Load.V.CacheUsage}, {"hit rate", w.Load.V.HitRate}} {
			if v.OK {
				fmt.Fprintf(&b, " %s %.4f", v.name, v.V)
			}
		}
		if w.Passes.OK {
			p := w.Passes.V
			fmt.Fprintf(&b, ", passes %d in %.4g s, missed %d, tokens %d and %d, queued %d, scheduled %d",
				p.Count, p.Seconds.Sum, p.Missed, p.PrefillTokens, p.DecodeTokens, p.QueuedTokens, p.ScheduledKVTokens)
		}
		if w.Hits.OK {
			fmt.Fprintf(&b, ", hits %d of %d in %d events", w.Hits.V.OverlapBlocks, w.Hits.V.ISLBlocks, w.Hits.V.Events)
		}
		if x := w.Timings; x != (fleet.Timings{}) {
			fmt.Fprintf(&b, ", first token %.4g s in %d, between %.4g s in %d, whole %.4g s in %d",
				x.FirstToken.Sum, x.FirstToken.Count, x.InterToken.Sum, x.InterToken.Count, x.Duration.Sum, x.Duration.Count)
		}
		b.WriteByte('\n')
	}
	for _, k := range stats.Kinds() {
		for _, r := range stats.Reasons() {
			if n := f.Stats.Rejected(k, r); n > 0 {
				fmt.Fprintf(&b, "  rejected %s %s %d\n", k, r, n)
			}
		}
	}
	if n := f.Stats.MissedEvents.Load(); n > 0 {
		fmt.Fprintf(&b, "  gaps %d\n", n)
	}
	if n := f.Stats.ForeignEvents.Load(); n > 0 {
		fmt.Fprintf(&b, "  foreign %d\n", n)
	}
	return b.String()
}
