// Package collect receives what a Dynamo fleet reports: replies to stats polls, events over NATS
// and ZeroMQ, request traces, and the workers' own metrics.
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

	// reconnectGrace is how long after a reconnection an empty poll means nothing, because the
	// workers have to reconnect, too.
	reconnectGrace = 5 * time.Second

	// gracePollInterval is the longest interval between polls in that time.
	gracePollInterval = 500 * time.Millisecond

	// minReplyTimeout is how long after its poll a reply is accepted at least: two intervals if
	// those are longer.
	minReplyTimeout = 5 * time.Second
)

// Poller polls the workers of the watched components for their statistics.
type Poller struct {
	Conn        *nats.Conn // nil: no worker is polled, and only the operator log is written
	Fleet       *fleet.Fleet
	Namespaces  wire.Namespaces
	Interval    time.Duration
	Log         *slog.Logger
	Permissions *Permissions  // of Conn; may be nil
	OnLoads     func()        // called after each poll that found a load; may be nil
	PollNow     chan struct{} // has room for one; a value starts a poll at once; may be nil

	wake            chan struct{}          // a value makes the running poll check whether replies are still expected
	loggedEndpoints map[fleet.Endpoint]int // watched endpoints that the log has named, and the last poll that found them registered
	reconnects      uint64                 // of Conn, at the last poll
	graceUntil      time.Time              // when the grace period after the last reconnection ends
	missing         missingLog             // when to log that polls find no workers
	loggedNoLoad    bool                   // it was logged which endpoints carry loads

	publishedSubject string        // published on by Publish since the last poll
	retries          retrySchedule // of polls, while NATS denies a permission

	inbox   string            // the replies to poll n arrive at inbox.n
	replies *natsSubscription // nil: not subscribed

	// These belong to the reply that is being handled. While one subscription replaces another,
	// both may deliver replies.
	replyMu sync.Mutex
	decoder wire.StatsDecoder
	reports []fleet.PollReply

	mu             sync.Mutex         // guards what polls and replies share
	services       map[string]service // by name; those that were polled and may still answer
	endpointsAdded uint64             // the Fleet's, when services was last updated
	poll           pollState
	pollStarts     []time.Time // of the last polls whose replies are still accepted
}

// pollState adds up the replies to one poll.
type pollState struct {
	number         int
	requests       int
	noResponders   int             // requests for which NATS reports no responders
	matched        bool            // a worker serves a watched endpoint
	loads          int             // how many loads were reported
	nullLoad       bool            // a watched endpoint reports null as its data
	otherEndpoints map[string]bool // endpoints that are not watched and carry a load
}

// Listen subscribes to the replies on a connection. Run does it if Listen was not called.
func (p *Poller) Listen(conn *nats.Conn) error {
	if p.Conn != nil && p.Conn != conn || p.Conn == nil && p.Fleet.Stats.Failures(stats.PeerNATS) > 0 {
		p.reconnects = unknownReconnects // start a grace period: the workers had to wait for the server, too
	}
	p.Conn = conn
	p.inbox = conn.NewInbox()
	p.reset()
	p.replies = &natsSubscription{subject: p.inbox + ".*", permission: inboxSubjects, handler: p.handleReply, stats: &p.Fleet.Stats}
	return p.replies.open(conn)
}

// reset forgets the polls on the previous inbox. A reply to one of them may be in progress.
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

// unknownReconnects differs from the number of reconnections of any connection.
const unknownReconnects = math.MaxUint64

// Run polls once per interval until ctx ends, for the first time when the registry is synced.
// Polls never overlap: ticks during a poll are skipped.
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

// namedEndpoint returns the endpoint that the flags name.
func (p *Poller) namedEndpoint() (e fleet.Endpoint, ok bool) {
	t := p.Fleet.Target()
	return fleet.Endpoint(t), t.Name != "" && !t.MultipleNamespaces()
}

