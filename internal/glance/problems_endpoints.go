package glance

import (
	"fmt"
	"math"
	"slices"
	"time"

	"dynamo-metrics/internal/fleet"
)

// A queue grows if so many times as many requests wait as did a minute or two ago.
const (
	queueFrom = int(time.Minute / step)
	queueTo   = int(2 * time.Minute / step)
)

// queueBefore is the mean of what waited then.
func (p *place) queueBefore(g *Glance) number {
	sum, n := 0.0, 0.0
	if g.clock.kept() < queueTo {
		return number{}
	}
	for ago := queueFrom; ago < queueTo; ago++ {
		if v := float64(p.waited[g.clock.slot(ago)]); !math.IsNaN(v) {
			sum, n = sum+v, n+1
		}
	}
	return number{V: sum / max(1, n), OK: n > 0}
}

// queueGrowth has one request a worker at least below the line: a few are no queue.
func queueGrowth(g *Glance, p *place) number {
	before := p.queueBefore(g)
	if !before.OK || !p.sums.waiting.OK {
		return number{}
	}
	return fleet.Some(p.sums.waiting.V / max(before.V, float64(p.sums.waiting.workers)))
}

func sayQueue(g *Glance, p *problem) words {
	s, rows := &p.of.sums, g.byWaiting(p.of)
	return words{
		title: fmt.Sprintf("The queue of %s grows: %s", p.of, requestsWait(s.waiting.V)),
		detail: fmt.Sprintf("%s: in %s, most at %s. A minute or two ago there were %s.", p.of, many(s.waitingWorkers, "worker"), longest(rows),
			thousands(uint64(math.Round(p.of.queueBefore(g).V)))),
		check: "do more requests come, or longer ones? Then add workers. If KV use is low while they wait, the engines are slow: see their logs. If few workers have most of the queue, see the imbalance.",
		rows:  rows,
	}
}

func hadGrown(g *Glance, p *problem) words {
	now, before := "How many wait now is not known.", p.of.queueBefore(g)
	if w := p.of.sums.waiting; w.OK {
		now = "Now " + lowered(requestsWait(w.V)) + either(before.OK, "; a minute or two ago there were "+thousands(uint64(math.Round(before.V))), "") + "."
	}
	return words{title: fmt.Sprintf("The queue of %s grew", p.of), detail: fmt.Sprintf("%s: until %s. %s", p.of, p.ago(g), now)}
}

// waitShare is the part of the workers at which requests wait, if they are not few.
func waitShare(_ *Glance, p *place) number {
	if p.sums.waiting.workers == 0 || p.sums.waiting.V < float64(p.sums.waiting.workers) {
		return number{}
	}
	return fleet.Some(float64(p.sums.waitingWorkers) / float64(p.sums.waiting.workers))
}

func saySaturated(g *Glance, p *problem) words {
	s, rows := &p.of.sums, g.byWaiting(p.of)
	return words{
		title:  fmt.Sprintf("Requests wait at %s of %s of %s", thousands(s.waitingWorkers), many(s.waiting.workers, "worker"), p.of),
		detail: fmt.Sprintf("%s: %s, most at %s. The mean KV use is %s.", p.of, requestsWait(s.waiting.V), longest(rows), either(s.use.N > 0, percent(s.use.Mean), "not known")),
		check: either(s.use.N > 0 && s.use.Mean < roomy, "the KV caches are not what is short: let each worker serve more requests at once (in vLLM max_num_seqs), or add workers.",
			"add workers, or let fewer requests in."),
		rows: rows,
	}
}

func wasSaturated(g *Glance, p *problem) words {
	now, s := "Where they wait now is not known.", &p.of.sums
	if s.waiting.OK {
		now = fmt.Sprintf("Now they do at %s of %s.", thousands(s.waitingWorkers), many(s.waiting.workers, "worker"))
	}
	return words{title: fmt.Sprintf("Requests waited at most workers of %s", p.of),
		detail: fmt.Sprintf("%s: at %s of them, %s. %s", p.of, percent(p.was), p.ago(g), now)}
}

