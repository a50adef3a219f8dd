package monitor

import (
	"fmt"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// bound is how old the newest load may be: of workers that are polled, or whose pages
// are read, three times and a second for the answers. Loads that are published are valid
// however old they are, while what they come by is connected.
func (m *Monitor) maxLoadAge(newest fleet.Source) (age time.Duration, bounded bool) {
	switch newest {
	case fleet.FromStats:
		return max(5*time.Second, 3*m.options.Poll+time.Second), true
	case fleet.FromScrape:
		return max(5*time.Second, 3*m.options.Scrape+time.Second), true
	}
	return 0, false
}

// signals are what an autoscaler needs of an endpoint, in sum over these namespaces, or
// why it must not be told.
func (m *Monitor) signals(of wire.Namespaces, e fleet.Endpoint) (d jsonWriter, stale string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refresh()
	var places []*endpointStats
	var agg aggregate
	for _, ep := range m.endpoints {
		if ep.Component == e.Component && ep.Name == e.Name && of.Match(m.options.Namespaces.OfEndpoint(ep.Endpoint)) {
			places = append(places, ep)
			agg.merge(&ep.aggregate)
		}
	}
	if m.leftOut.endpoints > 0 && (len(places) == 0 || m.options.Namespaces.IsPattern()) {
		return d, fmt.Sprintf("stale: there are more endpoints than the %s that are looked at", formatCount(maxEndpoints))
	}
	newest, stale := m.newestLoad(places, agg.shown)
	if stale != "" {
		return d, stale
	}
	d.open('{')
	d.text("namespace", string(of))
	writeEndpoint(&d, e)
	d.bool("seen", len(places) > 0)
	d.int("now", m.sampledAt.UnixMilli())
	d.int("workers", int64(agg.shown))
	d.int("workers_answering", int64(agg.answering))
	d.int("workers_silent", int64(agg.silent))
	d.int("workers_malformed", int64(agg.malformed))
	d.fraction("kv_usage_mean", agg.kvUsage.Opt(agg.kvUsage.Mean))
	d.fraction("kv_usage_max", agg.kvUsage.Opt(agg.kvUsage.Max))
	// Of nobody nothing waits; of somebody who does not say, nobody knows.
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

// freshness is the newest load of so many workers, or why nothing can be said of them.
func (m *Monitor) newestLoad(places []*endpointStats, workers int) (newest *row, stale string) {
	if !m.ready() {
		return nil, "stale: " + strings.Join(m.missing, ", ")
	}
	published := false
	for _, ep := range places {
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
