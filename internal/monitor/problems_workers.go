package monitor

import (
	"fmt"
	"slices"
	"time"

	"dynamo-metrics/internal/fleet"
)

// startupGrace is how long a polled worker may take from its registration to its first reply.
const startupGrace = 15 * time.Second

// measureSilent holds for a worker that had a load, or should have one by now, and has none.
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
	last := "No load has been received from " + ifElse(n == 1, "it", "them") + " yet"
	if longest.OK {
		last = "No load has been received for " + formatDuration(longest.V)
	}
	return message{
		title:  p.workersOfEndpoint() + ifElse(n == 1, " is", " are") + " registered but silent",
		detail: fmt.Sprintf("%s: %s. %s, but %s still registered%s.", p.endpoint, workerNames(p.rows), last, ifElse(n == 1, "it is", "they are"), m.registryPhrase()),
		check: "does the process hang? If it had ended, its registration would be gone within half a minute. Read its log. Up to 0.5.1 check that it serves the endpoint load_metrics. " +
			"If it stays silent, restart it.",
	}
}

// measureQuiet returns for how long a worker that publishes on change has not published any load.
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
		detail: fmt.Sprintf("%s: %s. From 0.6 on a worker publishes its load when it changes, and none has been received for %s.",
			p.endpoint, workerNames(p.rows), formatDuration((m.now - since).duration())),
		check: "are they idle? Then there is nothing to do. If not: do they publish on the event plane that this program reads (DYN_EVENT_PLANE), and is the engine configured to report its load or forward passes?",
	}
}

func measureMalformed(_ *Monitor, r *row) number { return boolMeasure(r.state == fleet.StateMalformed) }

func malformedMessage(_ *Monitor, p *problem) message {
	one := countWorkers(p.rows) == 1
	return message{
		title:  p.workersOfEndpoint() + ifElse(one, " sends", " send") + " malformed loads",
		detail: fmt.Sprintf("%s: %s. The load in %s last reply could not be decoded, so none is shown.", p.endpoint, workerNames(p.rows), ifElse(one, "its", "their")),
		check:  "is the engine patched, or a release newer than this program? With DYN_LOG=info,metrics=debug the log says what is wrong with each reply. Please report it.",
	}
}

func malformedEndedMessage(m *Monitor, p *problem) message {
	return message{
		title:  p.workersOfEndpoint() + " sent malformed loads",
		detail: fmt.Sprintf("%s: %s, until %s.", p.endpoint, workerNames(p.rows), p.lastTrueAgo(m)),
	}
}

// measureStalled returns the seconds since the last forward pass. An engine that reports forward
// passes does so at least once a second.
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
		check:  "is the engine stuck? Read its log, and check whether its requests finish. If it works, its events do not arrive: can its ZMQ publisher be reached from here?",
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
		check: "add workers, let each serve fewer requests at once (max_num_seqs in vLLM), or give the cache more memory. " +
			"An engine without a free block preempts requests and computes them again.",
		severity: severityWarn,
		rows:     rows,
	}
	if use.N > 0 {
		msg.detail += "; the mean of the endpoint is " + formatPercent(use.Mean)
	}
	msg.detail += "."
	switch {
	case use.N > 0 && use.Mean < moderateUsage:
		msg.check = "does one long shared prefix attract the requests there? Compare the hit rate with that of the others. Give cache overlap less weight in the router, or set --router-temperature above 0."
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

// fullUsage is the KV use from which on a cache counts as nearly full.
const fullUsage = 0.9

// moderateUsage is the mean KV use below which an endpoint has room.
const moderateUsage = 0.75

// measureUnregistered holds for a worker that reports, is not static, and is missing from the
// registry.
func measureUnregistered(m *Monitor, r *row) number {
	return boolMeasure(r.state == fleet.StateUnregistered && m.options.Fleet.HasRegistry() && !r.id.IsStatic())
}

func unregisteredMessage(m *Monitor, p *problem) message {
	one := countWorkers(p.rows) == 1
	return message{
		title: p.workersOfEndpoint() + ifElse(one, " reports but is", " report but are") + " not registered",
		detail: fmt.Sprintf("%s: %s. %s registration%s has been gone for %s, and %s. No metric counts %s.", p.endpoint, workerNames(p.rows),
			ifElse(one, "Its", "Their"), m.registryPhrase(), formatDuration((m.now - p.since).duration()), ifElse(one, "it still reports", "they still report"), ifElse(one, "it", "them")),
		check: "is it shutting down and finishing its requests? If not, it was paused or disconnected for longer than its lease: routers do not see it and send it no requests. Restart it.",
	}
}

// registryPhrase returns " in" and the registry, for the end of a phrase.
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
