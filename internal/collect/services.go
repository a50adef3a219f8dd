package collect

import (
	"maps"
	"slices"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// targets are the names of the services to ask: those of every watched component
// that is named or registered, as each era wrote them.
func (p *Poller) targets() []string {
	t, poll := p.Fleet.Target(), p.poll.number
	openings := p.Fleet.EndpointsAdded() // before it is asked what they are
	var watched, others []fleet.Endpoint // without names: components
	if t.Component != "" && !t.MultipleNamespaces() {
		watched = []fleet.Endpoint{{Component: t.Component}}
	}
	for _, e := range p.Fleet.RegisteredEndpoints() {
		if t.Covers(e) {
			p.announce(e, poll)
			watched = append(watched, componentAt(e))
		} else {
			others = append(others, componentAt(e))
		}
	}
	named, _ := p.named()
	maps.DeleteFunc(p.announced, func(e fleet.Endpoint, seen int) bool { return e != named && seen != poll })
	p.mu.Lock()
	defer p.mu.Unlock()
	var services []string
	for _, component := range slices.Compact(watched) {
		for _, name := range p.names(component) {
			s := p.services[name]
			switch {
			case s.poll != poll:
				services = append(services, name)
				s = service{component: component, alone: true, poll: poll}
			case s.component != component:
				// Components may share a service: from 0.2.1 on, those whose names differ in case only.
				s.alone = false
			}
			p.services[name] = s
		}
	}
	for _, component := range slices.Compact(others) {
		for _, name := range p.names(component) {
			if s := p.services[name]; s.poll == poll && s.component != component {
				s.alone = false
				p.services[name] = s
			}
		}
	}
	maps.DeleteFunc(p.services, func(_ string, s service) bool { return poll-s.poll >= len(p.begun) })
	p.poll.requests = len(services)
	p.openings = openings
	return services
}

// componentAt is the component of an endpoint, which is the endpoint without its name.
func componentAt(e fleet.Endpoint) fleet.Endpoint {
	return fleet.Endpoint{Namespace: e.Namespace, Component: e.Component}
}

// names are the component's service names. Of a name without a single ASCII letter or
// digit nothing is left from 0.2.1 on.
func (p *Poller) names(component fleet.Endpoint) (names []string) {
	for _, era := range wire.Eras {
		if name := wire.ServiceName(era, p.Namespaces.OfEndpoint(component), component.Component); name != "" {
			names = append(names, name)
		}
	}
	return names
}
