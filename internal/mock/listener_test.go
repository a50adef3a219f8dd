package mock

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// listener receives events over NATS and ZMQ, and decodes them.
type listener struct {
	t         *testing.T
	mu        sync.Mutex
	events    []string // all events but passes, without random values
	passes    []wire.ForwardPass
	sequences map[string][]uint64 // by topic
	publisher map[string]uint64   // by topic
}

func (e *listener) record(format string, args ...any) {
	e.events = append(e.events, fmt.Sprintf(format, args...))
}

func formatOpt(o fleet.Opt[uint64]) string {
	if !o.OK {
		return "-"
	}
	return fmt.Sprint(o.V)
}

// onNATSMessage records a message from NATS.
func (e *listener) onNATSMessage(m *nats.Msg) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, topic, ok := wire.ParseEventSubject("dynamo", m.Subject)
	switch {
	case m.Subject == wire.TraceSubject:
		tr, err := wire.ParseTrace(m.Data)
		if err != nil {
			e.t.Error(err)
		}
		e.record("trace of %x: %s/%s", tr.Prefill.V.Worker, formatOpt(tr.OverlapBlocks), formatOpt(tr.ISLBlocks))
	case !ok:
		e.t.Errorf("unexpected subject %s", m.Subject)
	case wire.IsEnvelope(m.Data):
		envelope, err := wire.ParseEnvelope(m.Data)
		if err != nil || string(envelope.Topic) != topic {
			e.t.Errorf("on %s: got %+v, %v", m.Subject, envelope, err)
		}
		e.onEnvelope(m.Subject, envelope)
	case topic == wire.TopicLoad:
		l, err := wire.ParseLoadEvent(m.Data)
		if err != nil {
			e.t.Error(err)
		}
		e.record("%s: load of %x: %s/%s slots, %s waiting, %s/%s blocks, %v used, %v hit", m.Subject, l.Worker, formatOpt(l.Load.ActiveSlots), formatOpt(l.Load.TotalSlots),
			formatOpt(l.Load.Waiting), formatOpt(l.Load.KVActive), formatOpt(l.Load.KVTotal), l.Load.CacheUsage.V, l.Load.HitRate.V)
	default:
		h, err := wire.ParseHitRate(m.Data)
		if err != nil || !strings.Contains(string(m.Data), `"dp_rank":0,`) {
			e.t.Errorf("%s: %v", m.Data, err)
		}
		e.record("%s: hit of %x: %d/%d", m.Subject, h.Worker, h.OverlapBlocks, h.ISLBlocks)
	}
}

// onZMQFrames records a message from ZMQ.
func (e *listener) onZMQFrames(frames [][]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	subject, envelope, err := wire.ParseFrames(frames)
	if err != nil || string(subject) != string(envelope.Topic) {
		e.t.Errorf("got %q, %+v, %v", subject, envelope, err)
	}
	e.onEnvelope("zmq", envelope)
}

func (e *listener) onEnvelope(from string, envelope wire.Envelope) {
	topic := string(envelope.Topic)
	if other, known := e.publisher[topic]; known && other != envelope.Publisher {
		e.t.Errorf("%s: publishers %x and %x, want one", topic, other, envelope.Publisher)
	}
	e.publisher[topic] = envelope.Publisher
	e.sequences[topic] = append(e.sequences[topic], envelope.Sequence)
	if age := time.Since(time.UnixMilli(int64(envelope.PublishedAt))); age < -time.Second || age > testutil.WaitTimeout {
		e.t.Errorf("published %v ago", age)
	}
	switch topic {
	case wire.TopicLoad:
		l, err := wire.ParseActiveLoad(envelope.Payload)
		if err != nil || l.IsEstimate() || l.DecodeBlocks.OK == l.UsedBlocks.OK {
			e.t.Errorf("got %+v, %v", l, err)
		}
		e.record("%s: load of %x: %s decode, %s used", from, l.Worker, formatOpt(l.DecodeBlocks), formatOpt(l.UsedBlocks))
	case wire.TopicHitRate:
		h, err := wire.ParseHitRateMsgpack(envelope.Payload)
		if err != nil {
			e.t.Error(err)
		}
		e.record("%s: hit of %x: %d/%d", from, h.Worker, h.OverlapBlocks, h.ISLBlocks)
	case wire.TopicForwardPass:
		p, err := wire.ParseForwardPass(envelope.Payload)
		if err != nil || !p.HasWorkerID {
			e.t.Errorf("got %+v, %v", p, err)
		}
		e.passes = append(e.passes, p)
	default:
		e.t.Errorf("unexpected topic %q", topic)
	}
}

// waitForEvents waits until exactly these events were recorded.
func (e *listener) waitForEvents(want ...string) {
	e.t.Helper()
	testutil.Until(e.t, func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if strings.Join(e.events, "\n") != strings.Join(want, "\n") {
			return fmt.Errorf("got\n%s\nwant\n%s", strings.Join(e.events, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
}

func newListener(t *testing.T) *listener {
	return &listener{t: t, sequences: map[string][]uint64{}, publisher: map[string]uint64{}}
}

// subscribeNATS subscribes to everything that workers publish.
func (e *listener) subscribeNATS(nc *nats.Conn) {
	for _, subject := range []string{"namespace.>", wire.TraceSubject} {
		if _, err := nc.Subscribe(subject, e.onNATSMessage); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		e.t.Fatal(err)
	}
}

// waitForEventsInAnyOrder is like waitForEvents, but accepts the events in any order.
func (e *listener) waitForEventsInAnyOrder(want ...string) {
	e.t.Helper()
	testutil.Until(e.t, func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.events) != len(want) {
			return fmt.Errorf("got\n%s\nwant\n%s", strings.Join(e.events, "\n"), strings.Join(want, "\n"))
		}
		for _, one := range want {
			if !strings.Contains(strings.Join(e.events, "\n")+"\n", one+"\n") {
				return fmt.Errorf("got\n%s\nwithout %s", strings.Join(e.events, "\n"), one)
			}
		}
		return nil
	})
}

// subscribeZMQ subscribes to one topic of a worker.
func (e *listener) subscribeZMQ(address, topic string) {
	e.t.Helper()
	subscribeZMQ(e.t, address, e.onZMQFrames, topic)
}
