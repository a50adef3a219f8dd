// Package exposition writes metrics: for the metrics endpoint, for a Pushgateway, and as l2c events
// on NATS. All of it reads a Snapshot of the Fleet.
package exposition

import (
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"

	"github.com/prometheus/client_golang/prometheus"
)

// The metric table has every metric once, for all writers. The first nine are exactly the
// original's. A test compares the table with docs/metrics.md.

type optFloat = fleet.Opt[float64]

// namespaceLabel is a label of every series of the Fleet if several namespaces are watched. If only
// one is, the labels are the original's.
const namespaceLabel = "dynamo_namespace"

// family is what all rows of the table have in common.
type family struct {
	name, help string
	kind       prometheus.ValueType
}

// workerFamily is a metric with the labels component, endpoint and worker_id.
type workerFamily struct {
	family
	value func(*fleet.WorkerState) optFloat // absent: no series
}

// endpointFamily is a metric with the labels component and endpoint.
type endpointFamily struct {
	family
	value func(*fleet.EndpointState) optFloat
}

var workerFamilies = []workerFamily{
	{gauge("llm_kv_blocks_active", "Active KV cache blocks"),
		func(w *fleet.WorkerState) optFloat { return count(w.Load.V.KVActive, w.ShowsBlocks()) }},
	{gauge("llm_kv_blocks_total", "Total KV cache blocks"),
		func(w *fleet.WorkerState) optFloat { return count(w.Load.V.KVTotal, w.ShowsBlocks()) }},
	{gauge("llm_requests_active_slots", "Active request slots"),
		func(w *fleet.WorkerState) optFloat { return count(w.Load.V.ActiveSlots, w.ShowsSlots()) }},
	{gauge("llm_requests_total_slots", "Total request slots"),
		func(w *fleet.WorkerState) optFloat { return count(w.Load.V.TotalSlots, w.ShowsSlots()) }},
	// The value is a fraction in spite of the name: dashboards multiply it by 100.
	{gauge("llm_kv_hit_rate_percent", "KV hit rate percentage per worker"),
		func(w *fleet.WorkerState) optFloat { return w.Load.V.HitRate }},
	{counter("llm_kv_hit_rate_isl_blocks", "Cumulative count of ISL blocks in KV hit rate events"),
		func(w *fleet.WorkerState) optFloat { return optFloat{V: float64(w.Hits.V.ISLBlocks), OK: w.Hits.OK} }},
	{counter("llm_kv_hit_rate_overlap_blocks", "Cumulative count of overlapping blocks in KV hit rate events"),
		func(w *fleet.WorkerState) optFloat {
			return optFloat{V: float64(w.Hits.V.OverlapBlocks), OK: w.Hits.OK}
		}},

	{gauge("llm_worker_up", "Whether the worker answered the last poll, or is registered and has published a load (1), or is silent (0)"),
		func(w *fleet.WorkerState) optFloat { return optFloat{V: boolValue(w.Up), OK: w.Listed} }},
	{gauge("llm_worker_load_age_seconds", "Time since the load of the worker was received"),
		func(w *fleet.WorkerState) optFloat { return optFloat{V: w.LoadAge.Seconds(), OK: w.Load.OK} }},
	{gauge("llm_requests_waiting", "Requests waiting in the worker's queue"),
		func(w *fleet.WorkerState) optFloat { return count(w.Load.V.Waiting, true) }},
	{gauge("llm_kv_cache_usage_ratio", "Fraction of the worker's KV cache in use, 0 to 1"),
		func(w *fleet.WorkerState) optFloat { return w.Load.V.CacheUsage }},
	{gauge("llm_spec_decode_drafts", "Speculative decoding: drafts, as the worker reports them"),
		func(w *fleet.WorkerState) optFloat { return count(w.Load.V.SpecDrafts, true) }},
	{gauge("llm_spec_decode_draft_tokens", "Speculative decoding: tokens drafted, as the worker reports them"),
		func(w *fleet.WorkerState) optFloat { return count(w.Load.V.SpecDraftTokens, true) }},
	{gauge("llm_spec_decode_accepted_tokens", "Speculative decoding: tokens accepted, as the worker reports them"),
		func(w *fleet.WorkerState) optFloat { return count(w.Load.V.SpecAccepted, true) }},

	{counter("llm_forward_passes_total", "Forward passes of the worker's engine"),
		passValue(func(p *fleet.Passes) uint64 { return p.Count })},
	{counter("llm_forward_passes_missed_total", "Forward pass reports that were lost, by the gaps in their counter"),
		passValue(func(p *fleet.Passes) uint64 { return p.Missed })},
	{counter("llm_forward_pass_prefill_tokens_total", "Prefill tokens computed in the forward passes"),
		passValue(func(p *fleet.Passes) uint64 { return p.PrefillTokens })},
	{counter("llm_forward_pass_decode_tokens_total", "Tokens generated in the forward passes"),
		passValue(func(p *fleet.Passes) uint64 { return p.DecodeTokens })},
	{gauge("llm_queued_prefill_tokens", "Prefill tokens of the requests that wait in the worker's engine"),
		passValue(func(p *fleet.Passes) uint64 { return p.QueuedTokens })},
	{gauge("llm_scheduled_kv_tokens", "Tokens in the KV cache of the requests that the worker's engine runs"),
		passValue(func(p *fleet.Passes) uint64 { return p.ScheduledKVTokens })},
}

