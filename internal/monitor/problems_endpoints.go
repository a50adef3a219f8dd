package monitor

import (
	"fmt"
	"math"
	"slices"
	"time"

	"dynamo-metrics/internal/fleet"
)

// The queue is compared with its mean over this range of steps: one to two minutes ago.
const (
	earlierQueueFrom = int(time.Minute / historyStep)
	earlierQueueTo   = int(2 * time.Minute / historyStep)
)

// earlierQueue returns the mean queue of that time.
func (ep *endpointStats) earlierQueue(m *Monitor) number {
	sum, n := 0.0, 0.0
	if m.historyClock.kept() < earlierQueueTo {
		return number{}
	}
	for ago := earlierQueueFrom; ago < earlierQueueTo; ago++ {
		if v := float64(ep.queueHistory[m.historyClock.slot(ago)]); !math.IsNaN(v) {
			sum, n = sum+v, n+1
		}
	}
	return number{V: sum / max(1, n), OK: n > 0}
}

// measureWaiting divides by at least one request per worker: a few waiting requests are no queue.
func measureWaiting(m *Monitor, ep *endpointStats) number {
	before := ep.earlierQueue(m)
	if !before.OK || !ep.aggregate.waiting.OK {
		return number{}
	}
	return fleet.Some(ep.aggregate.waiting.V / max(before.V, float64(ep.aggregate.waiting.workers)))
}

func waitingMessage(m *Monitor, p *problem) message {
	agg, rows := &p.endpoint.aggregate, m.rowsByQueue(p.endpoint)
	return message{
		title: fmt.Sprintf("The queue of %s is growing: %s", p.endpoint, requestsWaitText(agg.waiting.V)),
		detail: fmt.Sprintf("%s: requests wait at %s, most of them at %s. One to two minutes ago the queue was %s.", p.endpoint, plural(agg.waitingWorkers, "worker"), longestQueues(rows),
			formatCount(uint64(math.Round(p.endpoint.earlierQueue(m).V)))),
		check: "do more requests arrive, or longer ones? Then add workers. If KV use is low while requests wait, the engines are slow: read their logs. If a few workers have most of the queue, see the imbalance.",
		rows:  rows,
	}
}

func waitingEndedMessage(m *Monitor, p *problem) message {
	now, before := "The current queue is not known.", p.endpoint.earlierQueue(m)
	if w := p.endpoint.aggregate.waiting; w.OK {
		now = "Now " + lowerFirst(requestsWaitText(w.V)) + ifElse(before.OK, "; one to two minutes ago the queue was "+formatCount(uint64(math.Round(before.V))), "") + "."
	}
	return message{title: fmt.Sprintf("The queue of %s grew", p.endpoint), detail: fmt.Sprintf("%s: the queue grew until %s. %s", p.endpoint, p.lastTrueAgo(m), now)}
}

// measureSaturated returns the fraction of the workers at which requests wait, unless there are
// only a few requests.
func measureSaturated(_ *Monitor, ep *endpointStats) number {
	if ep.aggregate.waiting.workers == 0 || ep.aggregate.waiting.V < float64(ep.aggregate.waiting.workers) {
		return number{}
	}
	return fleet.Some(float64(ep.aggregate.waitingWorkers) / float64(ep.aggregate.waiting.workers))
}

func saturatedMessage(m *Monitor, p *problem) message {
	agg, rows := &p.endpoint.aggregate, m.rowsByQueue(p.endpoint)
	return message{
		title:  fmt.Sprintf("Requests wait at %s of %s of %s", formatCount(agg.waitingWorkers), plural(agg.waiting.workers, "worker"), p.endpoint),
		detail: fmt.Sprintf("%s: %s, most of them at %s. The mean KV use is %s.", p.endpoint, requestsWaitText(agg.waiting.V), longestQueues(rows), ifElse(agg.kvUsage.N > 0, formatPercent(agg.kvUsage.Mean), "not known")),
		check: ifElse(agg.kvUsage.N > 0 && agg.kvUsage.Mean < moderateUsage, "the KV caches are not the bottleneck: let each worker serve more requests at once (max_num_seqs in vLLM), or add workers.",
			"add workers, or admit fewer requests."),
		rows: rows,
	}
}

