package glance

import (
	"fmt"
	"slices"
	"time"

	"dynamo-metrics/internal/fleet"
)

// grace is how long a worker that is polled may take from its registration to its
// first answer.
const grace = 15 * time.Second

// silence: it had a load, or should have one by now, and has none.
func silence(g *Glance, r *row) number {
	late := g.now-r.since >= span(grace) && !r.publishes
	return yes(r.state == fleet.StateSilent && (r.loaded != 0 || late))
}

func saySilent(g *Glance, p *problem) words {
	longest := fleet.Opt[time.Duration]{}
	for _, r := range p.rows {
		if age := r.age(g.now); age.OK && age.V >= longest.V {
			longest = age
		}
	}
	n := workers(p.rows)
	last := "No load has come from " + either(n == 1, "it", "them") + " yet"
	if longest.OK {
		last = "No load for " + lasting(longest.V)
	}
	return words{
		title:  p.workers() + either(n == 1, " is", " are") + " registered but silent",
		detail: fmt.Sprintf("%s: %s. %s, but still registered%s.", p.of, names(p.rows), last, g.inRegistry()),
		check: "does the process hang? Had it ended, its registration would be gone within half a minute. Read its log; up to 0.5.1 see that it serves the endpoint load_metrics. " +
			"If it stays silent, restart it.",
	}
}

// quietFor: it publishes when something changes, and nothing has, as far as we know.
func quietFor(g *Glance, r *row) number {
	if r.state != fleet.StateSilent || r.loaded != 0 || !r.publishes {
		return number{}
	}
	return fleet.Some((g.now - r.since).duration().Seconds())
}

func sayQuiet(g *Glance, p *problem) words {
	one, since := workers(p.rows) == 1, g.now
	for _, r := range p.rows {
		since = min(since, r.since)
	}
	return words{
		title: p.workers() + either(one, " has", " have") + " not published a load yet",
		detail: fmt.Sprintf("%s: %s. From 0.6 on a worker publishes its load when it changes, and none has come in %s.",
			p.of, names(p.rows), lasting((g.now - since).duration())),
		check: "are they idle? Then nothing. Else: do they publish on a plane that is read here (DYN_EVENT_PLANE), and is the engine told to report its load or forward passes?",
	}
}

func unreadable(_ *Glance, r *row) number { return yes(r.state == fleet.StateMalformed) }

func sayMalformed(_ *Glance, p *problem) words {
	one := workers(p.rows) == 1
	return words{
		title:  p.workers() + either(one, " answers", " answer") + " what cannot be read",
		detail: fmt.Sprintf("%s: %s. The load in %s last answer could not be decoded, so none is shown: wrong is worse than absent.", p.of, names(p.rows), either(one, "its", "their")),
		check:  "a patched engine, or a release that is newer than this program? With DYN_LOG=info,metrics=debug the log says what is wrong with each answer. Please report it.",
	}
}

func wasMalformed(g *Glance, p *problem) words {
	return words{
		title:  p.workers() + " answered what could not be read",
		detail: fmt.Sprintf("%s: %s, until %s.", p.of, names(p.rows), p.ago(g)),
	}
}

// sincePass: an engine that reports its forward passes does so at least once a second.
func sincePass(g *Glance, r *row) number {
	if r.state != fleet.StateAnswering || !r.passAge.OK || !g.ready() {
		return number{}
	}
	return fleet.Some(r.passAge.V.Seconds())
}

func sayStalled(_ *Glance, p *problem) words {
	one, longest := workers(p.rows) == 1, time.Duration(0)
	for _, r := range p.rows {
		longest = max(longest, r.passAge.V)
	}
	return words{
		title:  either(one, "The engine of ", "The engines of ") + p.workers() + either(one, " has", " have") + " stopped reporting",
		detail: fmt.Sprintf("%s: %s. No forward pass for %s; even an idle engine reports one a second.", p.of, names(p.rows), lasting(longest)),
		check:  "is the engine stuck? See its log and whether its requests end. If it works, its events do not arrive: can its ZMQ publisher be reached from here?",
	}
}

