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

// publisher sends the events of one topic of a worker. It belongs to one goroutine.
type publisher struct {
	topic       string
	nc          *nats.Conn
	subject     string     // on NATS
	socket      *pubSocket // on ZMQ, else nil
	dropEvent   func() bool
	hasEnvelope bool // events have an envelope
	id          uint64
	sequence    uint64

	channelEntry *entry // nil: the channel is not
}

// send publishes an event. What cannot be published now is lost: nobody wants to
// hear of it later.
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

// publish fails only on a connection that was closed by its owner.
func publish(nc *nats.Conn, subject string, b []byte) error {
	if err := nc.Publish(subject, b); err != nil && nc.IsClosed() {
		return fmt.Errorf("publish on %s: %w", subject, err)
	}
	return nil
}

// frames are those of an event on ZMQ: the last one has a version and its length.
func zmqFrames(topic string, publisher, sequence uint64, envelope []byte) [][]byte {
	body := binary.BigEndian.AppendUint32([]byte{1}, uint32(len(envelope)))
	return [][]byte{
		[]byte(topic),
		binary.BigEndian.AppendUint64(nil, publisher),
		binary.BigEndian.AppendUint64(nil, sequence),
		append(body, envelope...),
	}
}

// outlets are the publishers of a worker; nil where it does not speak of such things.
type publishers struct {
	load, pass, hit *publisher
}

func (o *publishers) all() []*publisher {
	var all []*publisher
	for _, p := range []*publisher{o.load, o.pass, o.hit} {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

// open makes the outlets that a worker of the release has under this id.
func (w *worker) openPublishers(id uint64) (o *publishers, err error) {
	o = &publishers{}
	v := w.release.events
	if v == nil {
		return o, nil
	}
	topics := []struct {
		name string
		to   **publisher
		want bool
	}{
		{wire.TopicLoad, &o.load, true},
		{wire.TopicForwardPass, &o.pass, v.hasForwardPasses},
		{wire.TopicHitRate, &o.hit, w.EventInterval > 0 && !v.hitsAreTraces},
	}
	for _, t := range topics {
		if !t.want {
			continue
		}
		if *t.to, err = w.newPublisher(t.name, id); err != nil {
			o.close()
			return nil, err
		}
	}
	if v.hitsAreTraces && w.EventInterval > 0 && w.nc != nil {
		o.hit = &publisher{nc: w.nc, subject: wire.TraceSubject}
	}
	return o, nil
}

// publisher makes one for a topic, and its channel if it has one.
func (w *worker) newPublisher(topic string, worker uint64) (*publisher, error) {
	v := w.release.events
	endpoint := w.instance(worker).Endpoint
	scope := v.scope(w.Namespace, endpoint)
	p := &publisher{topic: topic, nc: w.nc, subject: scope + "." + topic}
	if v.channel == nil {
		return p, nil
	}
	p.hasEnvelope, p.id = true, v.publisherID(worker)
	p.dropEvent = func() bool { return w.DropEvent != nil && w.DropEvent(w.n, topic) }
	c := channel{endpoint: endpoint, topic: topic, publisher: p.id, transport: natsTransport(scope)}
	if w.eventPlane() == ZMQ {
		socket, err := newPubSocket(w.Host)
		if err != nil {
			return nil, err
		}
		p.socket, c.transport = socket, zmqTransport(socket.address())
	}
	key, value := v.channel(w.Namespace, c)
	p.channelEntry = &entry{key, value}
	return p, nil
}

// serve accepts subscribers until ctx ends.
func (o *publishers) serve(ctx context.Context) {
	var sockets sync.WaitGroup
	defer sockets.Wait()
	for _, p := range o.all() {
		if p.socket != nil {
			sockets.Go(func() { p.socket.serve(ctx) })
		}
	}
}

func (o *publishers) close() {
	for _, p := range o.all() {
		if p.socket != nil {
			p.socket.close()
		}
	}
}