func saturatedEndedMessage(m *Monitor, p *problem) message {
	now, agg := "Where requests wait now is not known.", &p.endpoint.aggregate
	if agg.waiting.OK {
		now = fmt.Sprintf("Now they wait at %s of %s.", formatCount(agg.waitingWorkers), plural(agg.waiting.workers, "worker"))
	}
	return message{title: fmt.Sprintf("Requests waited at most workers of %s", p.endpoint),
		detail: fmt.Sprintf("%s: requests waited at %s of the workers %s. %s", p.endpoint, formatPercent(p.lastMeasure), p.lastTrueAgo(m), now)}
}

// rowsByQueue returns the endpoint's rows where requests wait, the longest queue first.
func (m *Monitor) rowsByQueue(ep *endpointStats) (rows []*row) {
	for i := ep.start; i < ep.end; i++ {
		if r := &m.rows[i]; r.load.waiting().V > 0 {
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(a, b *row) int { return compareFloats(b.load.waiting().V, a.load.waiting().V) })
	return rows
}

func longestQueues(rows []*row) string {
	return joinAnd(firstNames(rows, func(r *row) string { return fmt.Sprintf("%s (%s)", r.name(), formatCount(r.load.waitingRequests.V)) }))
}

// measureImbalance needs a worker that is at least half full.
func measureImbalance(_ *Monitor, ep *endpointStats) number {
	if ep.aggregate.kvUsage.N < 2 || ep.aggregate.kvUsage.Max < 0.5 {
		return number{}
	}
	return ep.aggregate.kvUsage.Imbalance()
}

func imbalanceMessage(m *Monitor, p *problem) message {
	agg := &p.endpoint.aggregate
	var hot, cold []*row
	waits, most, least, hotHits := 0.0, 0.0, agg.kvUsage.Max, hitBlocks{}
	for rows := m.rows[p.endpoint.start:p.endpoint.end]; len(rows) > 0; {
		ranks, use := ranksOf(rows)
		rows = rows[len(ranks):]
		switch {
		case !use.OK || ranks[0].unregistered:
		case use.V >= (agg.kvUsage.Mean+agg.kvUsage.Max)/2:
			hot = append(hot, ranks...)
			least = min(least, use.V)
			for _, r := range ranks {
				waits += r.load.waiting().V
			}
			if h := ranks[0].hits; h != nil && h.window != nil {
				hotHits.add(h.window.sum(buckets))
			}
		case use.V <= agg.kvUsage.Mean/4:
			cold = append(cold, ranks...)
			most = max(most, use.V)
		}
	}
	hottest := formatPercent(agg.kvUsage.Max)
	if from := formatPercent(least); from != hottest {
		hottest = from + " to " + hottest
	}
	msg := message{
		title:    fmt.Sprintf("KV use of %s is uneven: the fullest worker has %s the mean", p.endpoint, formatFactor(agg.kvUsage.Imbalance().V)),
		detail:   fmt.Sprintf("%s: %s at %s, the mean is %s. %s there.", p.endpoint, workerNames(hot), hottest, formatPercent(agg.kvUsage.Mean), requestsWaitText(waits)),
		check:    "is there one hot prefix? Then give cache overlap less weight in the router, or set --router-temperature above 0.",
		severity: ifElse(waits > 0, severityBad, severityWarn),
		rows:     append(hot, cold...),
	}
	if all := agg.hitsRecent.rate(); hotHits.rate().OK && all.OK {
		msg.check = fmt.Sprintf("is there one hot prefix? The hit rate of the full %s is %s, and the endpoint's is %s. If it is higher, give cache overlap less weight in the router, or set --router-temperature above 0.",
			ifElse(countWorkers(hot) == 1, "worker", "workers"), formatPercent(hotHits.rate().V), formatPercent(all.V))
	}
	if len(cold) > 0 {
		msg.detail += fmt.Sprintf(" %s %s at most %s.", workerNames(cold), ifElse(countWorkers(cold) == 1, "has", "have"), formatPercent(most))
		msg.check += " Check that the router knows the workers with little load."
	}
	return msg
}

// ranksOf returns the rows of the first worker, and the mean KV use of its ranks.
func ranksOf(rows []row) (ranks []*row, use number) {
	sum, n := 0.0, 0.0
	for i := range rows {
		r := &rows[i]
		if r.id != rows[0].id {
			break
		}
		ranks = append(ranks, r)
		if v := r.load.kvUsage(); v.OK {
			sum, n = sum+v.V, n+1
		}
	}
	return ranks, number{V: sum / max(1, n), OK: n > 0}
}

func imbalanceEndedMessage(m *Monitor, p *problem) message {
	now := "and now the imbalance is low or not known"
	if p.current.OK {
		now = "and has " + formatFactor(p.current.V) + " now"
	}
	return message{title: fmt.Sprintf("KV use of %s was uneven", p.endpoint),
		detail: fmt.Sprintf("%s: the fullest worker had %s the mean %s, %s.", p.endpoint, formatFactor(p.lastMeasure), p.lastTrueAgo(m), now)}
}

// measureHits returns the decrease of the last minute's hit rate from the baseline, as a fraction
// of the baseline.
func measureHits(m *Monitor, ep *endpointStats) number {
	st := &ep.ruleStates[ruleHits]
	if st.raised && m.now-st.since >= ticks(baselineResetAfter) {
		ep.baseline, *st = hitBaseline{}, ruleState{} // the low hit rate is the new normal
	}
	last := ep.hitWindow.sum(2)
	if !ep.baseline.known() || ep.baseline.rate < 0.1 || last.isl < 4*minBaselineBlocks {
		return number{}
	}
	return fleet.Some(1 - last.rate().V/ep.baseline.rate)
}

// baselineResetAfter is how long a hit rate stays low until it becomes the new baseline.
const baselineResetAfter = 30 * time.Minute

func hitsMessage(m *Monitor, p *problem) message {
	var rows []*row
	for i := p.endpoint.start; i < p.endpoint.end; i++ {
		r := &m.rows[i]
		if now, total := r.hitRate(), r.hitRateTotal(); now.OK && total.OK && now.V < total.V/2 {
			rows = append(rows, r)
		}
	}
	last := p.endpoint.hitWindow.sum(2).rate()
	msg := message{
		title:  fmt.Sprintf("The KV hit rate of %s has collapsed: %s instead of %s", p.endpoint, formatPercent(last.V), formatPercent(p.endpoint.baseline.rate)),
		detail: fmt.Sprintf("%s: the hit rate of the last minute is %s, and normally it is %s.", p.endpoint, formatPercent(last.V), formatPercent(p.endpoint.baseline.rate)),
		check: "did workers restart with empty caches, or do the new requests share no prefixes? If neither: does the router still receive the workers' KV events? " +
			"DYN_EVENT_PLANE must be the same for both, and the workers must publish KV events.",
		rows: rows,
	}
	if len(rows) > 0 {
		msg.detail += " The worst workers are " + summarize(firstRows(rows), func(r *row) string { // hits are counted per worker, not per rank
			return fmt.Sprintf("%s (%s, since its start %s)", displayID(r.id), formatPercent(r.hitRate().V), formatPercent(r.hitRateTotal().V))
		}) + "."
	}
	return msg
}

func hitsEndedMessage(m *Monitor, p *problem) message {
	now := "The last minute had too little input to measure the hit rate."
	if p.current.OK {
		now = fmt.Sprintf("The hit rate of the last minute is %s.", formatPercent(p.endpoint.hitWindow.sum(2).rate().V))
	}
	return message{title: fmt.Sprintf("The KV hit rate of %s had collapsed", p.endpoint),
		detail: fmt.Sprintf("%s: the hit rate was %s %s, where %s is normal. %s", p.endpoint, formatPercent(p.endpoint.baseline.rate*(1-p.lastMeasure)), p.lastTrueAgo(m), formatPercent(p.endpoint.baseline.rate), now)}
}