func wasStalled(g *Glance, p *problem) words {
	one := workers(p.rows) == 1
	return words{
		title:  either(one, "The engine of ", "The engines of ") + p.workers() + " had stopped reporting",
		detail: fmt.Sprintf("%s: %s, until %s.", p.of, names(p.rows), p.ago(g)),
	}
}

func fullness(_ *Glance, r *row) number { return r.load.use() }

func sayFull(g *Glance, p *problem) words {
	rows := slices.Clone(p.rows)
	slices.SortStableFunc(rows, func(a, b *row) int { return compare(b.load.use().V, a.load.use().V) })
	fullest := some(firstOfEach(rows), func(r *row) string { return r.name() + " at " + percent(r.load.use().V) })
	waits := 0.0
	for _, r := range rows {
		waits += r.load.waiting().V
	}
	use := &p.of.sums.use
	w := words{
		title:  either(workers(rows) == 1, "The KV cache of ", "The KV caches of ") + p.workers() + either(workers(rows) == 1, " is", " are") + " nearly full",
		detail: fmt.Sprintf("%s: %s. %s there", p.of, fullest, requestsWait(waits)),
		check: "add workers, or let each take fewer requests at once (in vLLM max_num_seqs), or give the cache more memory. " +
			"An engine without a free block throws work away and does it again.",
		severity: warn,
		rows:     rows,
	}
	if use.N > 0 {
		w.detail += "; the mean of the endpoint is " + percent(use.Mean)
	}
	w.detail += "."
	switch {
	case use.N > 0 && use.Mean < roomy:
		w.check = "does one long shared prefix draw its requests there? Compare its hit rate with the others'. Give the router less weight on cache overlap, or set --router-temperature above 0."
	case use.N > 1 && use.Mean >= nearlyFull:
		w.check = "the whole endpoint is full: " + w.check
	}
	return w
}

func wasFull(g *Glance, p *problem) words {
	rows := slices.Clone(p.rows)
	slices.SortStableFunc(rows, func(a, b *row) int { return compare(float64(b.memory[full].was), float64(a.memory[full].was)) })
	return words{
		title: either(workers(rows) == 1, "The KV cache of ", "The KV caches of ") + p.workers() + either(workers(rows) == 1, " was", " were") + " nearly full",
		detail: fmt.Sprintf("%s: %s.", p.of, some(firstOfEach(rows), func(r *row) string {
			m, use := &r.memory[full], r.load.use()
			return fmt.Sprintf("%s (%s %s ago, now %s)", r.name(), percent(float64(m.was)), lasting((g.now - m.last).duration()), either(use.OK, percent(use.V), "not known"))
		})),
		rows: rows,
	}
}

// nearlyFull is the KV use from which on a cache is.
const nearlyFull = 0.9

// roomy is the mean KV use below which an endpoint has room.
const roomy = 0.75

// withoutKey: it answers, is not static, and there is a registry that it should be in.
func withoutKey(g *Glance, r *row) number {
	return yes(r.state == fleet.StateUnregistered && g.o.Fleet.HasRegistry() && !r.id.IsStatic())
}

func sayUnregistered(g *Glance, p *problem) words {
	one := workers(p.rows) == 1
	return words{
		title: p.workers() + either(one, " answers but is", " answer but are") + " not registered",
		detail: fmt.Sprintf("%s: %s. %s registration%s has been gone for %s, and %s still heard. No metric counts %s.", p.of, names(p.rows),
			either(one, "Its", "Their"), g.inRegistry(), lasting((g.now - p.since).duration()), either(one, "it is", "they are"), either(one, "it", "them")),
		check: "is it shutting down, and finishes its requests? Else it was paused or cut off for longer than its lease: routers do not see it and will send it nothing. Restart it.",
	}
}

// inRegistry is where workers register, as the end of a phrase.
func (g *Glance) inRegistry() string {
	if g.o.Registry == "" {
		return ""
	}
	return " in " + g.o.Registry
}

func requestsWait(n float64) string {
	switch n {
	case 0:
		return "No request waits"
	case 1:
		return "1 request waits"
	}
	return thousands(uint64(n)) + " requests wait"
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
