package collect

import (
	"strconv"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// handleReply handles one reply to a poll.
func (p *Poller) handleReply(m *nats.Msg) {
	p.replyMu.Lock()
	defer p.replyMu.Unlock()
	poll, _ := strconv.Atoi(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" { // from NATS itself: no responders
		p.addNoResponders(poll)
		return
	}
	counts := &p.Fleet.Stats
	counts.CountMessage(stats.StatsReply)
	if p.isLate(poll) {
		counts.CountRejected(stats.StatsReply, stats.Late)
		return
	}
	r, err := p.decoder.Decode(m.Data)
	if err != nil {
		counts.CountRejected(stats.StatsReply, stats.BadJSON)
		p.Log.Debug("Ignored a stats reply", "error", err)
		return
	}
	service := p.serviceOf(r.Service)
	if service.lastPoll == 0 {
		counts.CountRejected(stats.StatsReply, stats.BadID)
		p.Log.Debug("Ignored a stats reply of a service that was not polled", "service", r.Service)
		return
	}
	p.reports = p.reports[:0]
	for i := range r.Endpoints {
		if report, ok := p.endpointReport(&r, &r.Endpoints[i], service); ok {
			p.reports = append(p.reports, report)
		}
	}
	p.updatePoll(p.reports)
	if p.Fleet.RecordPollReply(p.reports...) {
		p.wakePoll() // once per poll: waking it for each reply would cost as much as the reply
	}
}

// endpointReport returns what a reply reports about one endpoint, and false if that is invalid.
// An invalid endpoint does not invalidate the others of the reply.
func (p *Poller) endpointReport(r *wire.DecodedReply, e *wire.DecodedEndpoint, s service) (report fleet.PollReply, ok bool) {
	counts := &p.Fleet.Stats
	worker := fleet.WorkerID{Lease: e.Lease}
	ok = e.Name != ""
	if e.Lease == 0 {
		worker.Static = string(r.ID)
		ok = ok && wire.ValidStaticID(worker.Static)
	}
	if !ok {
		counts.CountRejected(stats.StatsReply, stats.BadName)
		p.Log.Debug("Ignored an endpoint of a stats reply", "subject", string(e.Subject), "service", r.Service, "id", string(r.ID))
		return report, false
	}
	report = fleet.PollReply{
		Endpoint: p.endpointOf(r.Service, s, e.Name, e.Lease),
		Worker:   worker,
		Service:  r.Service,
		Outcome:  e.Outcome,
		Load:     e.Load,
		Rank:     e.Rank,
	}
	if e.Err != nil && p.Fleet.Target().Covers(report.Endpoint) {
		counts.CountRejected(stats.StatsReply, stats.BadLoad)
		p.Log.Debug("A worker's load cannot be decoded", "endpoint", report.Endpoint, "worker_id", worker, "error", e.Err)
	}
	return report, true
}

// updatePoll adds to the state of the poll what is logged about it later.
func (p *Poller) updatePoll(reports []fleet.PollReply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range reports {
		r := &reports[i]
		watched := p.Fleet.Target().Covers(r.Endpoint)
		switch {
		case !watched && r.Outcome == fleet.Reported:
			if len(p.poll.otherEndpoints) <= maxNames {
				p.poll.otherEndpoints[r.Name] = true
			}
		case !watched:
		case r.Outcome == fleet.Reported:
			p.poll.matched = true
			p.poll.loads++
		default:
			p.poll.matched = true
			p.poll.nullLoad = p.poll.nullLoad || r.Outcome == fleet.NoLoad
		}
	}
}

// addNoResponders counts a request of the running poll that has no responders.
func (p *Poller) addNoResponders(poll int) {
	p.mu.Lock()
	if poll == p.poll.number {
		p.poll.noResponders++
	}
	p.mu.Unlock()
	p.wakePoll()
}

// noResponders reports whether no request of the running poll has responders.
func (p *Poller) noResponders() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.poll.noResponders == p.poll.requests
}

// wakePoll makes the running poll check whether replies are still expected.
func (p *Poller) wakePoll() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// service is a NATS service that was polled.
type service struct {
	component fleet.Endpoint // a watched component with this service name; an endpoint without a name
	exclusive bool           // no other component with registered workers has this service name
	lastPoll  int            // the last poll that sent it a request; 0: none
}

// serviceOf returns the service of this name; its lastPoll is 0 if it was not polled.
func (p *Poller) serviceOf(name string) service {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.services[name]
	s.exclusive = s.exclusive && p.Fleet.EndpointsAdded() == p.endpointsAdded
	return s
}

// endpointOf returns the endpoint of this name that a worker serves. If components share the
// service, the endpoint belongs to the component that the worker is registered in, watched or not.
// If there is none, it belongs to the service's first component.
func (p *Poller) endpointOf(service string, s service, name string, lease uint64) fleet.Endpoint {
	at := s.component
	at.Name = name
	if lease == 0 || s.exclusive {
		return at
	}
	for _, e := range p.Fleet.EndpointsOf(lease) {
		if e.Name == name && wire.IsServiceOf(service, p.Namespaces.OfEndpoint(e), e.Component) {
			return e
		}
	}
	return at
}
