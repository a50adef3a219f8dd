// Package collect learns what workers report: it polls their statistics and hears
// their routers' events.
package collect

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

const (
	longestPoll  = time.Second
	shortestPoll = 100 * time.Millisecond

	// grace is how long after a reconnection a poll without answers means nothing:
	// workers take their time to come back to the server too.
	grace = 5 * time.Second

	// soon is between two polls in that time, at most.
	soon = 500 * time.Millisecond
)

// Poller asks the workers of the watched components for their statistics.
type Poller struct {
	Conn       *nats.Conn // nil: nobody is asked, and the operator is only told what the registry says
	Fleet      *fleet.Fleet
	Namespaces wire.Namespaces
	Interval   time.Duration
	Log        *slog.Logger
	Found      func()        // called after each poll that found a load; may be nil
	Due        chan struct{} // of one place: says that a poll is due at once; may be nil

	wake       chan struct{}           // the running poll may have nobody to wait for
	announced  map[fleet.Endpoint]bool // watched endpoints the log has named
	reconnects uint64                  // of Conn, when last seen
	settled    time.Time               // when the workers have had time to reconnect too
	missing    bool                    // the last poll found nobody
	hinted     bool                    // the log has said what is registered
	toldNoLoad bool                    // the log has said which endpoints carry load

	// Of the reply at hand, and the replies' goroutine's own.
	decoder wire.StatsDecoder
	answer  []fleet.Report

	mu       sync.Mutex         // guards what replies share with the polls
	services map[string]service // that are asked, by their names
	openings uint64             // of the Fleet, when the services were last looked at
	poll     pollState
}

// pollState is what the replies to one poll add up to.
type pollState struct {
	inbox     string
	requests  int
	refusals  int             // requests for which NATS says that nobody is there
	matched   bool            // somebody serves a watched endpoint
	loads     int             // loads reported
	loadless  bool            // a watched endpoint's data is null
	elsewhere map[string]bool // endpoints not watched that carry a load
}

// Run polls once an interval until ctx ends, for the first time when the registry
// is known. Polls never overlap; ticks that come due meanwhile are skipped.
func (p *Poller) Run(ctx context.Context) error {
	if p.Conn == nil {
		p.every(ctx, func(int) { p.conclude(pollState{}) })
		return nil
	}
	inbox := p.Conn.NewInbox()
	replies, err := p.listen(inbox)
	if err != nil {
		return fmt.Errorf("subscribe to stats replies: %w", err)
	}
	defer replies.Unsubscribe()
	drops := dropCounter{subscription: replies, tally: &p.Fleet.Tally}
	defer drops.count()

	if t := p.Fleet.Target(); t.Name != "" && !t.Several() {
		p.announce(fleet.Endpoint(t))
	}
	p.every(ctx, func(number int) {
		p.once(ctx, fmt.Sprintf("%s.%d", inbox, number))
		drops.count()
	})
	return nil
}

// every calls f once an interval until ctx ends, for the first time when the registry
// is known, and besides when that is due.
func (p *Poller) every(ctx context.Context, f func(number int)) {
	select {
	case <-p.Fleet.Synced():
	case <-ctx.Done():
	}
	tick := time.NewTicker(p.Interval)
	defer tick.Stop()
	for number := 1; ctx.Err() == nil; number++ {
		select {
		case <-p.Due: // for this one
		default:
		}
		f(number)
		var again <-chan time.Time
		if time.Now().Before(p.settled) {
			again = time.After(soon)
		}
		select {
		case <-tick.C:
		case <-again:
		case <-p.Due:
		case <-ctx.Done():
		}
	}
}

// listen takes the replies to all polls, whose inboxes are below one.
func (p *Poller) listen(inbox string) (*nats.Subscription, error) {
	p.wake = make(chan struct{}, 1)
	p.announced = make(map[fleet.Endpoint]bool)
	p.services = make(map[string]service)
	p.decoder.Endpoint = p.Fleet.Target().Name
	return connect.Subscribe(p.Conn, inbox+".*", p.reply)
}

