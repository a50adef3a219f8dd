package garbage

import (
	"bufio"
	"bytes"
	"encoding/json"
	"strings"

	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
	"dynamo-metrics/internal/wire/testdata"
)

// Messages returns real messages of all releases as they were received over NATS, and
// workers' own metrics. A small part of the corpus is added to each kind. Input that is
// almost valid gets farther than input that is not valid at all.
func Messages() map[stats.Kind][][]byte {
	all := make(map[stats.Kind][][]byte)
	ends := map[string]stats.Kind{
		wire.TopicLoad: stats.LoadEvent, wire.TopicHitRate: stats.HitRate, wire.TopicForwardPass: stats.ForwardPass, wire.TraceSubject: stats.Trace,
	}
	for _, v := range decodedLines[struct {
		Subject, Payload string
		Base64           []byte `json:"payload_base64"`
	}]("*/*.jsonl") {
		for end, kind := range ends {
			if strings.HasSuffix(v.Subject, end) {
				all[kind] = append(all[kind], append([]byte(v.Payload), v.Base64...))
			}
		}
	}
	for _, pattern := range []string{"*/stats_reply_*.json", "*/edge/*.json"} {
		for _, name := range files(testdata.Captures, pattern) {
			all[stats.StatsReply] = append(all[stats.StatsReply], read(testdata.Captures, name))
		}
	}
	for _, name := range files(testdata.Captures, "engines/*.prom") { // every line of these is used
		all[stats.WorkerMetrics] = append(all[stats.WorkerMetrics], read(testdata.Captures, name))
	}
	corpus := smallCorpus()
	for kind, captured := range all {
		for len(all[kind]) < 5*len(corpus) {
			all[kind] = append(all[kind], captured...)
		}
		all[kind] = append(all[kind], corpus...)
	}
	return all
}

// Frames returns events of a topic as real publishers and brokers sent them over ZMQ.
func Frames(topic string) (all [][][]byte) {
	for _, v := range decodedLines[struct {
		Frames [][]byte `json:"frames_base64"`
	}]("*/zmq.jsonl") {
		if len(v.Frames) > 0 && strings.HasSuffix(string(v.Frames[0]), topic) {
			all = append(all, v.Frames)
		}
	}
	return all
}

// decodedLines decodes the lines of the captured files that match.
func decodedLines[T any](pattern string) (all []T) {
	for _, name := range files(testdata.Captures, pattern) {
		in := bufio.NewScanner(bytes.NewReader(read(testdata.Captures, name)))
		for in.Buffer(nil, 1<<20); in.Scan(); {
			all = append(all, decoded[T](name, in.Bytes()))
		}
	}
	return all
}

func decoded[T any](name string, b []byte) (v T) {
	if err := json.Unmarshal(b, &v); err != nil {
		panic(name + ": " + err.Error()) // the file is embedded
	}
	return v
}

// Entry is an etcd key with its value.
type Entry struct{ Key, Value string }

// Entries returns the entries of real workers of all releases below the watched prefixes,
// with Namespace in place of theirs.
func Entries() map[stats.Kind][]Entry {
	ours := strings.NewReplacer("/lab/", "/"+Namespace+"/", `"lab"`, `"`+Namespace+`"`)
	all := make(map[stats.Kind][]Entry)
	for _, name := range files(testdata.Captures, "*/etcd_keys.json") {
		for _, e := range decoded[[]Entry](name, read(testdata.Captures, name)) {
			e = Entry{ours.Replace(e.Key), ours.Replace(e.Value)}
			for kind, prefixes := range Prefixes() {
				for _, p := range prefixes {
					if strings.HasPrefix(e.Key, p) {
						all[kind] = append(all[kind], e)
					}
				}
			}
		}
	}
	return all
}