// rankFamily is a metric with the labels component, endpoint, worker_id and dp_rank.
type rankFamily struct {
	family
	value func(fleet.RankState) optFloat
}

// rankFamilies are only for workers with several data parallel ranks.
var rankFamilies = []rankFamily{
	{gauge("llm_rank_kv_blocks_active", "Active KV cache blocks of a data parallel rank"),
		func(r fleet.RankState) optFloat { return count(r.Load.KVActive, true) }},
	{gauge("llm_rank_requests_active", "Active requests of a data parallel rank"),
		func(r fleet.RankState) optFloat { return count(r.Load.ActiveSlots, true) }},
}

// passDuration is a histogram with the labels of a worker.
var passDuration = family{name: "llm_forward_pass_duration_seconds", help: "Duration of the forward passes of the worker's engine"}

// timingFamily is a summary without quantiles, with the labels of a worker.
type timingFamily struct {
	name, help string
	value      func(*fleet.Timings) fleet.Timing
}

var timingFamilies = []timingFamily{
	{"llm_worker_request_ttft_seconds", "Time to the first token of the requests that the worker prefilled",
		func(t *fleet.Timings) fleet.Timing { return t.FirstToken }},
	{"llm_worker_request_inter_token_seconds", "Mean time between tokens of the requests that the worker decoded",
		func(t *fleet.Timings) fleet.Timing { return t.InterToken }},
	{"llm_worker_request_duration_seconds", "Total time of the requests that the worker decoded",
		func(t *fleet.Timings) fleet.Timing { return t.Duration }},
}

// requestFamily is a histogram with the labels component and endpoint.
type requestFamily struct {
	name, help string
	value      func(*fleet.Histograms) *stats.Histogram
}

var requestFamilies = []requestFamily{
	{"llm_request_ttft_seconds", "Time to the first token of the finished requests",
		func(h *fleet.Histograms) *stats.Histogram { return &h.FirstToken }},
	{"llm_request_inter_token_seconds", "Mean time between tokens of the finished requests",
		func(h *fleet.Histograms) *stats.Histogram { return &h.InterToken }},
	{"llm_request_duration_seconds", "Total time of the finished requests",
		func(h *fleet.Histograms) *stats.Histogram { return &h.Duration }},
}

// workerInfo joins decimal worker ids with Dynamo's hexadecimal ones. Its further labels are
// worker_id_hex, source and model.
var workerInfo = gauge("llm_worker_info", "Hexadecimal id, source of the load, and model of the worker; always 1")

var endpointFamilies = []endpointFamily{
	{gauge("llm_load_avg", "Average load across workers"),
		func(e *fleet.EndpointState) optFloat { return e.Blocks.Opt(e.Blocks.Mean) }},
	{gauge("llm_load_std", "Load standard deviation across workers"),
		func(e *fleet.EndpointState) optFloat { return e.Blocks.Opt(e.Blocks.Std) }},
	{gauge("llm_load_max", "Largest number of active KV cache blocks among the workers"),
		func(e *fleet.EndpointState) optFloat { return e.Blocks.Opt(e.Blocks.Max) }},
	{gauge("llm_load_imbalance_ratio", "Largest number of active KV cache blocks, divided by the mean"),
		func(e *fleet.EndpointState) optFloat { return e.Blocks.Imbalance() }},
	{counter("llm_kv_hit_rate_events_total", "KV hit rate events counted for this endpoint"),
		func(e *fleet.EndpointState) optFloat { return fleet.Some(float64(e.HitEvents)) }},
}

// workersByState has the further label state; all four states are always present.
var workersByState = gauge("llm_workers", "Workers by state: answering, silent (registered, no load), unregistered (answer without a key), malformed")

var workerStates = []struct {
	name  string
	count func(*fleet.EndpointState) int
}{
	{"answering", func(e *fleet.EndpointState) int { return e.Answering }},
	{"malformed", func(e *fleet.EndpointState) int { return e.Malformed }},
	{"silent", func(e *fleet.EndpointState) int { return e.Silent }},
	{"unregistered", func(e *fleet.EndpointState) int { return e.Unregistered }},
}

