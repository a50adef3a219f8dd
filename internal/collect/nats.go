package collect

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// NATS records events over NATS until ctx ends: loads, hit rates and forward passes of every
// release, and request traces. It calls listening when the server has all subscriptions. A
// subscription that the server denies is retried.
func (e *Events) NATS(ctx context.Context, conn *nats.Conn, listening func()) error {
	all := e.subscriptions()
	defer func() {
		for _, s := range all {
			s.close()
		}
	}()
	for _, s := range all {
		if err := s.open(conn); err != nil {
			return err
		}
		if !e.subscribed {
			e.log.Log(ctx, s.level, s.description+" on subject: "+s.subject)
		}
	}
	e.subscribed = true
	e.confirm(ctx, conn)
	listening()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, s := range all {
				s.drops.count()
				s.retryDenied(ctx, conn, e.permissions)
			}
			if !e.permissions.isConfirmed() {
				e.confirm(ctx, conn)
			}
		case <-e.permissions.reconnected:
			e.confirm(ctx, conn)
		case <-ctx.Done():
			return nil
		}
	}
}

// Permissions returns what the NATS server permits.
func (e *Events) Permissions() *Permissions { return e.permissions }

// confirm flushes the subscriptions. Any denial arrives before the flush returns.
func (e *Events) confirm(ctx context.Context, conn *nats.Conn) {
	if !conn.IsConnected() {
		return
	}
	if err := connect.FlushNATS(ctx, conn, flushTimeout); err != nil {
		e.fleet.Stats.CountFailure(stats.PeerNATS)
		e.log.Debug("Subscriptions not confirmed", "error", err) // they are repeated after a reconnection
		return
	}
	e.permissions.confirm()
}

const flushTimeout = 5 * time.Second

// retrySchedule decides when to retry what NATS denies: after a second at first, and at intervals
// that grow with the age of the denial. So an operator who grants a permission sees the effect
// at once, and a server that keeps denying gets few requests.
type retrySchedule struct{ since, next time.Time }

const maxRetryInterval = 15 * time.Second

// begin records that something is denied.
func (r *retrySchedule) begin(now time.Time) {
	if r.since.IsZero() {
		r.since, r.next = now, now.Add(time.Second)
	}
}

// due reports whether to retry now.
func (r *retrySchedule) due(now time.Time) bool {
	r.begin(now)
	if now.Before(r.next) {
		return false
	}
	r.next = now.Add(min(max(time.Second, now.Sub(r.since)/8), maxRetryInterval))
	return true
}

// natsSubscription is a subscription to one subject.
type natsSubscription struct {
	subject     string
	permission  string     // its subject in Permissions
	description string     // for the log
	level       slog.Level // of the log line; the original's own line is at info
	handler     nats.MsgHandler

	stats   *stats.Stats
	sub     *nats.Subscription
	drops   dropCounter
	retries retrySchedule
}

func (s *natsSubscription) open(conn *nats.Conn) error {
	on, err := connect.Subscribe(conn, s.subject, s.handler)
	if err != nil {
		s.stats.CountFailure(stats.PeerNATS)
		return fmt.Errorf("subscribe to %s: %w", s.subject, err)
	}
	s.sub, s.drops = on, dropCounter{subscription: on, stats: s.stats}
	return nil
}

func (s *natsSubscription) close() {
	if s.sub != nil {
		s.drops.count()
		s.sub.Unsubscribe()
	}
}

// retryDenied subscribes again, from time to time, to a subject that the server denies. A server
// does not announce that its permissions have changed, and nats.go subscribes again only after a
// reconnection.
func (s *natsSubscription) retryDenied(ctx context.Context, conn *nats.Conn, p *Permissions) {
	if !p.Denied(s.permission) {
		s.retries = retrySchedule{}
		return
	}
	if !conn.IsConnected() || !s.retries.due(time.Now()) {
		return
	}
	p.BeginUse(s.permission)
	s.close()
	if err := s.open(conn); err != nil {
		return
	}
	if err := connect.FlushNATS(ctx, conn, flushTimeout); err != nil {
		s.stats.CountFailure(stats.PeerNATS)
		return
	}
	p.ConfirmUse(s.permission)
}

// subscriptions returns the subscriptions of all topics in the watched namespaces.
func (e *Events) subscriptions() (all []*natsSubscription) {
	add := func(subject, what string, level slog.Level, handler nats.MsgHandler) {
		all = append(all, &natsSubscription{subject: subject, permission: subject, description: what, level: level, handler: handler, stats: &e.fleet.Stats})
	}
	add(wire.EventSubjects(e.namespaces, wire.TopicHitRate)[0], "Subscribing to KV hit rate events", slog.LevelInfo, e.handleHitRate)
	add(wire.TraceSubject, "Subscribing to request traces", slog.LevelDebug, func(m *nats.Msg) { e.handleTrace(m.Data) })
	for topic, what := range map[string]string{wire.TopicLoad: "Subscribing to load events", wire.TopicForwardPass: "Subscribing to forward passes"} {
		for _, subject := range wire.EventSubjects(e.namespaces, topic) {
			add(subject, what, slog.LevelDebug, e.handleSubject)
		}
	}
	return all
}

// handleHitRate handles a message of the hit-rate subject, which names only the namespace.
func (e *Events) handleHitRate(m *nats.Msg) {
	if _, watched := e.namespaceOf(m.Subject); watched {
		e.handleMessage(fleet.Endpoint{}, wire.TopicHitRate, m.Data)
	}
}

// namespaceOf returns the namespace that an event's subject names, and whether it is watched.
// Subscriptions with wildcards deliver events of other namespaces, too.
func (e *Events) namespaceOf(subject string) (name string, watched bool) {
	if !e.namespaces.IsPattern() {
		return string(e.namespaces), true
	}
	name = wire.SubjectNamespace(subject)
	return name, e.namespaces.Match(name)
}

// handleSubject handles a message whose subject names the publisher's endpoint.
func (e *Events) handleSubject(m *nats.Msg) {
	at, topic, ok := e.parseSubject(m.Subject)
	if ok {
		e.handleMessage(at, topic, m.Data)
	}
}

// parseSubject parses an event's subject, which ends with a topic that the program reads. It
// counts a subject that names no endpoint as a rejected message of that topic.
func (e *Events) parseSubject(subject string) (at fleet.Endpoint, topic string, ok bool) {
	namespace, watched := e.namespaceOf(subject)
	if !watched {
		return fleet.Endpoint{}, "", false
	}
	at, topic, ok = wire.ParseEventSubject(namespace, subject)
	at.Namespace = e.namespaces.Label(namespace)
	last := subject[strings.LastIndexByte(subject, '.')+1:]
	if ok && topic == last {
		return at, topic, true
	}
	e.fleet.Stats.CountMessage(kindOfTopic[last])
	e.reject(kindOfTopic[last], stats.BadName, fmt.Errorf("the subject %q names no endpoint", subject))
	return fleet.Endpoint{}, "", false
}

// dropCounter adds what nats.go drops of a subscription to the stats.
type dropCounter struct {
	subscription *nats.Subscription
	stats        *stats.Stats
	counted      int
}

func (d *dropCounter) count() {
	dropped, err := d.subscription.Dropped()
	if err != nil || dropped == d.counted {
		return // an error means that the subscription has ended; its drops were counted then
	}
	d.stats.AddDropped(stats.QueueFull, uint64(dropped-d.counted))
	d.counted = dropped
}
