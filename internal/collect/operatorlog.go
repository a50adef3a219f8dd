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

// logEndpoint logs once, for each endpoint that a poll has found, which service is polled.
func (p *Poller) logEndpoint(e fleet.Endpoint, poll int) {
	_, logged := p.loggedEndpoints[e]
	if p.loggedEndpoints == nil {
		p.loggedEndpoints = make(map[fleet.Endpoint]int)
	}
	p.loggedEndpoints[e] = poll
	if logged {
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

// missingLog decides when to log that polls find no workers, which may go on for days: at once,
// and then at growing intervals.
type missingLog struct {
	logged     bool          // it was logged, and no poll has found workers since
	next       time.Time     // when it may be logged again; zero: at once
	interval   time.Duration // before next
	foundSince time.Time     // since when polls have found workers; zero: the last one found none
}

const (
	minMissingInterval = 2 * time.Second
	maxMissingInterval = time.Minute

	// missingSlack is how much before next it may be logged. Polls are not exactly periodic, and
	// waiting for the following poll would double a short interval.
	missingSlack = 100 * time.Millisecond
)

// shouldLog reports whether to log now that a poll has found no workers.
func (m *missingLog) shouldLog(now time.Time) bool {
	if !m.foundSince.IsZero() && now.Sub(m.foundSince) >= maxMissingInterval {
		*m = missingLog{} // this is a new outage
	}
	m.foundSince = time.Time{}
	if now.Before(m.next.Add(-missingSlack)) {
		return false
	}
	m.interval = max(minMissingInterval, min(2*m.interval, maxMissingInterval))
	m.logged, m.next = true, now.Add(m.interval)
	return true
}

// recovered records that a poll has found workers, and reports whether the last log line was that
// there are none.
func (m *missingLog) recovered(now time.Time) (wasLogged bool) {
	if m.foundSince.IsZero() {
		m.foundSince = now
	}
	wasLogged, m.logged = m.logged, false
	return wasLogged
}

// logNotFound logs that a poll has found no workers, and a hint. It logs nothing in the grace
// period after a reconnection, because the workers may still be reconnecting.
func (p *Poller) logNotFound(now time.Time) {
	if now.Before(p.graceUntil) || !p.missing.shouldLog(now) {
		return
	}
	p.Log.Warn("No endpoints found " + p.targetDescription())
	if p.Fleet.HasRegistry() {
		p.Log.Info(registryHint(p.Namespaces, p.Fleet.Target(), p.Fleet.WorkerCounts()))
	} else {
		p.Log.Info("Without a registry only workers that answer are visible: are they running, and do --namespace and --component match?")
	}
}

// targetDescription describes the polled target as the original's log does.
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

// logNoLoad logs once that the watched endpoint exists but carries no load, and which endpoints
// do.
func (p *Poller) logNoLoad(others []string) {
	t := p.Fleet.Target()
	if p.loggedNoLoad || t.Name == "" {
		return
	}
	p.loggedNoLoad = true
	message := "Endpoint " + t.Name + " of component " + t.Component + " carries no load"
	if len(others) > 0 {
		message += "; these endpoints of the component do: " + joinNames(others)
	}
	p.Log.Info(message)
}

// maxNames bounds how many names a log line lists.
const maxNames = 20

// registryHint returns which workers of the target are registered but silent. If there are none,
// it returns what is registered, and which of these names the operator may have meant.
func registryHint(namespaces wire.Namespaces, t fleet.Target, registered []fleet.WorkerCount) string {
	if len(registered) == 0 {
		return "Nothing is registered in namespace " + string(namespaces) +
			": are the workers running, and does --namespace match?"
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
			"; do they hang, or do they use another NATS server?"
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

// joinNames joins the names that a log line lists, at most maxNames of them.
func joinNames(names []string) string {
	if len(names) > maxNames {
		names = append(names[:maxNames:maxNames], "…")
	}
	return strings.Join(names, ", ")
}
