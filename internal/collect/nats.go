package collect

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// NATS books the events of the namespace that come over NATS until ctx ends: loads,
// hit rates and forward passes of every release, and request traces. It calls listening
// when the server has all subscriptions.
func (e *Events) NATS(ctx context.Context, conn *nats.Conn, listening func()) error {
	var drops []*dropCounter
	defer func() {
		for _, d := range drops {
			d.count()
			d.subscription.Unsubscribe()
		}
	}()
	for _, s := range e.subscriptions() {
		events, err := connect.Subscribe(conn, s.subject, s.book)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", s.subject, err)
		}
		drops = append(drops, &dropCounter{subscription: events, tally: &e.fleet.Tally})
		e.log.Log(ctx, s.level, s.what+" on subject: "+s.subject)
	}
	if err := conn.FlushTimeout(5 * time.Second); err != nil {
		e.log.Debug("Subscriptions not confirmed", "error", err) // reconnecting repeats them
	}
	listening()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, d := range drops {
				d.count()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// subscription is one subject and what is done with its messages.
type subscription struct {
	subject string
	what    string     // that the log says of it
	level   slog.Level // of that line: the original's own is for everybody
	book    nats.MsgHandler
}

func (e *Events) subscriptions() []subscription {
	all := []subscription{{
		subject: wire.EventSubjects(e.namespaces, wire.TopicHitRate)[0], what: "Subscribing to KV hit rate events", level: slog.LevelInfo,
		book: e.hitRate,
	}, {
		subject: wire.TraceSubject, what: "Subscribing to request traces", level: slog.LevelDebug,
		book: func(m *nats.Msg) { e.trace(m.Data) },
	}}
	for topic, what := range map[string]string{wire.TopicLoad: "Subscribing to load events", wire.TopicForwardPass: "Subscribing to forward passes"} {
		for _, subject := range wire.EventSubjects(e.namespaces, topic) {
			all = append(all, subscription{subject: subject, what: what, level: slog.LevelDebug, book: e.bySubject})
		}
	}
	return all
}

// hitRate books an event of the hit-rate subject, which names the namespace alone.
func (e *Events) hitRate(m *nats.Msg) {
	if _, ours := e.namespaceOf(m.Subject); ours {
		e.message(fleet.Endpoint{}, wire.TopicHitRate, m.Data)
	}
}

// namespaceOf is the namespace that an event's subject names, and whether it is
// watched. Subscriptions of several namespaces bring the others' events, too.
func (e *Events) namespaceOf(subject string) (name string, ours bool) {
	if !e.namespaces.Several() {
		return string(e.namespaces), true
	}
	name = wire.SubjectNamespace(subject)
	return name, e.namespaces.Match(name)
}

// bySubject books an event whose subject says where it came from.
func (e *Events) bySubject(m *nats.Msg) {
	at, topic, ok := e.subject(m.Subject)
	if ok {
		e.message(at, topic, m.Data)
	}
}

// subject reads an event's subject, whose last word is a topic that is read. One that
// names no endpoint is counted as what its topic says.
func (e *Events) subject(subject string) (at fleet.Endpoint, topic string, ok bool) {
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
	e.fleet.Tally.Receive(kinds[last])
	e.reject(kinds[last], fleet.BadName, fmt.Errorf("the subject %q names no endpoint", subject))
	return fleet.Endpoint{}, "", false
}

// dropCounter carries what the NATS client drops of a subscription over to the tally.
type dropCounter struct {
	subscription *nats.Subscription
	tally        *fleet.Tally
	counted      int
}

func (d *dropCounter) count() {
	dropped, err := d.subscription.Dropped()
	if err != nil || dropped == d.counted {
		return // an error says that the subscription has ended, and was counted before
	}
	d.tally.Drop(fleet.QueueFull, uint64(dropped-d.counted))
	d.counted = dropped
}
