package exposition

import (
	"cmp"
	"log/slog"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// L2C publishes the result of each stats poll on NATS, as the original did: one event for each
// endpoint.
type L2C struct {
	Fleet     *fleet.Fleet
	Namespace string // of endpoints without a namespace
	Conn      *nats.Conn
	Log       *slog.Logger

	snapshot fleet.Snapshot  // reused from poll to poll
	warned   map[string]bool // by message
}

// Publish sends the events of one poll, and reports whether there were any. It must not be
// called concurrently.
func (l *L2C) Publish() (sent bool) {
	l.snapshot.Brief = true
	l.Fleet.SnapshotInto(&l.snapshot)
	rows := l.snapshot.Workers
	for _, e := range l.snapshot.Endpoints {
		var found []*fleet.WorkerState
		for i := range rows[:e.Rows] {
			w := &rows[i]
			if w.Load.OK && w.Service != "" { // the original's event has no workers that publish their loads
				found = append(found, w)
			}
		}
		rows = rows[e.Rows:]
		if e.Blocks.N > 0 && len(found) > 0 {
			sent = l.publish(e, found) || sent
		}
	}
	return sent
}

func (l *L2C) publish(e fleet.EndpointState, found []*fleet.WorkerState) (sent bool) {
	subject := wire.L2CSubject(cmp.Or(e.Namespace, l.Namespace), e.Component, e.Name)
	event, err := wire.L2C(found, e.Blocks)
	if err == nil && int64(len(event)) > l.Conn.MaxPayload() {
		// The original crashed in this case.
		l.Fleet.Stats.AddDropped(stats.OverMaxBytes, 1)
		l.warn("The l2c event is larger than the NATS server's max_payload and is not sent",
			"subject", subject, "bytes", len(event), "max_payload", l.Conn.MaxPayload())
		return false
	}
	if err == nil {
		err = l.Conn.Publish(subject, event)
	}
	if err != nil {
		l.Fleet.Stats.CountFailure(stats.PeerNATS)
		l.warn("Failed to publish the l2c event", "subject", subject, "error", err)
	}
	return err == nil
}

// warn logs each message once.
func (l *L2C) warn(message string, fields ...any) {
	if l.warned[message] {
		return
	}
	if l.warned == nil {
		l.warned = make(map[string]bool)
	}
	l.warned[message] = true
	l.Log.Warn(message, fields...)
}
