package monitor

import (
	"fmt"
	"slices"
	"time"

	"dynamo-metrics/internal/fleet"
)

// grace is how long a worker that is polled may take from its registration to its
// first answer.
const startupGrace = 15 * time.Second

// silence: it had a load, or should have one by now, and has none.
func measureSilent(m *Monitor, r *row) number {
	late := m.now-r.since >= ticks(startupGrace) && !r.publishes
	return boolMeasure(r.state == fleet.StateSilent && (r.lastLoad != 0 || late))
}

func silentMessage(m *Monitor, p *problem) message {
	longest := fleet.Opt[time.Duration]{}
	for _, r := range p.rows {
		if age := r.lastLoadAge(m.now); age.OK && age.V >= longest.V {
			longest = age
		}
	}
	n := countWorkers(p.rows)
	last := "No load has come from " + ifElse(n == 1, "it", "them") + " yet"
	if longest.OK {
		last = "No load for " + formatDuration(longest.V)
	}
	return message{
		title:  p.workersOfEndpoint() + ifElse(n == 1, " is", " are") + " registered but silent",
		detail: fmt.Sprintf("%s: %s. %s, but still registered%s.", p.endpoint, workerNames(p.rows), last, m.registryPhrase()),
		check: "does the process hang? Had it ended, its registration would be gone within half a minute. Read its log; up to 0.5.1 see that it serves the endpoint load_metrics. " +
			"If it stays silent, restart it.",
	}
}

// quietFor: it publishes when something changes, and nothing has, as far as we know.
func measureQuiet(m *Monitor, r *row) number {
	if r.state != fleet.StateSilent || r.lastLoad != 0 || !r.publishes {
		return number{}
	}
	return fleet.Some((m.now - r.since).duration().Seconds())
}

func quietMessage(m *Monitor, p *problem) message {
	one, since := countWorkers(p.rows) == 1, m.now
	for _, r := range p.rows {
		since = min(since, r.since)
	}
	return message{
		title: p.workersOfEndpoint() + ifElse(one, " has", " have") + " not published a load yet",
		detail: fmt.Sprintf("%s: %s. From 0.6 on a worker publishes its load when it changes, and none has come in %s.",
			p.endpoint, workerNames(p.rows), formatDuration((m.now - since).duration())),
		check: "are they idle? Then nothing. Else: do they publish on a plane that is read here (DYN_EVENT_PLANE), and is the engine told to report its load or forward passes?",
	}
}

func measureMalformed(_ *Monitor, r *row) number { return boolMeasure(r.state == fleet.StateMalformed) }

func malformedMessage(_ *Monitor, p *problem) message {
	one := countWorkers(p.rows) == 1
	return message{
		title:  p.workersOfEndpoint() + ifElse(one, " answers", " answer") + " what cannot be read",
		detail: fmt.Sprintf("%s: %s. The load in %s last answer could not be decoded, so none is shown: wrong is worse than absent.", p.endpoint, workerNames(p.rows), ifElse(one, "its", "their")),
		check:  "a patched engine, or a release that is newer than this program? With DYN_LOG=info,metrics=debug the log says what is wrong with each answer. Please report it.",
	}
}

func malformedEndedMessage(m *Monitor, p *problem) message {
	return message{
		title:  p.workersOfEndpoint() + " answered what could not be read",
		detail: fmt.Sprintf("%s: %s, until %s.", p.endpoint, workerNames(p.rows), p.lastTrueAgo(m)),
	}
}

// sincePass: an engine that reports its forward passes does so at least once a second.
func measureStalled(m *Monitor, r *row) number {
	if r.state != fleet.StateAnswering || !r.passAge.OK || !m.ready() {
		return number{}
	}
	return fleet.Some(r.passAge.V.Seconds())
}

func stalledMessage(_ *Monitor, p *problem) message {
	one, longest := countWorkers(p.rows) == 1, time.Duration(0)
	for _, r := range p.rows {
		longest = max(longest, r.passAge.V)
	}
	return message{
		title:  ifElse(one, "The engine of ", "The engines of ") + p.workersOfEndpoint() + ifElse(one, " has", " have") + " stopped reporting",
		detail: fmt.Sprintf("%s: %s. No forward pass for %s; even an idle engine reports one a second.", p.endpoint, workerNames(p.rows), formatDuration(longest)),
		check:  "is the engine stuck? See its log and whether its requests end. If it works, its events do not arrive: can its ZMQ publisher be reached from here?",
	}
}

