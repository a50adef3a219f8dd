package collect

import (
	"maps"
	"slices"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"
)

// targetServices returns the names of the services to poll: those of every watched component
// that is named or registered, in the form of each release.
func (p *Poller) targetServices() []string {
	t, poll := p.Fleet.Target(), p.poll.number
	endpointsAdded := p.Fleet.EndpointsAdded() // read before the endpoints, so that a later one is noticed
	var watched, others []fleet.Endpoint       // without names: components
	if t.Component != "" && !t.MultipleNamespaces() {
		watched = []fleet.Endpoint{{Component: t.Component}}
	}
	for _, e := range p.Fleet.RegisteredEndpoints() {
		if t.Covers(e) {
			p.logEndpoint(e, poll)
			watched = append(watched, componentOf(e))
		} else {
			others = append(others, componentOf(e))
		}
	}
	named, _ := p.namedEndpoint()
	maps.DeleteFunc(p.loggedEndpoints, func(e fleet.Endpoint, seen int) bool { return e != named && seen != poll })
	p.mu.Lock()
	defer p.mu.Unlock()
	var services []string
	for _, component := range slices.Compact(watched) {
		for _, name := range p.serviceNames(component) {
			s := p.services[name]
			switch {
			case s.lastPoll != poll:
				services = append(services, name)
				s = service{component: component, exclusive: true, lastPoll: poll}
			case s.component != component:
				// Components may share a service: from 0.2.1 on, those whose names differ in case only.
				s.exclusive = false
			}
			p.services[name] = s
		}
	}
	for _, component := range slices.Compact(others) {
		for _, name := range p.serviceNames(component) {
			if s := p.services[name]; s.lastPoll == poll && s.component != component {
				s.exclusive = false
				p.services[name] = s
			}
		}
	}
	maps.DeleteFunc(p.services, func(_ string, s service) bool { return poll-s.lastPoll >= len(p.pollStarts) })
	p.poll.requests = len(services)
	p.endpointsAdded = endpointsAdded
	return services
}

// componentOf returns the component of an endpoint: the endpoint without its name.
func componentOf(e fleet.Endpoint) fleet.Endpoint {
	return fleet.Endpoint{Namespace: e.Namespace, Component: e.Component}
}

// serviceNames returns a component's service names. From 0.2.1 on, a component whose name has no
// ASCII letter or digit has none.
func (p *Poller) serviceNames(component fleet.Endpoint) (names []string) {
	for _, era := range wire.Eras {
		if name := wire.ServiceName(era, p.Namespaces.OfEndpoint(component), component.Component); name != "" {
			names = append(names, name)
		}
	}
	return names
}
