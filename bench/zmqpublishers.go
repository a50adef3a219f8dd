package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"dynamo-metrics/e2e/garbage"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"github.com/tinylib/msgp/msgp"
)

// zmqPublishers are the ZeroMQ publishers of a fuzzer. The valid ones send correct ZMTP, so
// that each of their messages can be counted. The malformed ones send arbitrary bytes, and
// no topics that the program subscribes to: otherwise it would be unclear how many messages
// it has to count.
type zmqPublishers struct {
	valid     []*validPublisher
	malformed []*zmqPublisher
	greetings [][]byte // seeds of what the malformed publishers send

	lastID uint64 // the publisher id that was assigned last
}

// validPublisher is a publisher of correct ZMTP, on one topic.
type validPublisher struct {
	*zmqPublisher
	kind     stats.Kind
	topic    string
	subject  string // the first frame
	broker   bool
	id       uint64
	sequence uint64

	payloads, envelopes [][]byte // seeds
}

const (
	malformedPublishers = 4
	firstPublisherID    = 0x5eed0000

	publishedAt = 1_764_000_000_000 // Unix milliseconds; constant, so that a seed always gives the same messages

	// closedAddress is an address on which nothing listens.
	closedAddress = "tcp://127.0.0.1:1"
)

func newZMQPublishers() (*zmqPublishers, error) {
	s := &zmqPublishers{lastID: firstPublisherID}
	scope := "namespace." + garbage.Namespace + ".component." + garbage.Endpoint.Component + ".endpoint." + garbage.Endpoint.Name + "."
	for _, h := range []*validPublisher{
		{kind: stats.LoadEvent, topic: wire.TopicLoad, subject: wire.TopicLoad},
		{kind: stats.ForwardPass, topic: wire.TopicForwardPass, subject: scope + wire.TopicForwardPass, broker: true},
	} {
		for _, frames := range garbage.Frames(h.topic) {
			if _, e, err := wire.ParseFrames(frames); err == nil {
				h.payloads, h.envelopes = append(h.payloads, e.Payload), append(h.envelopes, frames[3][5:])
			}
		}
		var err error
		if h.zmqPublisher, err = newZMQPublisher(zmtpGreeting(), true); err != nil {
			s.close()
			return nil, err
		}
		h.id = s.nextID()
		s.valid = append(s.valid, h)
	}
	for range malformedPublishers {
		r, err := newZMQPublisher(nil, false)
		if err != nil {
			s.close()
			return nil, err
		}
		s.malformed = append(s.malformed, r)
	}
	s.greetings = greetingSeeds()
	return s, nil
}

// greetingSeeds returns valid greetings, followed by no, one or many messages of a topic
// that the program does not subscribe to.
func greetingSeeds() [][]byte {
	all := [][]byte{zmtpGreeting()}
	ping := appendFrame(nil, 4, []byte("\x04PING\x00\x0aecho"))
	for n := 1; n <= 64; n *= 8 {
		b := zmtpGreeting()
		for i := range n {
			frames := garbage.Frames(wire.TopicKVEvents)
			b = appendMessage(append(b, ping...), frames[i%len(frames)])
		}
		all = append(all, b)
	}
	return all
}

func (s *zmqPublishers) close() {
	for _, h := range s.valid {
		h.close()
	}
	for _, r := range s.malformed {
		r.close()
	}
}

func (s *zmqPublishers) nextID() uint64 {
	s.lastID++
	return s.lastID
}

func (s *zmqPublishers) connections() (n int) {
	for _, r := range s.malformed {
		n += r.connections()
	}
	return n
}

// randomAddress returns an address that the program may connect to.
func (s *zmqPublishers) randomAddress(rng *rand.Rand) string {
	if i := rng.IntN(len(s.malformed) + 1); i < len(s.malformed) {
		return s.malformed[i].address()
	}
	return closedAddress
}

// isAllowed reports whether the program may connect to an address.
func (s *zmqPublishers) isAllowed(address string) bool {
	return address == closedAddress || slices.ContainsFunc(s.malformed, func(r *zmqPublisher) bool { return address == r.address() })
}

