// Package collect learns what workers report: it polls their statistics and hears
// their routers' events.
package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

const (
	maxPollWait = time.Second
	minPollWait = 100 * time.Millisecond

	// grace is how long after a reconnection a poll without answers means nothing:
	// workers take their time to come back to the server too.
	reconnectGrace = 5 * time.Second

	// soon is between two polls in that time, at most.
	gracePollInterval = 500 * time.Millisecond

	// tooLate is how long after its poll an answer is no longer taken, but for long intervals.
	minReplyTimeout = 5 * time.Second
)

// Poller asks the workers of the watched components for their statistics.
type Poller struct {
	Conn        *nats.Conn // nil: nobody is asked, and the operator is only told what the registry says
	Fleet       *fleet.Fleet
	Namespaces  wire.Namespaces
	Interval    time.Duration
	Log         *slog.Logger
	Permissions *Permissions  // what Conn lets us do; may be nil
	OnLoads     func()        // called after each poll that found a load; may be nil
	PollNow     chan struct{} // of one place: says that a poll is due at once; may be nil

	wake            chan struct{}          // the running poll may have no one to wait for
	loggedEndpoints map[fleet.Endpoint]int // watched endpoints that the log has named, and the last poll that found them registered
	reconnects      uint64                 // of Conn, when last seen
	graceUntil      time.Time              // when the workers have had time to reconnect too
	missing         missingLog             // what the log says of polls that find no one
	loggedNoLoad    bool                   // the log has said which endpoints carry load

	publishedSubject string        // on which something was published since the last poll
	retries          retrySchedule // of polls that NATS denies

	inbox   string            // replies to all polls are below it
	replies *natsSubscription // nil: there is none yet

	// Of the reply at hand. Where one subscription follows another both may bring some.
	replyMu sync.Mutex
	decoder wire.StatsDecoder
	reports []fleet.PollReply

	mu         sync.Mutex         // guards what replies share with the polls
	services   map[string]service // that were asked and may still answer, by their names
	openings   uint64             // of the Fleet, when the services were last looked at
	poll       pollState
	pollStarts []time.Time // when the last polls began, whose answers are still taken
}

// pollState is what the replies to one poll add up to.
type pollState struct {
	number         int
	requests       int
	noResponders   int             // requests for which NATS says that nobody is there
	matched        bool            // somebody serves a watched endpoint
	loads          int             // loads reported
	nullLoad       bool            // a watched endpoint's data is null
	otherEndpoints map[string]bool // endpoints not watched that carry a load
}

// Listen subscribes to the replies over a connection, for the next Run, which does so itself
// if that is not done before.
func (p *Poller) Listen(conn *nats.Conn) error {
	if p.Conn != nil && p.Conn != conn || p.Conn == nil && p.Fleet.Stats.Failures(stats.PeerNATS) > 0 {
		p.reconnects = unknownReconnects // that is as good as a reconnection: the workers had to wait for the server, too
	}
	p.Conn = conn
	p.inbox = conn.NewInbox()
	p.reset()
	p.replies = &natsSubscription{subject: p.inbox + ".*", permission: inboxSubjects, handler: p.handleReply, stats: &p.Fleet.Stats}
	return p.replies.open(conn)
}

// reset forgets the polls before, whose inboxes are below another. An answer to one of them
// may be at hand.
func (p *Poller) reset() {
	p.replyMu.Lock()
	defer p.replyMu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake == nil {
		p.wake = make(chan struct{}, 1)
	}
	p.services, p.pollStarts = make(map[string]service), nil
	p.decoder.Endpoint = p.Fleet.Target().Name
}

// never is a number of reconnections that no connection has.
const unknownReconnects = math.MaxUint64

// Run polls once an interval until ctx ends, for the first time when the registry
// is known. Polls never overlap; ticks that come due meanwhile are skipped.
func (p *Poller) Run(ctx context.Context) error {
	if p.Conn == nil {
		p.loop(ctx, func() { p.logOutcome(pollState{}) })
		return nil
	}
	if p.replies == nil {
		if err := p.Listen(p.Conn); err != nil {
			return err
		}
	}
	defer func() { p.replies.close(); p.replies = nil }()
	if e, named := p.namedEndpoint(); named {
		p.logEndpoint(e, 0)
	}
	p.loop(ctx, func() {
		p.replies.retryDenied(ctx, p.Conn, p.Permissions)
		p.pollOnce(ctx)
		p.replies.drops.count()
	})
	return nil
}