// loop calls f once per interval until ctx ends, for the first time when the registry is synced,
// and whenever PollNow receives a value.
func (p *Poller) loop(ctx context.Context, f func()) {
	select {
	case <-p.Fleet.Synced():
	case <-ctx.Done():
	}
	tick := time.NewTicker(p.Interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-p.PollNow: // this poll is the one that was requested
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

// pollOnce runs one poll.
func (p *Poller) pollOnce(ctx context.Context) {
	counts := &p.Fleet.Stats
	start := time.Now()
	if !p.Conn.IsConnected() || !p.mayPoll(start) {
		counts.RecordPoll(stats.PollError, 0)
		return
	}
	p.updateReconnects(p.Conn.Stats().Reconnects, start)
	registryUp := counts.RegistryUp()
	number := p.beginPoll(start)
	services := p.targetServices()
	p.Fleet.Advance(start)
	p.Fleet.BeginPoll()
	deadline := start.Add(p.pollWait())
	err := p.sendRequests(ctx, services, fmt.Sprintf("%s.%d", p.inbox, number), deadline)
	if err != nil && ctx.Err() == nil {
		counts.CountFailure(stats.PeerNATS)
	} else if err == nil && p.denied() {
		p.retries.begin(start)
		err = errDenied
	}
	if err != nil {
		p.Log.Debug("Poll not sent", "error", err)
		p.Fleet.EndPoll(false)
		counts.RecordPoll(stats.PollError, 0)
		return
	}
	p.awaitReplies(ctx, deadline)

	p.Fleet.Advance(time.Now())
	valid := p.couldReceive(ctx)
	p.Fleet.EndPoll(valid && registryUp && counts.RegistryUp() && ctx.Err() == nil && start.After(p.graceUntil))
	if ctx.Err() == nil {
		p.finishPoll(time.Since(start), valid)
	}
}

// couldReceive reports whether replies could arrive for the whole poll. If none has matched, a
// denial by the server may still be on its way, so it flushes first.
func (p *Poller) couldReceive(ctx context.Context) bool {
	p.mu.Lock()
	matched := p.poll.matched
	p.mu.Unlock()
	if !matched && connect.FlushNATS(ctx, p.Conn, p.pollWait()) != nil {
		return false
	}
	return p.Conn.IsConnected() && !p.Permissions.Denied(inboxSubjects) && p.Conn.Stats().Reconnects == p.reconnects
}

// updateReconnects starts a grace period if there was a reconnection since the last poll.
func (p *Poller) updateReconnects(times uint64, now time.Time) {
	if times != p.reconnects {
		p.reconnects, p.graceUntil = times, now.Add(reconnectGrace)
	}
}

// errDenied means that no worker can be polled, or that no reply can arrive.
var errDenied = errors.New("NATS denies a permission")

// sendRequests sends a request for each service, with one inbox for the replies.
func (p *Poller) sendRequests(ctx context.Context, services []string, inbox string, deadline time.Time) error {
	if len(services) > 0 {
		p.Permissions.BeginUse(statsSubject)
	} else {
		p.Permissions.Reset(statsSubject) // without a request, nothing is known about the permission
	}
	for _, service := range services {
		if err := p.Conn.PublishRequest(wire.StatsSubject(service), inbox, nil); err != nil {
			return fmt.Errorf("request stats of %s: %w", service, err)
		}
	}
	if err := connect.FlushNATS(ctx, p.Conn, time.Until(deadline)); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	p.Permissions.ConfirmUse(statsSubject)
	p.Permissions.ConfirmUse(p.publishedSubject) // it was used before this flush
	p.publishedSubject = ""
	return nil
}

// Publish calls publish, which publishes on a subject and reports whether it has sent anything,
// and records whether NATS permits that. OnLoads uses it.
func (p *Poller) Publish(subject string, publish func() (sent bool)) {
	p.Permissions.BeginUse(subject)
	if publish() {
		p.publishedSubject = subject
	} else {
		p.Permissions.Reset(subject)
	}
}

// denied reports whether NATS denies the requests or the replies. Then polls follow the retry
// schedule of denied subscriptions.
func (p *Poller) denied() bool {
	return p.Permissions.Denied(statsSubject) || p.Permissions.Denied(inboxSubjects)
}

// mayPoll reports whether to poll now.
func (p *Poller) mayPoll(now time.Time) bool {
	if !p.denied() {
		p.retries = retrySchedule{}
		return true
	}
	return p.retries.due(now)
}

// pollWait returns how long a poll waits for replies.
func (p *Poller) pollWait() time.Duration { return max(minPollWait, min(maxPollWait, p.Interval)) }

// awaitReplies returns when all expected replies have arrived, when NATS reports no responders for
// all requests, or at the deadline.
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

// beginPoll begins the next poll, and forgets polls whose replies would be too late.
func (p *Poller) beginPoll(now time.Time) (number int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	number = p.poll.number + 1
	p.poll = pollState{number: number, requests: -1, otherEndpoints: make(map[string]bool)}
	p.pollStarts = append(p.pollStarts, now)
	expired := 0
	for expired < len(p.pollStarts) && now.Sub(p.pollStarts[expired]) > p.replyTimeout() {
		expired++
	}
	p.pollStarts = slices.Delete(p.pollStarts, 0, expired)
	return number
}

// replyTimeout returns how long after its poll a reply is accepted. Two intervals let a slow
// worker answer before the next poll but one.
func (p *Poller) replyTimeout() time.Duration { return max(minReplyTimeout, 2*p.Interval) }

// isLate reports whether a reply to a poll is too late. Its values may be older than those that
// the Fleet has.
func (p *Poller) isLate(poll int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	ago := p.poll.number - poll
	if ago == 0 {
		return false
	}
	return ago < 0 || ago >= len(p.pollStarts) || time.Since(p.pollStarts[len(p.pollStarts)-1-ago]) > p.replyTimeout()
}

// finishPoll counts the poll and logs its outcome. A poll that found no workers is empty only if
// replies could arrive.
func (p *Poller) finishPoll(took time.Duration, valid bool) {
	p.mu.Lock()
	poll := p.poll
	poll.otherEndpoints = maps.Clone(poll.otherEndpoints) // late replies may still add to it
	p.mu.Unlock()
	result := stats.PollEmpty
	switch {
	case poll.matched:
		result = stats.PollOK
	case !valid:
		p.Fleet.Stats.RecordPoll(stats.PollError, 0)
		return
	}
	p.Fleet.Stats.RecordPoll(result, took)
	if poll.loads > 0 && p.OnLoads != nil {
		p.OnLoads()
	}
	p.logOutcome(poll)
}

// logOutcome logs what the operator should know about the poll and about workers that publish.
func (p *Poller) logOutcome(poll pollState) {
	publishing, others := p.Fleet.FindPublishers()
	if now := time.Now(); !poll.matched && !publishing {
		p.logNotFound(now)
		return
	} else if p.missing.recovered(now) {
		p.Log.Info("Found endpoints " + p.targetDescription())
	}
	for _, name := range slices.Sorted(maps.Keys(poll.otherEndpoints)) {
		if !slices.Contains(others, name) {
			others = append(others, name)
		}
	}
	if poll.loads == 0 && (poll.nullLoad || len(others) > 0) {
		p.logNoLoad(others)
	}
}
