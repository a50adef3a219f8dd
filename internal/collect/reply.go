package collect

import (
	"strconv"
	"strings"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// reply takes one answer to a poll, unless it comes too late.
func (p *Poller) handleReply(m *nats.Msg) {
	p.replyMu.Lock()
	defer p.replyMu.Unlock()
	poll, _ := strconv.Atoi(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" { // NATS itself: nobody is there
		p.addNoResponders(poll)
		return
	}
	t := &p.Fleet.Stats
	t.CountMessage(stats.StatsReply)
	if p.isLate(poll) {
		t.CountRejected(stats.StatsReply, stats.Late)
		return
	}
	r, err := p.decoder.Decode(m.Data)
	if err != nil {
		t.CountRejected(stats.StatsReply, stats.BadJSON)
		p.Log.Debug("Ignored a stats reply", "error", err)
		return
	}
	service := p.serviceOf(r.Service)
	if service.lastPoll == 0 {
		t.CountRejected(stats.StatsReply, stats.BadID)
		p.Log.Debug("Ignored a stats reply of a service that was not asked", "service", r.Service)
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
		p.wakePoll() // only now: to wake it for each reply would cost as much as the reply
	}
}

// endpoint is what a reply says of one endpoint, false if that is of no use. What
// is wrong with it is no trouble of the others.
func (p *Poller) endpointReport(r *wire.DecodedReply, e *wire.DecodedEndpoint, s service) (report fleet.PollReply, ok bool) {
	t := &p.Fleet.Stats
	worker := fleet.WorkerID{Lease: e.Lease}
	ok = e.Name != ""
	if e.Lease == 0 {
		worker.Static = string(r.ID)
		ok = ok && wire.ValidStaticID(worker.Static)
	}
	if !ok {
		t.CountRejected(stats.StatsReply, stats.BadName)
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
		t.CountRejected(stats.StatsReply, stats.BadLoad)
		p.Log.Debug("A worker's load cannot be decoded", "endpoint", report.Endpoint, "worker_id", worker, "error", e.Err)
	}
	return report, true
}

// note keeps of an answer what the operator is told after the poll.
func (p *Poller) updatePoll(answer []fleet.PollReply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range answer {
		r := &answer[i]
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

// refused counts one request of the running poll that nobody answers.
func (p *Poller) addNoResponders(poll int) {
	p.mu.Lock()
	if poll == p.poll.number {
		p.poll.noResponders++
	}
	p.mu.Unlock()
	p.wakePoll()
}

// nobody reports whether nobody answers any request of the running poll.
func (p *Poller) noResponders() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.poll.noResponders == p.poll.requests
}

// wakeUp has the running poll look whether there is anybody left to wait for.
func (p *Poller) wakePoll() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// service is what answers under one NATS service name.
type service struct {
	component fleet.Endpoint // a watched one that has the name; without a name of its own
	exclusive bool           // no one has registered in another component of that name
	lastPoll  int            // the last that asked it; 0: none
}

func (p *Poller) serviceOf(name string) service {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.services[name]
	s.exclusive = s.exclusive && p.Fleet.EndpointsAdded() == p.openings
	return s
}

// endpointOf is the endpoint of this name that the worker is at: of the components
// that share the service, watched or not, in the one that it has registered in; else in
// the first.
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
