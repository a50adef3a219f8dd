package monitor

import (
	"fmt"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// maxLoadAge returns how old the newest load may be: for polled or scraped workers three
// intervals and a second for the responses. A published load does not expire while the connection
// that it arrived over is up.
func (m *Monitor) maxLoadAge(newest fleet.Source) (age time.Duration, bounded bool) {
	switch newest {
	case fleet.FromStats:
		return max(5*time.Second, 3*m.options.Poll+time.Second), true
	case fleet.FromScrape:
		return max(5*time.Second, 3*m.options.Scrape+time.Second), true
	}
	return 0, false
}

// signals returns what an autoscaler needs of an endpoint, summed over these namespaces, or the
// reason why there is no valid answer.
func (m *Monitor) signals(of wire.Namespaces, e fleet.Endpoint) (d jsonWriter, stale string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refresh()
	var endpoints []*endpointStats
	var agg aggregate
	for _, ep := range m.endpoints {
		if ep.Component == e.Component && ep.Name == e.Name && of.Match(m.options.Namespaces.OfEndpoint(ep.Endpoint)) {
			endpoints = append(endpoints, ep)
			agg.merge(&ep.aggregate)
		}
	}
	if m.leftOut.endpoints > 0 && (len(endpoints) == 0 || m.options.Namespaces.IsPattern()) {
		return d, fmt.Sprintf("stale: there are more endpoints than the %s that are tracked", formatCount(maxEndpoints))
	}
	newest, stale := m.newestLoad(endpoints, agg.shown)
	if stale != "" {
		return d, stale
	}
	d.open('{')
	d.text("namespace", string(of))
	writeEndpoint(&d, e)
	d.bool("seen", len(endpoints) > 0)
	d.int("now", m.sampledAt.UnixMilli())
	d.int("workers", int64(agg.shown))
	d.int("workers_answering", int64(agg.answering))
	d.int("workers_silent", int64(agg.silent))
	d.int("workers_malformed", int64(agg.malformed))
	d.fraction("kv_usage_mean", agg.kvUsage.Opt(agg.kvUsage.Mean))
	d.fraction("kv_usage_max", agg.kvUsage.Opt(agg.kvUsage.Max))
	// Without workers nothing waits. If no worker reports a value, it is unknown.
	empty := agg.shown == 0
	sums := []struct {
		name string
		sum  partialSum
	}{{"requests_running", agg.running}, {"requests_waiting", agg.waiting}, {"queued_prefill_tokens", agg.queuedTokens}}
	for _, c := range sums {
		d.number(c.name, number{V: c.sum.V, OK: c.sum.OK || empty}, 1)
	}
	for _, c := range sums {
		d.int(c.name+"_workers", int64(c.sum.workers))
	}
	d.fraction("hit_rate", agg.hitsRecent.rate())
	if newest != nil {
		d.number("age_seconds", fleet.Some(newest.load.age.Seconds()), 100)
	}
	d.close('}')
	return d, ""
}

// newestLoad returns the row with the newest load, or the reason why the loads are not valid.
func (m *Monitor) newestLoad(endpoints []*endpointStats, workers int) (newest *row, stale string) {
	if !m.ready() {
		return nil, "stale: " + strings.Join(m.missing, ", ")
	}
	published := false
	for _, ep := range endpoints {
		for i := ep.start; i < ep.end; i++ {
			r := &m.rows[i]
			if !r.load.known || r.unregistered {
				continue
			}
			if _, bounded := m.maxLoadAge(r.source.V); !bounded {
				published = true
			}
			if newest == nil || r.load.age < newest.load.age {
				newest = r
			}
		}
	}
	if workers == 0 {
		return newest, ""
	}
	if newest == nil {
		return nil, fmt.Sprintf("stale: none of %s has reported a load", plural(workers, "worker"))
	}
	if bound, bounded := m.maxLoadAge(newest.source.V); bounded && !published && newest.load.age > bound {
		return nil, fmt.Sprintf("stale: the newest load is %s old, want no more than %s", formatDuration(newest.load.age), formatDuration(bound))
	}
	return newest, ""
}