func stalledEndedMessage(m *Monitor, p *problem) message {
	one := countWorkers(p.rows) == 1
	return message{
		title:  ifElse(one, "The engine of ", "The engines of ") + p.workersOfEndpoint() + " had stopped reporting",
		detail: fmt.Sprintf("%s: %s, until %s.", p.endpoint, workerNames(p.rows), p.lastTrueAgo(m)),
	}
}

func measureFull(_ *Monitor, r *row) number { return r.load.kvUsage() }

func fullMessage(m *Monitor, p *problem) message {
	rows := slices.Clone(p.rows)
	slices.SortStableFunc(rows, func(a, b *row) int { return compareFloats(b.load.kvUsage().V, a.load.kvUsage().V) })
	fullest := summarize(firstRows(rows), func(r *row) string { return r.name() + " at " + formatPercent(r.load.kvUsage().V) })
	waits := 0.0
	for _, r := range rows {
		waits += r.load.waiting().V
	}
	use := &p.endpoint.aggregate.kvUsage
	msg := message{
		title:  ifElse(countWorkers(rows) == 1, "The KV cache of ", "The KV caches of ") + p.workersOfEndpoint() + ifElse(countWorkers(rows) == 1, " is", " are") + " nearly full",
		detail: fmt.Sprintf("%s: %s. %s there", p.endpoint, fullest, requestsWaitText(waits)),
		check: "add workers, or let each take fewer requests at once (in vLLM max_num_seqs), or give the cache more memory. " +
			"An engine without a free block throws work away and does it again.",
		severity: severityWarn,
		rows:     rows,
	}
	if use.N > 0 {
		msg.detail += "; the mean of the endpoint is " + formatPercent(use.Mean)
	}
	msg.detail += "."
	switch {
	case use.N > 0 && use.Mean < moderateUsage:
		msg.check = "does one long shared prefix draw its requests there? Compare its hit rate with the others'. Give the router less weight on cache overlap, or set --router-temperature above 0."
	case use.N > 1 && use.Mean >= fullUsage:
		msg.check = "the whole endpoint is full: " + msg.check
	}
	return msg
}

func fullEndedMessage(m *Monitor, p *problem) message {
	rows := slices.Clone(p.rows)
	slices.SortStableFunc(rows, func(a, b *row) int {
		return compareFloats(float64(b.ruleStates[ruleFull].lastMeasure), float64(a.ruleStates[ruleFull].lastMeasure))
	})
	return message{
		title: ifElse(countWorkers(rows) == 1, "The KV cache of ", "The KV caches of ") + p.workersOfEndpoint() + ifElse(countWorkers(rows) == 1, " was", " were") + " nearly full",
		detail: fmt.Sprintf("%s: %s.", p.endpoint, summarize(firstRows(rows), func(r *row) string {
			st, use := &r.ruleStates[ruleFull], r.load.kvUsage()
			return fmt.Sprintf("%s (%s %s ago, now %s)", r.name(), formatPercent(float64(st.lastMeasure)), formatDuration((m.now - st.lastTrue).duration()), ifElse(use.OK, formatPercent(use.V), "not known"))
		})),
		rows: rows,
	}
}

// nearlyFull is the KV use from which on a cache is.
const fullUsage = 0.9

// roomy is the mean KV use below which an endpoint has room.
const moderateUsage = 0.75

// withoutKey: it answers, is not static, and there is a registry that it should be in.
func measureUnregistered(m *Monitor, r *row) number {
	return boolMeasure(r.state == fleet.StateUnregistered && m.options.Fleet.HasRegistry() && !r.id.IsStatic())
}

func unregisteredMessage(m *Monitor, p *problem) message {
	one := countWorkers(p.rows) == 1
	return message{
		title: p.workersOfEndpoint() + ifElse(one, " answers but is", " answer but are") + " not registered",
		detail: fmt.Sprintf("%s: %s. %s registration%s has been gone for %s, and %s still heard. No metric counts %s.", p.endpoint, workerNames(p.rows),
			ifElse(one, "Its", "Their"), m.registryPhrase(), formatDuration((m.now - p.since).duration()), ifElse(one, "it is", "they are"), ifElse(one, "it", "them")),
		check: "is it shutting down, and finishes its requests? Else it was paused or cut off for longer than its lease: routers do not see it and will send it nothing. Restart it.",
	}
}

// inRegistry is where workers register, as the end of a phrase.
func (m *Monitor) registryPhrase() string {
	if m.options.Registry == "" {
		return ""
	}
	return " in " + m.options.Registry
}

func requestsWaitText(n float64) string {
	switch n {
	case 0:
		return "No request waits"
	case 1:
		return "1 request waits"
	}
	return formatCount(uint64(n)) + " requests wait"
}

func compareFloats(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