// byWaiting are the endpoint's rows where requests wait, the longest queue first.
func (g *Glance) byWaiting(p *place) (rows []*row) {
	for i := p.start; i < p.end; i++ {
		if r := &g.rows[i]; r.load.waiting().V > 0 {
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(a, b *row) int { return compare(b.load.waiting().V, a.load.waiting().V) })
	return rows
}

func longest(rows []*row) string {
	return and(first(rows, func(r *row) string { return fmt.Sprintf("%s (%s)", r.name(), thousands(r.load.waits.V)) }))
}

// unevenness matters where somebody is at least half full.
func unevenness(_ *Glance, p *place) number {
	if p.sums.use.N < 2 || p.sums.use.Max < 0.5 {
		return number{}
	}
	return p.sums.use.Imbalance()
}

func sayUneven(g *Glance, p *problem) words {
	s := &p.of.sums
	var hot, cold []*row
	waits, most, least, share := 0.0, 0.0, s.use.Max, pair{}
	for rows := g.rows[p.of.start:p.of.end]; len(rows) > 0; {
		ranks, use := ranksOf(rows)
		rows = rows[len(ranks):]
		switch {
		case !use.OK || ranks[0].outside:
		case use.V >= (s.use.Mean+s.use.Max)/2:
			hot = append(hot, ranks...)
			least = min(least, use.V)
			for _, r := range ranks {
				waits += r.load.waiting().V
			}
			if h := ranks[0].hits; h != nil && h.window != nil {
				share.add(h.window.sum(buckets))
			}
		case use.V <= s.use.Mean/4:
			cold = append(cold, ranks...)
			most = max(most, use.V)
		}
	}
	hottest := percent(s.use.Max)
	if from := percent(least); from != hottest {
		hottest = from + " to " + hottest
	}
	w := words{
		title:    fmt.Sprintf("KV use of %s is uneven: %s the mean", p.of, times(s.use.Imbalance().V)),
		detail:   fmt.Sprintf("%s: %s at %s, the mean is %s. %s there.", p.of, names(hot), hottest, percent(s.use.Mean), requestsWait(waits)),
		check:    "one hot prefix? Give the router less weight on cache overlap, or set --router-temperature above 0.",
		severity: either(waits > 0, bad, warn),
		rows:     append(hot, cold...),
	}
	if all := s.last.rate(); share.rate().OK && all.OK {
		w.check = fmt.Sprintf("one hot prefix? The hot %s %s, the endpoint %s. Give the router less weight on cache overlap, or set --router-temperature above 0.",
			either(workers(hot) == 1, "worker hits", "workers hit"), percent(share.rate().V), percent(all.V))
	}
	if len(cold) > 0 {
		w.detail += fmt.Sprintf(" %s %s at most %s.", names(cold), either(workers(cold) == 1, "has", "have"), percent(most))
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
		if v := r.load.use(); v.OK {
			sum, n = sum+v.V, n+1
		}
	}
	return ranks, number{V: sum / max(1, n), OK: n > 0}
}

func wasUneven(g *Glance, p *problem) words {
	now := "and it is not so now"
	if p.is.OK {
		now = "and has " + times(p.is.V) + " now"
	}
	return words{title: fmt.Sprintf("KV use of %s was uneven", p.of),
		detail: fmt.Sprintf("%s: the fullest worker had %s the mean %s, %s.", p.of, times(p.was), p.ago(g), now)}
}

// hitsLost is how much less of the input of the last minute was cached than normally.
func hitsLost(g *Glance, p *place) number {
	m := &p.memory[hitsCollapsed]
	if m.raised && g.now-m.since >= span(acceptAfter) {
		p.normal, *m = normal{}, memory{} // it is how things are now
	}
	last := p.window.sum(2)
	if !p.normal.known() || p.normal.rate < 0.1 || last.isl < 4*fewBlocks {
		return number{}
	}
	return fleet.Some(1 - last.rate().V/p.normal.rate)
}

// acceptAfter is how long a hit rate may be lower until that is what is normal.
const acceptAfter = 30 * time.Minute

func sayHits(g *Glance, p *problem) words {
	var rows []*row
	for i := p.of.start; i < p.of.end; i++ {
		r := &g.rows[i]
		if now, total := r.hitRate(), r.hitRateTotal(); now.OK && total.OK && now.V < total.V/2 {
			rows = append(rows, r)
		}
	}
	last := p.of.window.sum(2).rate()
	w := words{
		title:  fmt.Sprintf("The KV hit rate of %s has collapsed: %s instead of %s", p.of, percent(last.V), percent(p.of.normal.rate)),
		detail: fmt.Sprintf("%s: of the input of the last minute %s was cached; of that before, %s.", p.of, percent(last.V), percent(p.of.normal.rate)),
		check: "did workers restart, with empty caches, or do requests come that share nothing? If neither: does the router still hear of the workers' caches? " +
			"It does where DYN_EVENT_PLANE is the same for both and workers publish KV events.",
		rows: rows,
	}
	if len(rows) > 0 {
		w.detail += " Worst at " + some(firstOfEach(rows), func(r *row) string { // hits are of the whole worker
			return fmt.Sprintf("%s (%s, in all %s)", hexOf(r.id), percent(r.hitRate().V), percent(r.hitRateTotal().V))
		}) + "."
	}
	return w
}

func hadCollapsed(g *Glance, p *problem) words {
	now := "Too little came in the last minute to tell how it is now."
	if p.is.OK {
		now = fmt.Sprintf("Of the input of the last minute %s was cached.", percent(p.of.window.sum(2).rate().V))
	}
	return words{title: fmt.Sprintf("The KV hit rate of %s had collapsed", p.of),
		detail: fmt.Sprintf("%s: %s %s, where %s is normal. %s", p.of, percent(p.of.normal.rate*(1-p.was)), p.ago(g), percent(p.of.normal.rate), now)}
}