// named is the endpoint that the flags name.
func (p *Poller) namedEndpoint() (e fleet.Endpoint, ok bool) {
	t := p.Fleet.Target()
	return fleet.Endpoint(t), t.Name != "" && !t.MultipleNamespaces()
}

// every calls f once an interval until ctx ends, for the first time when the registry
// is known, and besides when that is due.
func (p *Poller) loop(ctx context.Context, f func()) {
	select {
	case <-p.Fleet.Synced():
	case <-ctx.Done():
	}
	tick := time.NewTicker(p.Interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-p.PollNow: // for this one
		default:
		}
		f()
		var again <-chan time.Time
		if time.Now().Before(p.graceUntil) {
			again = time.After(gracePollInterval)
		} else if next := p.retries.next; !next.IsZero() {
			again = time.After(max(0, time.Until(next)))
		}
		select {
		case <-tick.C:
		case <-again:
		case <-p.PollNow:
		case <-ctx.Done():
		}
	}
}

// once is one poll.
func (p *Poller) pollOnce(ctx context.Context) {
	t := &p.Fleet.Stats
	start := time.Now()
	if !p.Conn.IsConnected() || !p.mayPoll(start) {
		t.RecordPoll(stats.PollError, 0)
		return
	}
	p.updateReconnects(p.Conn.Stats().Reconnects, start)
	registryUp := t.RegistryUp()
	number := p.beginPoll(start)
	services := p.targetServices()
	p.Fleet.Advance(start)
	p.Fleet.BeginPoll()
	deadline := start.Add(p.pollWait())
	err := p.sendRequests(ctx, services, fmt.Sprintf("%s.%d", p.inbox, number), deadline)
	if err != nil && ctx.Err() == nil {
		t.CountFailure(stats.PeerNATS)
	} else if err == nil && p.denied() {
		p.retries.begin(start)
		err = errDenied
	}
	if err != nil {
		p.Log.Debug("Poll not sent", "error", err)
		p.Fleet.EndPoll(false)
		t.RecordPoll(stats.PollError, 0)
		return
	}
	p.awaitReplies(ctx, deadline)

	p.Fleet.Advance(time.Now())
	heard := p.couldReceive(ctx)
	p.Fleet.EndPoll(heard && registryUp && t.RegistryUp() && ctx.Err() == nil && start.After(p.graceUntil))
	if ctx.Err() == nil {
		p.finishPoll(time.Since(start), heard)
	}
}

// heard reports whether answers could come as long as the poll took. Where none has, what the
// server had to say against it may still be on its way.
func (p *Poller) couldReceive(ctx context.Context) bool {
	p.mu.Lock()
	matched := p.poll.matched
	p.mu.Unlock()
	if !matched && connect.FlushNATS(ctx, p.Conn, p.pollWait()) != nil {
		return false
	}
	return p.Conn.IsConnected() && !p.Permissions.Denied(inboxSubjects) && p.Conn.Stats().Reconnects == p.reconnects
}

// reconnected notes how often the connection was made anew: the workers' may not be yet.
func (p *Poller) updateReconnects(times uint64, now time.Time) {
	if times != p.reconnects {
		p.reconnects, p.graceUntil = times, now.Add(reconnectGrace)
	}
}

// errDenied says that no worker can be asked, or that no answer can come.
var errDenied = errors.New("NATS denies a permission")

// ask sends one request for each service to one inbox.
func (p *Poller) sendRequests(ctx context.Context, services []string, inbox string, deadline time.Time) error {
	if len(services) > 0 {
		p.Permissions.BeginUse(statsSubject)
	} else {
		p.Permissions.Reset(statsSubject) // there is no worker to be asked: whether that would be refused cannot be known
	}
	for _, service := range services {
		if err := p.Conn.PublishRequest(wire.StatsSubject(service), inbox, nil); err != nil {
			return fmt.Errorf("ask %s: %w", service, err)
		}
	}
	if err := connect.FlushNATS(ctx, p.Conn, time.Until(deadline)); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	p.Permissions.ConfirmUse(statsSubject)
	p.Permissions.ConfirmUse(p.publishedSubject) // since the poll before
	p.publishedSubject = ""
	return nil
}