// point is one series of one of the program's own metrics.
type point struct {
	value  float64
	labels []string
}

// programFamily is one of the program's own metrics.
type programFamily struct {
	family
	labels []string
	points func(*stats.Stats) []point
}

var programFamilies = []programFamily{
	{gauge("dynamo_metrics_connected", "Whether the server is connected"), []string{"system"},
		func(s *stats.Stats) []point {
			var ps []point
			for _, c := range s.Connections() {
				if c.Used() {
					ps = append(ps, point{boolValue(c.Up()), []string{c.System}})
				}
			}
			return ps
		}},
	{counter("dynamo_metrics_disconnects_total", "How often the connection to the server was lost"), []string{"system"},
		func(s *stats.Stats) []point {
			return perConnection(s, func(c *stats.ConnState) float64 { return float64(c.Disconnects()) })
		}},
	{counter("dynamo_metrics_disconnected_seconds_total", "How long the server was not connected, or denied a required permission; events during that time are lost"), []string{"system"},
		func(s *stats.Stats) []point {
			return perConnection(s, func(c *stats.ConnState) float64 { return c.Downtime().Seconds() })
		}},
	{counter("dynamo_metrics_log_lines_dropped_total", "Lines missing in the program's log: they could not be written, or not fast enough"), nil,
		func(s *stats.Stats) []point {
			if s.LogDropped == nil {
				return []point{{value: 0}}
			}
			return []point{{value: float64(s.LogDropped())}}
		}},
	{counter("dynamo_metrics_errors_total", "Calls that failed"), []string{"source"},
		func(s *stats.Stats) []point { return pointsPer(stats.Peers(), s.Failures) }},
	{gauge("dynamo_metrics_leader", "Whether this program holds the unique-instance key of its namespace"), nil,
		func(s *stats.Stats) []point {
			if !s.Etcd.Used() && !s.Kubernetes.Used() {
				return nil
			}
			return []point{{value: boolValue(s.Leader.Load())}}
		}},
	{counter("dynamo_metrics_polls_total", "Stats polls by result"), []string{"result"},
		func(s *stats.Stats) []point { return pointsPer(stats.PollResults(), s.Polls) }},
	{counter("dynamo_metrics_worker_scrapes_total", "Scrapes of the workers' own metrics by result"), []string{"result"},
		func(s *stats.Stats) []point { return pointsPer(stats.ScrapeResults(), s.Scrapes) }},
	{counter("dynamo_metrics_worker_scrape_errors_total", "Scrapes of the workers' own metrics that failed"), []string{"reason"},
		func(s *stats.Stats) []point { return pointsPer(stats.ScrapeFailures(), s.ScrapeFailures) }},
	{counter("dynamo_metrics_messages_total", "Messages received"), []string{"kind"},
		func(s *stats.Stats) []point { return pointsPer(stats.Kinds(), s.Messages) }},
	{counter("dynamo_metrics_rejected_messages_total", "Messages, or parts of them, that were rejected"), []string{"kind", "reason"},
		rejected},
	{counter("dynamo_metrics_dropped_messages_total", "Messages lost"), []string{"reason"},
		func(s *stats.Stats) []point { return pointsPer(stats.Drops(), s.Dropped) }},
	{counter("dynamo_metrics_workers_over_limit_total", "Workers, endpoints, replies, events and channels turned away because a limit was reached"), nil,
		func(s *stats.Stats) []point { return []point{{value: float64(s.AllRefused())}} }},
	{counter("dynamo_metrics_over_limit_total", "Items turned away because a limit was reached"), []string{"kind"},
		func(s *stats.Stats) []point { return pointsPer(stats.Limits(), s.Refused) }},
	{counter("dynamo_metrics_foreign_events_total", "Hit-rate events and request traces of workers that are not watched"), nil,
		func(s *stats.Stats) []point { return []point{{value: float64(s.ForeignEvents.Load())}} }},
	{counter("dynamo_metrics_scrapes_cut_off_total", "Scrapes cut off because their clients read too slowly while others waited"), nil,
		func(s *stats.Stats) []point { return []point{{value: float64(s.SlowScrapesCut.Load())}} }},
	{counter("dynamo_metrics_event_sequence_gaps_total", "Events that were lost, by the gaps in their publishers' sequence numbers"), nil,
		func(s *stats.Stats) []point { return []point{{value: float64(s.MissedEvents.Load())}} }},
	{gauge("dynamo_metrics_zmq_publishers", "Announced ZMQ publishers by connection state"), []string{"state"},
		zmqPublishers},
	{counter("dynamo_metrics_push_total", "Pushes to the Pushgateway by result"), []string{"result"},
		func(s *stats.Stats) []point {
			return []point{
				{value: float64(s.PushError.Load()), labels: []string{"error"}},
				{value: float64(s.PushOK.Load()), labels: []string{"ok"}},
			}
		}},
	{gauge("dynamo_metrics_push_last_success_timestamp_seconds", "Unix time of the last successful push; absent before it"), nil,
		func(s *stats.Stats) []point {
			at := s.LastPush.Load()
			if at == 0 {
				return nil
			}
			return []point{{value: time.Duration(at).Seconds()}}
		}},
	{gauge("dynamo_metrics_history_bytes", "Memory of the history for the web page"), nil,
		func(s *stats.Stats) []point {
			n := s.HistoryBytes.Load()
			if n == 0 {
				return nil
			}
			return []point{{value: float64(n)}}
		}},
	{gauge("dynamo_metrics_page_streams", "Open web pages"), nil,
		func(s *stats.Stats) []point { return []point{{value: float64(s.Streams.Load())}} }},
	{counter("dynamo_metrics_page_streams_lost_total", "Web pages that got no data: refused because too many were open, or cut off because they did not read"), []string{"reason"},
		func(s *stats.Stats) []point {
			return []point{
				{value: float64(s.StreamsCutOff.Load()), labels: []string{"cut_off"}},
				{value: float64(s.StreamsRefused.Load()), labels: []string{"refused"}},
			}
		}},
	{counter("dynamo_metrics_page_snapshots_skipped_total", "Snapshots that web pages missed because they read slowly"), nil,
		func(s *stats.Stats) []point { return []point{{value: float64(s.SnapshotsSkipped.Load())}} }},
}

