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

// NATS books the events of the namespace that come over NATS until ctx ends: loads,
// hit rates and forward passes of every release, and request traces. It calls listening
// when the server has all subscriptions. One that it refuses is tried again from time to time.
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

// Access is what NATS lets the program do.
func (e *Events) Permissions() *Permissions { return e.permissions }

// confirm has the server answer behind the subscriptions: it tells before which it refuses.
func (e *Events) confirm(ctx context.Context, conn *nats.Conn) {
	if !conn.IsConnected() {
		return
	}
	if err := connect.FlushNATS(ctx, conn, flushTimeout); err != nil {
		e.fleet.Stats.CountFailure(stats.PeerNATS)
		e.log.Debug("Subscriptions not confirmed", "error", err) // reconnecting repeats them
		return
	}
	e.permissions.confirm()
}

const flushTimeout = 5 * time.Second

// retries are when something that was refused is tried again: after a second, and the more
// seldom the longer it has been refused, so that who grants what is missing sees at once that
// it helps, and a server that goes on refusing is left alone.
type retrySchedule struct{ since, next time.Time }

const maxRetryInterval = 15 * time.Second

// begin notes that something is refused.
func (r *retrySchedule) begin(now time.Time) {
	if r.since.IsZero() {
		r.since, r.next = now, now.Add(time.Second)
	}
}

// due reports whether it is time to try again.
func (r *retrySchedule) due(now time.Time) bool {
	r.begin(now)
	if now.Before(r.next) {
		return false
	}
	r.next = now.Add(min(max(time.Second, now.Sub(r.since)/8), maxRetryInterval))
	return true
}

// subscription is one subject and what is done with its messages.
type natsSubscription struct {
	subject     string
	permission  string     // that its Access knows it by
	description string     // that the log says of it
	level       slog.Level // of that line: the original's own is for everybody
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

// again subscribes anew, from time to time, to what the server has refused: one that
// changes what it permits does not say so, and nats.go subscribes again only when it
// connects again.
func (s *natsSubscription) retryDenied(ctx context.Context, conn *nats.Conn, a *Permissions) {
	if !a.Denied(s.permission) {
		s.retries = retrySchedule{}
		return
	}
	if !conn.IsConnected() || !s.retries.due(time.Now()) {
		return
	}
	a.BeginUse(s.permission)
	s.close()
	if err := s.open(conn); err != nil {
		return
	}
	if err := connect.FlushNATS(ctx, conn, flushTimeout); err != nil {
		s.stats.CountFailure(stats.PeerNATS)
		return
	}
	a.ConfirmUse(s.permission)
}

func (e *Events) subscriptions() (all []*natsSubscription) {
	add := func(subject, what string, level slog.Level, book nats.MsgHandler) {
		all = append(all, &natsSubscription{subject: subject, permission: subject, description: what, level: level, handler: book, stats: &e.fleet.Stats})
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

// hitRate books an event of the hit-rate subject, which names the namespace alone.
func (e *Events) handleHitRate(m *nats.Msg) {
	if _, ours := e.namespaceOf(m.Subject); ours {
		e.handleMessage(fleet.Endpoint{}, wire.TopicHitRate, m.Data)
	}
}

// namespaceOf is the namespace that an event's subject names, and whether it is
// watched. Subscriptions of several namespaces bring the others' events, too.
func (e *Events) namespaceOf(subject string) (name string, ours bool) {
	if !e.namespaces.IsPattern() {
		return string(e.namespaces), true
	}
	name = wire.SubjectNamespace(subject)
	return name, e.namespaces.Match(name)
}

// bySubject books an event whose subject says where it came from.
func (e *Events) handleSubject(m *nats.Msg) {
	at, topic, ok := e.parseSubject(m.Subject)
	if ok {
		e.handleMessage(at, topic, m.Data)
	}
}

// subject reads an event's subject, whose last word is a topic that is read. One that
// names no endpoint is counted as what its topic says.
func (e *Events) parseSubject(subject string) (at fleet.Endpoint, topic string, ok bool) {
	namespace, ours := e.namespaceOf(subject)
	if !ours {
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

// dropCounter carries what the NATS client drops of a subscription over to the tally.
type dropCounter struct {
	subscription *nats.Subscription
	stats        *stats.Stats
	counted      int
}

func (d *dropCounter) count() {
	dropped, err := d.subscription.Dropped()
	if err != nil || dropped == d.counted {
		return // an error says that the subscription has ended, and was counted before
	}
	d.stats.AddDropped(stats.QueueFull, uint64(dropped-d.counted))
	d.counted = dropped
}
