package e2e

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/mock"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// TestReleasesOnBothEventPlanes changes every worker's load while metrics runs, and gives
// each worker two hits.
func TestReleasesOnBothEventPlanes(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	type member struct {
		mock.Config
		*mockWorker
		*mockScript
	}
	var all []member
	for _, c := range mock.Mixed(mock.Config{Namespace: "dynamo", Component: "backend", Endpoint: "generate"}) {
		p := &mockScript{load: loadOf(1, 1, 1)}
		c = p.applyTo(c)
		all = append(all, member{c, s.mock(c), p})
	}
	m := s.metrics("--poll-interval", "0.1")
	m.waitForPublishers(4, 0) // loads and hits of 0.9.1, loads and forward passes of 1.6.1
	m.waitForNATSEvents()
	m.waitUntilReady()

	want := samples{
		workersSeries("generate", "answering"): "10", workersSeries("generate", "silent"): "0",
		workersSeries("generate", "unregistered"): "0", workersSeries("generate", "malformed"): "0",
		`llm_load_avg{` + backend + `}`:                 "91",
		`llm_load_max{` + backend + `}`:                 "181",
		`llm_kv_hit_rate_events_total{` + backend + `}`: "20",
		// Each worker of 1.6.1 has one request with a time to the first token of 13 ms, and
		// one with 1 ms.
		`llm_request_ttft_seconds_count{` + backend + `}`:                    "4",
		`llm_request_ttft_seconds_bucket{` + backend + `,le="0.01"}`:         "2",
		`llm_request_ttft_seconds_bucket{` + backend + `,le="0.025"}`:        "4",
		`llm_request_inter_token_seconds_bucket{` + backend + `,le="0.005"}`: "0",
		`llm_request_inter_token_seconds_bucket{` + backend + `,le="0.01"}`:  "4",
		`llm_request_duration_seconds_bucket{` + backend + `,le="0.1"}`:      "0",
		`llm_request_duration_seconds_bucket{` + backend + `,le="0.25"}`:     "4",
		`dynamo_metrics_event_sequence_gaps_total`:                           "0",
		`dynamo_metrics_foreign_events_total`:                                "0",
		`dynamo_metrics_connected{system="nats"}`:                            "1",
		`dynamo_metrics_connected{system="etcd"}`:                            "1",
		`dynamo_metrics_connected{system="zmq"}`:                             "1",
		`dynamo_metrics_disconnects_total{system="zmq"}`:                     "0",
	}
	passes := make(map[uint64]uint64) // the slots of workers that report forward passes, by worker
	for i, w := range all {
		slots, waiting, blocks := uint64(8+i), uint64(20+i), uint64(1+20*i)
		w.change(func(p *mockScript) {
			p.load = loadOf(slots, waiting, blocks)
			p.hits = [][2]int{{25, 10}, {5, 5}}
		})
		maps.Copy(want, samplesOfRelease(w.Release, w.id, slots, waiting, blocks))
		if w.Release == "1.6.1" {
			passes[w.id] = slots
		}
	}
	m.waitForSamples(want)
	p, err := m.scrape()
	if err != nil {
		t.Fatal(err)
	}
	if bad := p.filter("dynamo_metrics_rejected_messages_total"); len(bad) > 0 {
		t.Errorf("rejected: %v", bad)
	}
	if info := p.filter("llm_worker_info{"); len(info) != len(all) {
		t.Errorf("got %v, want one of each worker", info)
	}
	for id, slots := range passes {
		m.waitFor(func(p samples) error { return p.matchForwardPasses(id, slots, 2) })
	}
	if len(passes) != 2 || len(p.filter("llm_forward_passes_total")) != 2 {
		t.Errorf("got %v, want those of 1.6.1 alone: %v", p.filter("llm_forward_passes_total"), passes)
	}
}