// Publish has something published on a subject, which may be refused. It is for Found.
func (p *Poller) Publish(subject string, publish func() (sent bool)) {
	p.Permissions.BeginUse(subject)
	if publish() {
		p.publishedSubject = subject
	} else {
		p.Permissions.Reset(subject)
	}
}

// denied reports whether NATS lets us neither ask nor be answered. Then it is asked less
// often, but no more seldom than subscriptions are tried again.
func (p *Poller) denied() bool {
	return p.Permissions.Denied(statsSubject) || p.Permissions.Denied(inboxSubjects)
}

// mayAsk reports whether it is time for a poll.
func (p *Poller) mayPoll(now time.Time) bool {
	if !p.denied() {
		p.retries = retrySchedule{}
		return true
	}
	return p.retries.due(now)
}

// longest is how long a poll waits for answers at most.
func (p *Poller) pollWait() time.Duration { return max(minPollWait, min(maxPollWait, p.Interval)) }

// await returns when there is nobody left to wait for, and at the deadline.
func (p *Poller) awaitReplies(ctx context.Context, deadline time.Time) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for !p.Fleet.PollAnswered() && !p.noResponders() {
		select {
		case <-p.wake:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// begin begins a poll, the next in number, and forgets those whose answers would be too late.
func (p *Poller) beginPoll(now time.Time) (number int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	number = p.poll.number + 1
	p.poll = pollState{number: number, requests: -1, otherEndpoints: make(map[string]bool)}
	p.pollStarts = append(p.pollStarts, now)
	tooOld := 0
	for tooOld < len(p.pollStarts) && now.Sub(p.pollStarts[tooOld]) > p.replyTimeout() {
		tooOld++
	}
	p.pollStarts = slices.Delete(p.pollStarts, 0, tooOld)
	return number
}

// patience is how long after its poll an answer is taken: two intervals, so that a worker
// that is slow is heard in time for the next but one.
func (p *Poller) replyTimeout() time.Duration { return max(minReplyTimeout, 2*p.Interval) }

// isLate reports whether an answer to a poll comes too late. What it says was true then, and
// may be older than what is known by now.
func (p *Poller) isLate(poll int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	ago := p.poll.number - poll
	if ago == 0 {
		return false
	}
	return ago < 0 || ago >= len(p.pollStarts) || time.Since(p.pollStarts[len(p.pollStarts)-1-ago]) > p.replyTimeout()
}

// finish books the poll and has it concluded. One that found no one, and could not, is no empty
// one.
func (p *Poller) finishPoll(took time.Duration, heard bool) {
	p.mu.Lock()
	poll := p.poll
	poll.otherEndpoints = maps.Clone(poll.otherEndpoints) // late replies may still add to it
	p.mu.Unlock()
	result := stats.PollEmpty
	switch {
	case poll.matched:
		result = stats.PollOK
	case !heard:
		p.Fleet.Stats.RecordPoll(stats.PollError, 0)
		return
	}
	p.Fleet.Stats.RecordPoll(result, took)
	if poll.loads > 0 && p.OnLoads != nil {
		p.OnLoads()
	}
	p.logOutcome(poll)
}

// conclude says what the operator should know: of the poll, and of the workers that
// publish.
func (p *Poller) logOutcome(poll pollState) {
	publishing, elsewhere := p.Fleet.FindPublishers()
	if now := time.Now(); !poll.matched && !publishing {
		p.logNotFound(now)
		return
	} else if p.missing.recovered(now) {
		p.Log.Info("Found endpoints " + p.targetDescription())
	}
	for _, name := range slices.Sorted(maps.Keys(poll.otherEndpoints)) {
		if !slices.Contains(elsewhere, name) {
			elsewhere = append(elsewhere, name)
		}
	}
	if poll.loads == 0 && (poll.nullLoad || len(elsewhere) > 0) {
		p.logNoLoad(elsewhere)
	}
}
