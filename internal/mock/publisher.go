package mock

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go"
)

// publisher sends the events of one topic of a worker. Only one goroutine uses it.
type publisher struct {
	topic       string
	nc          *nats.Conn
	subject     string     // over NATS
	socket      *pubSocket // over ZMQ, else nil
	dropEvent   func() bool
	hasEnvelope bool
	id          uint64
	sequence    uint64

	channelEntry *entry // nil if the channel is not registered
}

// send publishes an event. An event that cannot be published now is lost: it would be
// outdated later.
func (p *publisher) send(event []byte) error {
	if !p.hasEnvelope {
		return publish(p.nc, p.subject, event)
	}
	sequence := p.sequence
	p.sequence++
	if p.dropEvent() {
		return nil
	}
	envelope := appendEnvelope(nil, p.id, sequence, time.Now(), p.topic, event)
	if p.socket == nil {
		return publish(p.nc, p.subject, envelope)
	}
	p.socket.publish(zmqFrames(p.topic, p.id, sequence, envelope))
	return nil
}

// publish publishes a message on NATS. It fails only if the owner of the connection closed it.
func publish(nc *nats.Conn, subject string, b []byte) error {
	if err := nc.Publish(subject, b); err != nil && nc.IsClosed() {
		return fmt.Errorf("publish on %s: %w", subject, err)
	}
	return nil
}

// zmqFrames returns the frames of an event over ZMQ. The last one is a version, a length
// and the envelope.
func zmqFrames(topic string, publisher, sequence uint64, envelope []byte) [][]byte {
	body := binary.BigEndian.AppendUint32([]byte{1}, uint32(len(envelope)))
	return [][]byte{
		[]byte(topic),
		binary.BigEndian.AppendUint64(nil, publisher),
		binary.BigEndian.AppendUint64(nil, sequence),
		append(body, envelope...),
	}
}

// publishers are the publishers of a worker. Those of events that it does not publish are
// nil.
type publishers struct {
	load, pass, hit *publisher
}

func (ps *publishers) all() []*publisher {
	var all []*publisher
	for _, p := range []*publisher{ps.load, ps.pass, ps.hit} {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

// openPublishers makes the publishers of the worker, which has this id.
func (w *worker) openPublishers(id uint64) (ps *publishers, err error) {
	ps = &publishers{}
	format := w.release.events
	if format == nil {
		return ps, nil
	}
	topics := []struct {
		name string
		to   **publisher
		want bool
	}{
		{wire.TopicLoad, &ps.load, true},
		{wire.TopicForwardPass, &ps.pass, format.hasForwardPasses},
		{wire.TopicHitRate, &ps.hit, w.EventInterval > 0 && !format.hitsAreTraces},
	}
	for _, t := range topics {
		if !t.want {
			continue
		}
		if *t.to, err = w.newPublisher(t.name, id); err != nil {
			ps.close()
			return nil, err
		}
	}
	if format.hitsAreTraces && w.EventInterval > 0 && w.nc != nil {
		ps.hit = &publisher{nc: w.nc, subject: wire.TraceSubject}
	}
	return ps, nil
}

// newPublisher makes the publisher of a topic, with its channel if the release has channels.
func (w *worker) newPublisher(topic string, worker uint64) (*publisher, error) {
	format := w.release.events
	endpoint := w.instance(worker).Endpoint
	scope := format.scope(w.Namespace, endpoint)
	p := &publisher{topic: topic, nc: w.nc, subject: scope + "." + topic}
	if format.channel == nil {
		return p, nil
	}
	p.hasEnvelope, p.id = true, format.publisherID(worker)
	p.dropEvent = func() bool { return w.DropEvent != nil && w.DropEvent(w.n, topic) }
	c := channel{endpoint: endpoint, topic: topic, publisher: p.id, transport: natsTransport(scope)}
	if w.eventPlane() == ZMQ {
		socket, err := newPubSocket(w.Host)
		if err != nil {
			return nil, err
		}
		p.socket, c.transport = socket, zmqTransport(socket.address())
	}
	key, value := format.channel(w.Namespace, c)
	p.channelEntry = &entry{key, value}
	return p, nil
}

// serve accepts subscribers until ctx ends.
func (ps *publishers) serve(ctx context.Context) {
	var sockets sync.WaitGroup
	defer sockets.Wait()
	for _, p := range ps.all() {
		if p.socket != nil {
			sockets.Go(func() { p.socket.serve(ctx) })
		}
	}
}

func (ps *publishers) close() {
	for _, p := range ps.all() {
		if p.socket != nil {
			p.socket.close()
		}
	}
}
