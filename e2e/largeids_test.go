package e2e

import (
	"fmt"
	"maps"
	"math"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"dynamo-metrics/internal/kube/kubetest"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// largeIDs are ids of every size. The last four are two pairs that are equal as float64.
var largeIDs = []uint64{7, 1<<53 + 1, 13019061642146836830, 13019061642146836831, math.MaxUint64 - 1, math.MaxUint64}

// registrars start a program, and write registrations to the registry that it watches.
var registrars = map[string]func(*stack, map[uint64][]entry) *server{
	"etcd": func(s *stack, all map[uint64][]entry) *server {
		for _, entries := range all {
			s.put(entries...)
		}
		return s.metrics("--poll-interval", "0.1")
	},
	"file": func(s *stack, all map[uint64][]entry) *server {
		dir := registryDir{s.t, filepath.Join(s.t.TempDir(), "store")}
		for _, entries := range all {
			dir.put(time.Now(), entries...)
		}
		dir.touch(slices.Concat(slices.Collect(maps.Values(all))...)...)
		return serve(s.t, []string{"NATS_SERVER=" + s.NATS.URL(), "DYN_FILE_KV=" + dir.path}, "--discovery", "file", "--poll-interval", "0.1")
	},
	"kubernetes": func(s *stack, all map[uint64][]entry) *server {
		c := &cluster{stack: s, api: new(kubetest.Server)}
		c.web = httptest.NewServer(c.api)
		s.t.Cleanup(c.stopAPI)
		for id, entries := range all {
			keys := make(map[string]string)
			for _, e := range entries {
				keys[e.key] = withFloats(e.value)
			}
			w := &podWorker{name: fmt.Sprintf("pod-%x", id)}
			c.api.Put(kubetest.WorkerMetadata, resource(w.name, keys))
			c.ready(w, true)
		}
		return c.metrics("--nats-server", s.NATS.URL(), "--poll-interval", "0.1")
	},
}

// withFloats returns a value as Kubernetes clients in Go may write it: a number too large
// for int64 becomes a float64. Here all numbers do, which is no easier to parse.
func withFloats(value string) string {
	return regexp.MustCompile(`"instance_id":\d+`).ReplaceAllStringFunc(value, func(field string) string {
		f, _ := strconv.ParseFloat(field[len(`"instance_id":`):], 64)
		return `"instance_id":` + strconv.FormatFloat(f, 'f', -1, 64)
	})
}

func TestLargeIDsAreRoundedAsInKubernetes(t *testing.T) {
	const want = `{"instance_id":13019061642146836000}` // as captured
	if got := withFloats(`{"instance_id":13019061642146836831}`); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// publishers publish events with this publisher id: on NATS, and on a socket for each
// topic.
var publishers = map[string]func(*stack) (transport func(id uint64, topic string) string, publish func(event)){
	"nats": func(s *stack) (func(uint64, string) string, func(event)) {
		return func(uint64, string) string { return natsTransport }, func(e event) { s.publish(scope+"."+e.topic, e.envelope()) }
	},
	"zmq": func(s *stack) (func(uint64, string) string, func(event)) {
		type socket struct {
			id    uint64
			topic string
		}
		sockets := make(map[socket]*publisher)
		transport := func(id uint64, topic string) string {
			p := newPublisher(s.t, "PUB")
			sockets[socket{id, topic}] = p
			return zmqTransport(p.address)
		}
		return transport, func(e event) { sockets[socket{e.publisher, e.topic}].send(e.frames(e.topic)) }
	},
}

// TestLargeIDsAreShownExactly checks ids in every registry, as a worker's and as a
// publisher's (up to 1.3 these are the same), in loads, forward passes, hit-rate events and
// traces, on both event planes.
func TestLargeIDsAreShownExactly(t *testing.T) {
	t.Parallel()
	for where, register := range registrars {
		for plane, connect := range publishers {
			t.Run(where+" and "+plane, func(t *testing.T) {
				t.Parallel()
				s := newStack(t)
				transport, publish := connect(s)
				all := make(map[uint64][]entry)
				for _, id := range largeIDs {
					all[id] = registration(id)
					for _, topic := range []string{wire.TopicLoad, wire.TopicForwardPass} {
						all[id] = append(all[id], channel(topic, id, transport(id, topic)))
					}
				}
				m := register(s, all)
				if plane == "zmq" {
					m.waitForPublishers(2*len(largeIDs), 0)
				}
				m.waitForNATSEvents()
				m.waitForSamples(samples{workersSeries("generate", "silent"): fmt.Sprint(len(largeIDs))})
				for i, id := range largeIDs {
					publish(event{id, 0, wire.TopicLoad, load16(id, uint64(10+i))})
					for n := range uint64(2 + i) {
						publish(event{id, n, wire.TopicForwardPass, forwardPass(strconv.FormatUint(id, 10), n+1)})
					}
					s.hit(id, 100+i, 30)
					s.publish(wire.TraceSubject, fmt.Appendf(nil, `{"schema":"dynamo.request.trace.v1","event_type":"request_end","request":{"kv_hit_rate":0.6,"ttft_ms":200,`+
						`"worker":{"prefill_worker_id":%[1]d,"decode_worker_id":%[1]d},"replay":{"trace_block_size":16,"input_length":320}}}`, id))
				}
				waitForLargeIDs(t, m)
			})
		}
	}
}

// waitForLargeIDs waits until each worker has what it has published, and nothing else is
// shown.
func waitForLargeIDs(t *testing.T, m *server) {
	t.Helper()
	n := fmt.Sprint(len(largeIDs))
	want := samples{
		workersSeries("generate", "answering"): n, workersSeries("generate", "silent"): "0", workersSeries("generate", "unregistered"): "0", workersSeries("generate", "malformed"): "0",
		messages(stats.LoadEvent): n, messages(stats.HitRate): n, messages(stats.Trace): n,
		"dynamo_metrics_foreign_events_total": "0", "dynamo_metrics_event_sequence_gaps_total": "0",
	}
	var labels, keys []string
	for i, id := range largeIDs {
		want[workerSeries("llm_worker_up", "generate", id)] = "1"
		want[workerSeries("llm_kv_blocks_active", "generate", id)] = fmt.Sprint(10 + i)
		want[workerSeries("llm_kv_blocks_total", "generate", id)] = "1000"
		want[workerSeries("llm_forward_passes_total", "generate", id)] = fmt.Sprint(2 + i)
		want[workerSeries("llm_kv_hit_rate_isl_blocks", "generate", id)] = fmt.Sprint(120 + i)
		want[workerSeries("llm_kv_hit_rate_overlap_blocks", "generate", id)] = "42"
		want[workerSeries("llm_worker_request_ttft_seconds_count", "generate", id)] = "1"
		labels = append(labels, fmt.Sprintf(`worker_id="%d" worker_id_hex="%[1]x"`, id))
		keys = append(keys, fmt.Sprint(id))
	}
	m.waitForSamples(want)
	p, err := m.scrape()
	if err != nil {
		t.Fatal(err)
	}
	if bad := p.filter("dynamo_metrics_rejected_messages_total"); len(bad) > 0 {
		t.Errorf("rejected: %v", bad)
	}
	var named []string
	for series := range p.filter("llm_worker_info{") {
		label := regexp.MustCompile(`worker_id(?:_hex)?="\w+"`).FindAllString(series, -1)
		named = append(named, fmt.Sprintf("%s %s", label[0], label[1]))
	}
	slices.Sort(named)
	slices.Sort(labels)
	if !slices.Equal(named, labels) {
		t.Errorf("the metrics have the ids %q, want %q", named, labels)
	}
	m.waitForSnapshot(func(g snapshot) error {
		var seen []string
		for _, w := range g.Workers {
			seen = append(seen, w.Key)
		}
		slices.Sort(seen)
		if slices.Sort(keys); !slices.Equal(seen, keys) {
			return fmt.Errorf("the snapshot has %q, want %q", seen, keys)
		}
		return nil
	})
}