// once is one poll, its replies sent to inbox.
func (p *Poller) once(ctx context.Context, inbox string) {
	t := &p.Fleet.Tally
	if !p.Conn.IsConnected() {
		t.Polled(fleet.PollError, 0)
		return
	}
	start := time.Now()
	if n := p.Conn.Stats().Reconnects; n != p.reconnects {
		p.reconnects, p.settled = n, start.Add(grace)
	}
	registryUp := t.RegistryUp()
	services := p.targets()
	p.begin(inbox, len(services))
	p.Fleet.Advance(start)
	p.Fleet.BeginPoll()
	deadline := start.Add(max(shortestPoll, min(longestPoll, p.Interval)))
	if err := p.ask(services, inbox, deadline); err != nil {
		p.Log.Debug("Poll not sent", "error", err)
		p.Fleet.EndPoll(false)
		t.Polled(fleet.PollError, 0)
		return
	}
	p.await(ctx, deadline)

	p.Fleet.Advance(time.Now())
	connected := p.Conn.IsConnected() && p.Conn.Stats().Reconnects == p.reconnects && registryUp && t.RegistryUp()
	p.Fleet.EndPoll(connected && ctx.Err() == nil && start.After(p.settled))
	if ctx.Err() == nil {
		p.finish(time.Since(start))
	}
}

// ask sends one request for each service to one inbox.
func (p *Poller) ask(services []string, inbox string, deadline time.Time) error {
	for _, service := range services {
		if err := p.Conn.PublishRequest(wire.StatsSubject(service), inbox, nil); err != nil {
			return fmt.Errorf("ask %s: %w", service, err)
		}
	}
	if err := p.Conn.FlushTimeout(time.Until(deadline)); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// await returns when there is nobody left to wait for, and at the deadline.
func (p *Poller) await(ctx context.Context, deadline time.Time) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for !p.Fleet.PollAnswered() && !p.nobody() {
		select {
		case <-p.wake:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// targets are the names of the services to ask: those of every watched component
// that is named or registered, as each era wrote them.
func (p *Poller) targets() []string {
	t := p.Fleet.Target()
	openings := p.Fleet.Openings()       // before it is asked what they are
	var watched, others []fleet.Endpoint // without names: components
	if t.Component != "" && !t.Several() {
		watched = []fleet.Endpoint{{Component: t.Component}}
	}
	for _, e := range p.Fleet.Registered() {
		if t.Covers(e) {
			p.announce(e)
			watched = append(watched, componentAt(e))
		} else {
			others = append(others, componentAt(e))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var services []string
	for _, component := range slices.Compact(watched) {
		for _, name := range p.names(component) {
			// Components may share a service: from 0.2.1 on, those whose names differ in case only.
			if !slices.Contains(services, name) {
				services = append(services, name)
			}
			s := p.services[name]
			if !slices.Contains(s.components, component) {
				s.components = append(s.components, component)
			}
			s.alone = len(s.components) == 1
			p.services[name] = s
		}
	}
	for _, component := range slices.Compact(others) {
		for _, name := range p.names(component) {
			if s, asked := p.services[name]; asked && !slices.Contains(s.components, component) {
				s.alone = false
				p.services[name] = s
			}
		}
	}
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
		if name := wire.ServiceName(era, p.Namespaces.Name(component), component.Component); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func (p *Poller) begin(inbox string, requests int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.poll = pollState{inbox: inbox, requests: requests, elsewhere: make(map[string]bool)}
}

// finish books the poll and has it concluded.
func (p *Poller) finish(took time.Duration) {
	p.mu.Lock()
	poll := p.poll
	poll.elsewhere = maps.Clone(poll.elsewhere) // late replies may still add to it
	p.mu.Unlock()
	result := fleet.PollEmpty
	if poll.matched {
		result = fleet.PollOK
	}
	p.Fleet.Tally.Polled(result, took)
	if poll.loads > 0 && p.Found != nil {
		p.Found()
	}
	p.conclude(poll)
}

// conclude says what the operator should know: of the poll, and of the workers that
// publish.
func (p *Poller) conclude(poll pollState) {
	publishing, elsewhere := p.Fleet.Publishing()
	if !poll.matched && !publishing {
		p.notFound()
		return
	}
	p.found()
	for _, name := range slices.Sorted(maps.Keys(poll.elsewhere)) {
		if !slices.Contains(elsewhere, name) {
			elsewhere = append(elsewhere, name)
		}
	}
	if poll.loads == 0 && (poll.loadless || len(elsewhere) > 0) {
		p.noLoad(elsewhere)
	}
}