// channelEntry returns the valid registry entry of a publisher's event channel.
func channelEntry(topic string, publisher uint64, transport string) garbage.Entry {
	return garbage.Entry{
		Key: fmt.Sprintf("%scomponent/%s/endpoint/%s/topic/%s/%x", wire.ChannelPrefixes(garbage.Namespace)[1],
			garbage.Endpoint.Component, garbage.Endpoint.Name, topic, publisher),
		Value: fmt.Sprintf(`{"type":"EventChannel","scope":{"kind":"endpoint","endpoint":{"namespace":%q,"component":%q,"name":%q}},"topic":%q,"instance_id":%d,"transport":%s}`,
			garbage.Namespace, garbage.Endpoint.Component, garbage.Endpoint.Name, topic, publisher, transport),
	}
}

func zmqTransport(address string) string {
	return fmt.Sprintf(`{"kind":"Zmq","config":{"endpoint":%q}}`, address)
}

// validChannels returns the event channels of the valid publishers.
func (s *zmqPublishers) validChannels() (all []garbage.Entry) {
	for _, h := range s.valid {
		transport := zmqTransport(h.address())
		if h.broker {
			transport = fmt.Sprintf(`{"kind":"ZmqBroker","config":{"xpub_endpoints":[%q]}}`, h.address())
		}
		all = append(all, channelEntry(h.topic, h.id, transport))
	}
	return all
}

// malformedChannels returns valid event channels that lead to malformed publishers. Their
// ids are new each time, so that the program opens new connections.
func (s *zmqPublishers) malformedChannels(rng *rand.Rand) (all []garbage.Entry) {
	for _, r := range s.malformed {
		if rng.IntN(4) > 0 {
			all = append(all, channelEntry(wire.TopicLoad, s.nextID(), zmqTransport(r.address())))
		}
	}
	return all
}

// changeGreetings gives the malformed publishers new greetings.
func (s *zmqPublishers) changeGreetings(rng *rand.Rand) {
	for _, r := range s.malformed {
		r.setGreeting(garbage.Mutate(rng, s.greetings))
	}
}

// publish publishes messages from the valid publishers.
func (s *zmqPublishers) publish(rng *rand.Rand, sent map[stats.Kind]int) error {
	for _, h := range s.valid {
		var b []byte
		for range fuzzFrames {
			b = appendMessage(b, h.message(rng))
		}
		if err := h.zmqPublisher.publish(b); err != nil {
			return err
		}
		sent[h.kind] += fuzzFrames
	}
	return nil
}

// message returns the frames of a message that is almost valid: its payload, its envelope
// or its framing is changed.
func (h *validPublisher) message(rng *rand.Rand) [][]byte {
	change := rng.IntN(3)
	payload := h.payloads[rng.IntN(len(h.payloads))]
	if change == 0 {
		payload = garbage.Mutate(rng, h.payloads)
	}
	envelope := h.envelope(payload)
	if change == 1 {
		envelope = garbage.Mutate(rng, append(h.envelopes, envelope))
	}
	frames := [][]byte{
		[]byte(h.subject),
		binary.BigEndian.AppendUint64(nil, h.id),
		binary.BigEndian.AppendUint64(nil, h.sequence),
		append(binary.BigEndian.AppendUint32([]byte{1}, uint32(len(envelope))), envelope...),
	}
	h.sequence++
	if change < 2 {
		return frames
	}
	i := 1 + rng.IntN(len(frames)-1)
	switch rng.IntN(3) {
	case 0:
		return slices.Delete(frames, i, i+1)
	case 1:
		return slices.Insert(frames, i, frames[i])
	default:
		frames[i] = garbage.Mutate(rng, frames[i:i+1])
		return frames
	}
}

// envelope returns a valid envelope.
func (h *validPublisher) envelope(payload []byte) []byte {
	b := msgp.AppendMapHeader(nil, 5)
	b = msgp.AppendUint64(msgp.AppendString(b, "publisher_id"), h.id)
	b = msgp.AppendUint64(msgp.AppendString(b, "sequence"), h.sequence)
	b = msgp.AppendUint64(msgp.AppendString(b, "published_at"), publishedAt+h.sequence)
	b = msgp.AppendString(msgp.AppendString(b, "topic"), h.topic)
	return msgp.AppendBytes(msgp.AppendString(b, "payload"), payload)
}