// samplesOfRelease returns what /metrics shows for a worker of a release with this load,
// and the two hits 10/25 and 5/5. Values that the release does not send are empty.
func samplesOfRelease(release string, id, slots, waiting, blocks uint64) samples {
	source, model, hitRate := "stats", "", "0.5"
	usage, requests, queue := "0.25", fmt.Sprint(slots), fmt.Sprint(waiting)
	switch release {
	case "0.6.1":
		source, model = "load_event", "mock"
	case "0.9.1":
		source, model, hitRate, requests, queue = "active_load", "mock", "", "", ""
		usage = decimal(float64(blocks) / 1000)
	case "1.6.1":
		source, model, hitRate = "active_load", "mock", ""
		usage = decimal(float64(blocks) / 1000)
	}
	allSlots := "100"
	if requests == "" {
		allSlots = "" // these are only shown together
	}
	only16 := func(value string) string {
		if release != "1.6.1" {
			return ""
		}
		return value
	}
	// In seconds: 1 ms before a request starts, 0.8 ms for each missed block, 8 ms for each
	// further token.
	first, second, rest := 0.013, 0.001, 23*0.008
	p := samples{
		fmt.Sprintf(`llm_worker_info{%s,model=%q,source=%q,worker_id="%d",worker_id_hex="%x"}`, backend, model, source, id, id): "1",
	}
	for metric, value := range map[string]string{
		"llm_worker_up":                              "1",
		"llm_kv_blocks_active":                       fmt.Sprint(blocks),
		"llm_kv_blocks_total":                        "1000",
		"llm_requests_active_slots":                  requests,
		"llm_requests_total_slots":                   allSlots,
		"llm_requests_waiting":                       queue,
		"llm_kv_cache_usage_ratio":                   usage,
		"llm_kv_hit_rate_percent":                    hitRate,
		"llm_kv_hit_rate_isl_blocks":                 "30",
		"llm_kv_hit_rate_overlap_blocks":             "15",
		"llm_worker_request_ttft_seconds_count":      only16("2"),
		"llm_worker_request_ttft_seconds_sum":        only16(decimal(first + second)),
		"llm_worker_request_inter_token_seconds_sum": only16("0.016"),
		"llm_worker_request_duration_seconds_sum":    only16(decimal((first + rest) + (second + rest))),
		"llm_worker_request_duration_seconds_count":  only16("2"),
		"llm_forward_passes_missed_total":            only16("0"),
		"llm_queued_prefill_tokens":                  only16(fmt.Sprint(100 * waiting)),
		"llm_scheduled_kv_tokens":                    only16(fmt.Sprint(64*(slots/8) + 512*(slots-slots/8))),
	} {
		p[workerSeries(metric, "generate", id)] = value
	}
	return p
}

