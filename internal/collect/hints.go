package collect

import (
	"context"
	"log/slog"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// announce says once where the load of an endpoint is looked for, which a poll has found.
func (p *Poller) announce(e fleet.Endpoint, poll int) {
	_, said := p.announced[e]
	if p.announced == nil {
		p.announced = make(map[fleet.Endpoint]int)
	}
	p.announced[e] = poll
	if said {
		return
	}
	for _, era := range wire.Eras {
		level := slog.LevelDebug
		if era == wire.EraSeed {
			level = slog.LevelInfo
		}
		service := wire.ServiceName(era, p.Namespaces.Name(e), e.Component)
		p.Log.Log(context.Background(), level,
			"Scraping service "+service+" and filtering on subject "+wire.Subject(service, e.Name, 0))
	}
}

// notFound says that a poll found nobody; the first time also what would help.
func (p *Poller) notFound() {
	p.missing = true
	p.Log.Warn("No endpoints found " + p.where())
	if !p.hinted && !p.Fleet.HasRegistry() {
		p.Log.Info("Without a registry only workers that answer are seen: are they up, and are --namespace and --component theirs?")
	} else if !p.hinted {
		p.Log.Info(hint(p.Namespaces, p.Fleet.Target(), p.Fleet.Registered()))
	}
	p.hinted = true
}

// found says that the warnings are over.
func (p *Poller) found() {
	if p.missing {
		p.Log.Info("Found endpoints " + p.where())
	}
	p.missing = false
}

// where is what is looked for, in the original's words.
func (p *Poller) where() string {
	t := p.Fleet.Target()
	if t.Component == "" || t.Several() {
		return "in namespace " + string(p.Namespaces)
	}
	service := wire.ServiceName(wire.EraSeed, string(p.Namespaces), t.Component)
	if t.Name == "" {
		return "matching subject " + wire.Subject(service, "*", 0)
	}
	return "matching subject " + wire.Subject(service, t.Name, 0)
}

// noLoad says once that the watched endpoint exists but carries no load, and which do.
func (p *Poller) noLoad(others []string) {
	t := p.Fleet.Target()
	if p.toldNoLoad || t.Name == "" {
		return
	}
	p.toldNoLoad = true
	message := "Endpoint " + t.Name + " of component " + t.Component + " carries no load"
	if len(others) > mostNames {
		others = append(others[:mostNames:mostNames], "…")
	}
	if len(others) > 0 {
		message += "; these of the component do: " + strings.Join(others, ", ")
	}
	p.Log.Info(message)
}

// mostNames bounds how many endpoints a line of the log lists.
const mostNames = 20

// hint says what is registered in the namespace and which of it may be meant.
func hint(namespaces wire.Namespaces, t fleet.Target, registered []fleet.Endpoint) string {
	if len(registered) == 0 {
		return "Nothing is registered in namespace " + string(namespaces) +
			" yet: are the workers up, and is --namespace theirs?"
	}
	var names []string
	for _, e := range registered[:min(len(registered), mostNames)] {
		names = append(names, e.String())
	}
	if len(registered) > mostNames {
		names = append(names, "…")
	}
	message := "Registered in namespace " + string(namespaces) + ": " + strings.Join(names, ", ")
	if e, ok := t.Nearest(registered); ok {
		message += "; did you mean --component " + e.Component
		if t.Name != "" {
			message += " --endpoint " + e.Name
		}
		message += "?"
	}
	return message
}
