package collect

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// announce says once where the load of an endpoint is looked for, which a poll has found.
func (p *Poller) logEndpoint(e fleet.Endpoint, poll int) {
	_, said := p.loggedEndpoints[e]
	if p.loggedEndpoints == nil {
		p.loggedEndpoints = make(map[fleet.Endpoint]int)
	}
	p.loggedEndpoints[e] = poll
	if said {
		return
	}
	for _, era := range wire.Eras {
		level := slog.LevelDebug
		if era == wire.EraSeed {
			level = slog.LevelInfo
		}
		service := wire.ServiceName(era, p.Namespaces.OfEndpoint(e), e.Component)
		p.Log.Log(context.Background(), level,
			"Scraping service "+service+" and filtering on subject "+wire.Subject(service, e.Name, 0))
	}
}

// missing is when the log says that a poll found no one, which may be so for days: at once,
// and the more seldom the longer it goes on.
type missingLog struct {
	logged     bool          // and nothing has been found since
	next       time.Time     // when it may be said again; zero: at once
	interval   time.Duration // before that
	foundSince time.Time     // when something was found again; zero: nothing has been lately
}

const (
	minMissingInterval = 2 * time.Second
	maxMissingInterval = time.Minute

	// early is how much before its time it may be said: polls are not on the dot, and the next
	// one would double a short pause.
	missingSlack = 100 * time.Millisecond
)

// say reports whether it is to be said now.
func (m *missingLog) shouldLog(now time.Time) bool {
	if !m.foundSince.IsZero() && now.Sub(m.foundSince) >= maxMissingInterval {
		*m = missingLog{} // that was another time
	}
	m.foundSince = time.Time{}
	if now.Before(m.next.Add(-missingSlack)) {
		return false
	}
	m.interval = max(minMissingInterval, min(2*m.interval, maxMissingInterval))
	m.logged, m.next = true, now.Add(m.interval)
	return true
}

// end notes that something is found, and reports whether the log has said the opposite.
func (m *missingLog) recovered(now time.Time) (said bool) {
	if m.foundSince.IsZero() {
		m.foundSince = now
	}
	said, m.logged = m.logged, false
	return said
}

// notFound says that a poll found no one, and what would help. When NATS has just come back
// it says nothing: the workers may not be there again.
func (p *Poller) logNotFound(now time.Time) {
	if now.Before(p.graceUntil) || !p.missing.shouldLog(now) {
		return
	}
	p.Log.Warn("No endpoints found " + p.targetDescription())
	if p.Fleet.HasRegistry() {
		p.Log.Info(registryHint(p.Namespaces, p.Fleet.Target(), p.Fleet.WorkerCounts()))
	} else {
		p.Log.Info("Without a registry only workers that answer are seen: are they up, and are --namespace and --component theirs?")
	}
}

// where is what is looked for, in the original's words.
func (p *Poller) targetDescription() string {
	t := p.Fleet.Target()
	if t.Component == "" || t.MultipleNamespaces() {
		return "in namespace " + string(p.Namespaces)
	}
	service := wire.ServiceName(wire.EraSeed, string(p.Namespaces), t.Component)
	if t.Name == "" {
		return "matching subject " + wire.Subject(service, "*", 0)
	}
	return "matching subject " + wire.Subject(service, t.Name, 0)
}

// noLoad says once that the watched endpoint exists but carries no load, and which do.
func (p *Poller) logNoLoad(others []string) {
	t := p.Fleet.Target()
	if p.loggedNoLoad || t.Name == "" {
		return
	}
	p.loggedNoLoad = true
	message := "Endpoint " + t.Name + " of component " + t.Component + " carries no load"
	if len(others) > 0 {
		message += "; these of the component do: " + joinNames(others)
	}
	p.Log.Info(message)
}

// mostNames bounds how many endpoints a line of the log lists.
const maxNames = 20

// hint says what is registered in the namespace: that workers of what is watched are, and say
// nothing, or which of it may be meant.
func registryHint(namespaces wire.Namespaces, t fleet.Target, registered []fleet.WorkerCount) string {
	if len(registered) == 0 {
		return "Nothing is registered in namespace " + string(namespaces) + // now: there may have been workers
			": are the workers up, and is --namespace theirs?"
	}
	var names, silent []string
	var all []fleet.Endpoint
	for _, r := range registered {
		all = append(all, r.Endpoint)
		names = append(names, r.Endpoint.String())
		if t.Covers(r.Endpoint) {
			what := " workers at "
			if r.Workers == 1 {
				what = " worker at "
			}
			silent = append(silent, strconv.Itoa(r.Workers)+what+r.Endpoint.String())
		}
	}
	if len(silent) > 0 {
		return "Registered in namespace " + string(namespaces) + ", but silent: " + joinNames(silent) +
			"; do they hang, or is their NATS server another one?"
	}
	message := "Registered in namespace " + string(namespaces) + ": " + joinNames(names)
	if e, ok := t.Nearest(all); ok {
		message += "; did you mean --component " + e.Component
		if t.Name != "" {
			message += " --endpoint " + e.Name
		}
		message += "?"
	}
	return message
}

// listed are so many names as a line of the log lists.
func joinNames(names []string) string {
	if len(names) > maxNames {
		names = append(names[:maxNames:maxNames], "…")
	}
	return strings.Join(names, ", ")
}