// decimal formats a value as /metrics does.
func decimal(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// matchForwardPasses checks that there are at least this many forward passes with these
// slots, and that all their counters are consistent. Forward passes before the slots were
// set had one decoding request.
func (p samples) matchForwardPasses(id, slots, least uint64) error {
	value := func(metric string) uint64 {
		n, _ := strconv.ParseUint(p[workerSeries(metric, "generate", id)], 10, 64)
		return n
	}
	passes := value("llm_forward_passes_total")
	prefill, decode := slots/8, slots-slots/8
	full := value("llm_forward_pass_prefill_tokens_total") / (128 * prefill)
	if full < least {
		return fmt.Errorf("%d passes of %d slots, want %d", full, slots, least)
	}
	if got, want := value("llm_forward_pass_decode_tokens_total"), full*decode+(passes-full); got != want {
		return fmt.Errorf("%d tokens decoded in %d passes, want %d", got, passes, want)
	}
	if n := value("llm_forward_pass_duration_seconds_count"); n != passes {
		return fmt.Errorf("%d durations of %d passes", n, passes)
	}
	bucket := func(le string) string {
		return strings.TrimSuffix(workerSeries("llm_forward_pass_duration_seconds_bucket", "generate", id), "}") + `,le="` + le + `"}`
	}
	return p.match(samples{bucket("0.01"): "0", bucket("0.025"): fmt.Sprint(passes)}) // each takes 12.5 ms
}

func TestReleasesForwardPassWithoutWorkerIsRejected(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.put(registration(7)...)
	m := s.metrics()
	m.waitForNATSEvents()
	for i := range uint64(3) {
		e := event{publisher: 9, sequence: i, topic: wire.TopicForwardPass, payload: forwardPass("", i+1)}
		s.publish(scope+"."+wire.TopicForwardPass, e.envelope())
	}
	e := event{publisher: 10, topic: wire.TopicForwardPass, payload: forwardPass("7", 1)}
	s.publish(scope+"."+wire.TopicForwardPass, e.envelope())
	m.waitForSamples(samples{
		rejected(stats.ForwardPass, stats.NoWorker):                                                  "3",
		messages(stats.ForwardPass):                                                                  "4",
		workerSeries("llm_forward_passes_total", "generate", 7):                                      "1",
		workerSeries("llm_requests_active_slots", "generate", 7):                                     "1",
		workersSeries("generate", "answering"):                                                       "1",
		`llm_worker_info{` + backend + `,model="tiny",source="fpm",worker_id="7",worker_id_hex="7"}`: "1",
	})
	const warning = " WARN metrics: Forward passes without a worker id cannot be shown"
	m.WaitForLine(warning)
	if logged := m.LinesWith(warning); len(logged) != 1 {
		t.Errorf("logged %q, want one warning", logged)
	}
}

func TestReleasesRanksOfAWorkerAddUp(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.put(registration(7)...)
	m := s.metrics()
	m.waitForNATSEvents()
	for rank, blocks := range map[uint64]uint64{0: 10, 1: 20, 3: 60} {
		l := load{worker: 7, rank: rank, used: fleet.Some(blocks)}
		s.publish(scope+"."+wire.TopicLoad, event{70 + rank, 0, wire.TopicLoad, l.encode()}.envelope())
	}
	rank := func(n int) string {
		return fmt.Sprintf(`llm_rank_kv_blocks_active{component="backend",dp_rank="%d",endpoint="generate",worker_id="7"}`, n)
	}
	m.waitForSamples(samples{
		rank(0): "10", rank(1): "20", rank(2): "", rank(3): "60",
		workerSeries("llm_kv_blocks_active", "generate", 7):     "90",
		workerSeries("llm_kv_blocks_total", "generate", 7):      "3000",
		workerSeries("llm_kv_cache_usage_ratio", "generate", 7): "0.03",
		workersSeries("generate", "answering"):                  "1",
		`llm_load_avg{` + backend + `}`:                         "90",
	})
}

func TestReleasesRouterEstimateIsNoLoad(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.put(registration(7)...)
	m := s.metrics()
	m.waitForNATSEvents()
	own := load{worker: 7, decode: fleet.Some[uint64](10)}
	estimate := load{worker: 7, decode: fleet.Some[uint64](999), prefill: fleet.Some[uint64](0)}
	const subject = "namespace.dynamo." + wire.TopicLoad
	s.publish(subject, event{7, 0, wire.TopicLoad, own.encode()}.envelope())
	s.publish(subject, event{8, 0, wire.TopicLoad, estimate.encode()}.envelope())
	s.publish(subject, []byte(`{"worker_id":7,"dp_rank":0,"active_decode_blocks":999,"active_prefill_tokens":5}`)) // the format of 0.8
	m.waitForSamples(samples{
		messages(stats.LoadEvent):                           "3",
		rejected(stats.LoadEvent, stats.Estimate):           "2",
		workerSeries("llm_kv_blocks_active", "generate", 7): "10",
	})
	s.publish(subject, []byte(`{"worker_id":7,"dp_rank":0,"active_decode_blocks":11,"active_prefill_tokens":null}`))
	m.waitForSamples(samples{workerSeries("llm_kv_blocks_active", "generate", 7): "11", rejected(stats.LoadEvent, stats.Estimate): "2"})
}

func TestReleasesComponentFlagSelectsEvents(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	m := s.metrics("--component", "backend", "--endpoint", "generate")
	p := &mockScript{load: loadOf(1, 1, 1)}
	ours := s.mock(p.config("1.6.1", mock.ZMQ))
	other := &mockScript{load: loadOf(1, 1, 1)}
	c := other.config("1.6.1", mock.ZMQ)
	c.Component = "prefill"
	theirs := s.mock(c)
	m.waitForPublishers(2, 0)
	m.waitForNATSEvents()
	p.setLoad(loadOf(8, 2, 42))
	other.setLoad(loadOf(8, 2, 43))
	s.publish("namespace.dynamo.component.prefill.endpoint.generate."+wire.TopicLoad, event{90, 0, wire.TopicLoad, load16(theirs.id, 44)}.envelope())
	m.waitForSamples(samples{
		ours.series("llm_kv_blocks_active"):    "42",
		workersSeries("generate", "answering"): "1",
		`llm_load_avg{` + backend + `}`:        "42",
	})
	m.waitFor(func(p samples) error { return p.matchNoneOf(theirs.id) })
}
