package monitor

import (
	"fmt"
	"math"
	"slices"
	"time"

	"dynamo-metrics/internal/fleet"
)

// A queue grows if so many times as many requests wait as did a minute or two ago.
const (
	earlierQueueFrom = int(time.Minute / historyStep)
	earlierQueueTo   = int(2 * time.Minute / historyStep)
)

// queueBefore is the mean of what waited then.
func (p *endpointStats) earlierQueue(g *Monitor) number {
	sum, n := 0.0, 0.0
	if g.historyClock.kept() < earlierQueueTo {
		return number{}
	}
	for ago := earlierQueueFrom; ago < earlierQueueTo; ago++ {
		if v := float64(p.queueHistory[g.historyClock.slot(ago)]); !math.IsNaN(v) {
			sum, n = sum+v, n+1
		}
	}
	return number{V: sum / max(1, n), OK: n > 0}
}

// queueGrowth has one request a worker at least below the line: a few are no queue.
func measureWaiting(g *Monitor, p *endpointStats) number {
	before := p.earlierQueue(g)
	if !before.OK || !p.aggregate.waiting.OK {
		return number{}
	}
	return fleet.Some(p.aggregate.waiting.V / max(before.V, float64(p.aggregate.waiting.workers)))
}

func waitingMessage(g *Monitor, p *problem) message {
	s, rows := &p.endpoint.aggregate, g.rowsByQueue(p.endpoint)
	return message{
		title: fmt.Sprintf("The queue of %s grows: %s", p.endpoint, requestsWaitText(s.waiting.V)),
		detail: fmt.Sprintf("%s: in %s, most at %s. A minute or two ago there were %s.", p.endpoint, plural(s.waitingWorkers, "worker"), longestQueues(rows),
			formatCount(uint64(math.Round(p.endpoint.earlierQueue(g).V)))),
		check: "do more requests come, or longer ones? Then add workers. If KV use is low while they wait, the engines are slow: see their logs. If few workers have most of the queue, see the imbalance.",
		rows:  rows,
	}
}

func waitingEndedMessage(g *Monitor, p *problem) message {
	now, before := "How many wait now is not known.", p.endpoint.earlierQueue(g)
	if w := p.endpoint.aggregate.waiting; w.OK {
		now = "Now " + lowerFirst(requestsWaitText(w.V)) + ifElse(before.OK, "; a minute or two ago there were "+formatCount(uint64(math.Round(before.V))), "") + "."
	}
	return message{title: fmt.Sprintf("The queue of %s grew", p.endpoint), detail: fmt.Sprintf("%s: until %s. %s", p.endpoint, p.lastTrueAgo(g), now)}
}

// waitShare is the part of the workers at which requests wait, if they are not few.
func measureSaturated(_ *Monitor, p *endpointStats) number {
	if p.aggregate.waiting.workers == 0 || p.aggregate.waiting.V < float64(p.aggregate.waiting.workers) {
		return number{}
	}
	return fleet.Some(float64(p.aggregate.waitingWorkers) / float64(p.aggregate.waiting.workers))
}

func saturatedMessage(g *Monitor, p *problem) message {
	s, rows := &p.endpoint.aggregate, g.rowsByQueue(p.endpoint)
	return message{
		title:  fmt.Sprintf("Requests wait at %s of %s of %s", formatCount(s.waitingWorkers), plural(s.waiting.workers, "worker"), p.endpoint),
		detail: fmt.Sprintf("%s: %s, most at %s. The mean KV use is %s.", p.endpoint, requestsWaitText(s.waiting.V), longestQueues(rows), ifElse(s.kvUsage.N > 0, formatPercent(s.kvUsage.Mean), "not known")),
		check: ifElse(s.kvUsage.N > 0 && s.kvUsage.Mean < moderateUsage, "the KV caches are not what is short: let each worker serve more requests at once (in vLLM max_num_seqs), or add workers.",
			"add workers, or let fewer requests in."),
		rows: rows,
	}
}

func saturatedEndedMessage(g *Monitor, p *problem) message {
	now, s := "Where they wait now is not known.", &p.endpoint.aggregate
	if s.waiting.OK {
		now = fmt.Sprintf("Now they do at %s of %s.", formatCount(s.waitingWorkers), plural(s.waiting.workers, "worker"))
	}
	return message{title: fmt.Sprintf("Requests waited at most workers of %s", p.endpoint),
		detail: fmt.Sprintf("%s: at %s of them, %s. %s", p.endpoint, formatPercent(p.lastMeasure), p.lastTrueAgo(g), now)}
}