// pollDuration and eventLag are histograms.
var (
	pollDuration = family{name: "dynamo_metrics_poll_duration_seconds", help: "Duration of stats polls"}
	eventLag     = family{name: "dynamo_metrics_event_lag_seconds", help: "Time from publication to receipt of events that carry a timestamp, by both clocks"}
)

// subscribed has the labels subject and need.
var subscribed = gauge("dynamo_metrics_subscribed", "Whether NATS permits the program to subscribe to a subject, or to publish on it")

// needOf returns the value of the label need.
func needOf(s fleet.Subject) string {
	if s.Required {
		return "required"
	}
	return "optional"
}

// targetWorkers has the component and endpoint of the flags as labels. The endpoint is empty if all
// endpoints of a component are watched.
var targetWorkers = gauge("dynamo_metrics_target_workers", "Workers at the component and endpoint that the flags name, whether they report a load or not; absent if the flags name none")

// buildInfo has the labels version, revision and goversion.
var buildInfo = gauge("dynamo_metrics_build_info", "The build of this program; always 1")

func gauge(name, help string) family   { return family{name, help, prometheus.GaugeValue} }
func counter(name, help string) family { return family{name, help, prometheus.CounterValue} }

func count(n fleet.Opt[uint64], shown bool) optFloat {
	return optFloat{V: float64(n.V), OK: n.OK && shown}
}

// passValue returns a function that reads a value of the forward passes. The value is absent before
// the first pass.
func passValue(value func(*fleet.Passes) uint64) func(*fleet.WorkerState) optFloat {
	return func(w *fleet.WorkerState) optFloat {
		return optFloat{V: float64(value(&w.Passes.V)), OK: w.Passes.OK}
	}
}

func zmqPublishers(s *stats.Stats) []point {
	if !s.ZMQ.Used() {
		return nil
	}
	up, all, waiting := s.PublishersUp.Load(), s.Publishers.Load(), s.PublishersWaiting.Load()
	return []point{{float64(up), []string{"connected"}}, {float64(max(0, all-up-waiting)), []string{"disconnected"}}, {float64(waiting), []string{"waiting"}}}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// perConnection returns a point for each connection in use.
func perConnection(s *stats.Stats, value func(*stats.ConnState) float64) (ps []point) {
	for _, c := range s.Connections() {
		if c.Used() && !c.Disabled() {
			ps = append(ps, point{value(c.ConnState), []string{c.System}})
		}
	}
	return ps
}

func pointsPer[K interface{ String() string }](keys []K, value func(K) uint64) []point {
	var ps []point
	for _, k := range keys {
		ps = append(ps, point{float64(value(k)), []string{k.String()}})
	}
	return ps
}

func rejected(s *stats.Stats) []point {
	var ps []point
	for _, k := range stats.Kinds() {
		for _, r := range stats.Reasons() {
			// Most pairs cannot occur. The others have a series from their first case on.
			if n := s.Rejected(k, r); n > 0 {
				ps = append(ps, point{float64(n), []string{k.String(), r.String()}})
			}
		}
	}
	return ps
}