// byWaiting are the endpoint's rows where requests wait, the longest queue first.
func (g *Monitor) rowsByQueue(p *endpointStats) (rows []*row) {
	for i := p.start; i < p.end; i++ {
		if r := &g.rows[i]; r.load.waiting().V > 0 {
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(a, b *row) int { return compareFloats(b.load.waiting().V, a.load.waiting().V) })
	return rows
}

func longestQueues(rows []*row) string {
	return joinAnd(firstNames(rows, func(r *row) string { return fmt.Sprintf("%s (%s)", r.name(), formatCount(r.load.waitingRequests.V)) }))
}

// unevenness matters where somebody is at least half full.
func measureImbalance(_ *Monitor, p *endpointStats) number {
	if p.aggregate.kvUsage.N < 2 || p.aggregate.kvUsage.Max < 0.5 {
		return number{}
	}
	return p.aggregate.kvUsage.Imbalance()
}

func imbalanceMessage(g *Monitor, p *problem) message {
	s := &p.endpoint.aggregate
	var hot, cold []*row
	waits, most, least, share := 0.0, 0.0, s.kvUsage.Max, hitBlocks{}
	for rows := g.rows[p.endpoint.start:p.endpoint.end]; len(rows) > 0; {
		ranks, use := ranksOf(rows)
		rows = rows[len(ranks):]
		switch {
		case !use.OK || ranks[0].unregistered:
		case use.V >= (s.kvUsage.Mean+s.kvUsage.Max)/2:
			hot = append(hot, ranks...)
			least = min(least, use.V)
			for _, r := range ranks {
				waits += r.load.waiting().V
			}
			if h := ranks[0].hits; h != nil && h.window != nil {
				share.add(h.window.sum(buckets))
			}
		case use.V <= s.kvUsage.Mean/4:
			cold = append(cold, ranks...)
			most = max(most, use.V)
		}
	}
	hottest := formatPercent(s.kvUsage.Max)
	if from := formatPercent(least); from != hottest {
		hottest = from + " to " + hottest
	}
	w := message{
		title:    fmt.Sprintf("KV use of %s is uneven: %s the mean", p.endpoint, formatFactor(s.kvUsage.Imbalance().V)),
		detail:   fmt.Sprintf("%s: %s at %s, the mean is %s. %s there.", p.endpoint, workerNames(hot), hottest, formatPercent(s.kvUsage.Mean), requestsWaitText(waits)),
		check:    "one hot prefix? Give the router less weight on cache overlap, or set --router-temperature above 0.",
		severity: ifElse(waits > 0, severityBad, severityWarn),
		rows:     append(hot, cold...),
	}
	if all := s.hitsRecent.rate(); share.rate().OK && all.OK {
		w.check = fmt.Sprintf("one hot prefix? The hot %s %s, the endpoint %s. Give the router less weight on cache overlap, or set --router-temperature above 0.",
			ifElse(countWorkers(hot) == 1, "worker hits", "workers hit"), formatPercent(share.rate().V), formatPercent(all.V))
	}
	if len(cold) > 0 {
		w.detail += fmt.Sprintf(" %s %s at most %s.", workerNames(cold), ifElse(countWorkers(cold) == 1, "has", "have"), formatPercent(most))
		w.check += " See that those with little to do are in the router's list."
	}
	return w
}

// ranksOf are the rows of the first worker, and its KV use: the mean of its ranks'.
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

func imbalanceEndedMessage(g *Monitor, p *problem) message {
	now := "and it is not so now"
	if p.current.OK {
		now = "and has " + formatFactor(p.current.V) + " now"
	}
	return message{title: fmt.Sprintf("KV use of %s was uneven", p.endpoint),
		detail: fmt.Sprintf("%s: the fullest worker had %s the mean %s, %s.", p.endpoint, formatFactor(p.lastMeasure), p.lastTrueAgo(g), now)}
}

// hitsLost is how much less of the input of the last minute was cached than normally.
func measureHits(g *Monitor, p *endpointStats) number {
	m := &p.ruleStates[ruleHits]
	if m.raised && g.now-m.since >= ticks(baselineResetAfter) {
		p.baseline, *m = hitBaseline{}, ruleState{} // it is how things are now
	}
	last := p.hitWindow.sum(2)
	if !p.baseline.known() || p.baseline.rate < 0.1 || last.isl < 4*minBaselineBlocks {
		return number{}
	}
	return fleet.Some(1 - last.rate().V/p.baseline.rate)
}

// acceptAfter is how long a hit rate may be lower until that is what is normal.
const baselineResetAfter = 30 * time.Minute

func hitsMessage(g *Monitor, p *problem) message {
	var rows []*row
	for i := p.endpoint.start; i < p.endpoint.end; i++ {
		r := &g.rows[i]
		if now, total := r.hitRate(), r.hitRateTotal(); now.OK && total.OK && now.V < total.V/2 {
			rows = append(rows, r)
		}
	}
	last := p.endpoint.hitWindow.sum(2).rate()
	w := message{
		title:  fmt.Sprintf("The KV hit rate of %s has collapsed: %s instead of %s", p.endpoint, formatPercent(last.V), formatPercent(p.endpoint.baseline.rate)),
		detail: fmt.Sprintf("%s: of the input of the last minute %s was cached; of that before, %s.", p.endpoint, formatPercent(last.V), formatPercent(p.endpoint.baseline.rate)),
		check: "did workers restart, with empty caches, or do requests come that share nothing? If neither: does the router still hear of the workers' caches? " +
			"It does where DYN_EVENT_PLANE is the same for both and workers publish KV events.",
		rows: rows,
	}
	if len(rows) > 0 {
		w.detail += " Worst at " + summarize(firstRows(rows), func(r *row) string { // hits are of the whole worker
			return fmt.Sprintf("%s (%s, in all %s)", displayID(r.id), formatPercent(r.hitRate().V), formatPercent(r.hitRateTotal().V))
		}) + "."
	}
	return w
}

func hitsEndedMessage(g *Monitor, p *problem) message {
	now := "Too little came in the last minute to tell how it is now."
	if p.current.OK {
		now = fmt.Sprintf("Of the input of the last minute %s was cached.", formatPercent(p.endpoint.hitWindow.sum(2).rate().V))
	}
	return message{title: fmt.Sprintf("The KV hit rate of %s had collapsed", p.endpoint),
		detail: fmt.Sprintf("%s: %s %s, where %s is normal. %s", p.endpoint, formatPercent(p.endpoint.baseline.rate*(1-p.lastMeasure)), p.lastTrueAgo(g), formatPercent(p.endpoint.baseline.rate), now)}
}
