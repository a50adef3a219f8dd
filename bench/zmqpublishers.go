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

// speakers are the ZeroMQ publishers of a fuzzer. What the honest ones say is ZMTP, so
// that each of their messages can be counted. The rude ones talk nonsense, and of nothing
// that is read: else nobody could say how many messages of it are some.
type speakers struct {
	honest []*speech
	rude   []*speaker
	hellos [][]byte // seeds of what rude ones say

	announced uint64 // ids of publishers given out
}

// speech is what an honest publisher speaks of.
type speech struct {
	*speaker
	kind     stats.Kind
	topic    string
	subject  string // the first frame
	broker   bool
	id       uint64
	sequence uint64

	payloads, envelopes [][]byte // seeds
}

const (
	rudeSpeakers   = 4
	firstPublisher = 0x5eed0000

	publishedAt = 1_764_000_000_000 // as Unix milliseconds; the same for the same seed

	// closed is where nobody ever listens.
	closed = "tcp://127.0.0.1:1"
)

func newSpeakers() (*speakers, error) {
	s := &speakers{announced: firstPublisher}
	scope := "namespace." + garbage.Namespace + ".component." + garbage.Endpoint.Component + ".endpoint." + garbage.Endpoint.Name + "."
	for _, h := range []*speech{
		{kind: stats.LoadEvent, topic: wire.TopicLoad, subject: wire.TopicLoad},
		{kind: stats.ForwardPass, topic: wire.TopicForwardPass, subject: scope + wire.TopicForwardPass, broker: true},
	} {
		for _, frames := range garbage.Frames(h.topic) {
			if _, e, err := wire.ParseFrames(frames); err == nil {
				h.payloads, h.envelopes = append(h.payloads, e.Payload), append(h.envelopes, frames[3][5:])
			}
		}
		var err error
		if h.speaker, err = newSpeaker(zmtpGreeting(), true); err != nil {
			s.close()
			return nil, err
		}
		h.id = s.next()
		s.honest = append(s.honest, h)
	}
	for range rudeSpeakers {
		r, err := newSpeaker(nil, false)
		if err != nil {
			s.close()
			return nil, err
		}
		s.rude = append(s.rude, r)
	}
	s.hellos = hellos()
	return s, nil
}

// hellos are good greetings, with nothing, one or many messages of a topic that nobody
// reads behind them.
func hellos() [][]byte {
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

func (s *speakers) close() {
	for _, h := range s.honest {
		h.close()
	}
	for _, r := range s.rude {
		r.close()
	}
}

func (s *speakers) next() uint64 {
	s.announced++
	return s.announced
}

func (s *speakers) met() (n int) {
	for _, r := range s.rude {
		n += r.connections()
	}
	return n
}

// anyAddress is one that the program may connect to.
func (s *speakers) anyAddress(rng *rand.Rand) string {
	if i := rng.IntN(len(s.rude) + 1); i < len(s.rude) {
		return s.rude[i].address()
	}
	return closed
}

// permits reports whether an address is one of those.
func (s *speakers) permits(address string) bool {
	return address == closed || slices.ContainsFunc(s.rude, func(r *speaker) bool { return address == r.address() })
}

// channel is a good entry of a publisher's event channel.
func channel(topic string, publisher uint64, transport string) garbage.Entry {
	return garbage.Entry{
		Key: fmt.Sprintf("%scomponent/%s/endpoint/%s/topic/%s/%x", wire.ChannelPrefixes(garbage.Namespace)[1],
			garbage.Endpoint.Component, garbage.Endpoint.Name, topic, publisher),
		Value: fmt.Sprintf(`{"type":"EventChannel","scope":{"kind":"endpoint","endpoint":{"namespace":%q,"component":%q,"name":%q}},"topic":%q,"instance_id":%d,"transport":%s}`,
			garbage.Namespace, garbage.Endpoint.Component, garbage.Endpoint.Name, topic, publisher, transport),
	}
}

func onZMQ(address string) string {
	return fmt.Sprintf(`{"kind":"Zmq","config":{"endpoint":%q}}`, address)
}

// announcements are the channels of the honest ones.
func (s *speakers) announcements() (all []garbage.Entry) {
	for _, h := range s.honest {
		transport := onZMQ(h.address())
		if h.broker {
			transport = fmt.Sprintf(`{"kind":"ZmqBroker","config":{"xpub_endpoints":[%q]}}`, h.address())
		}
		all = append(all, channel(h.topic, h.id, transport))
	}
	return all
}

// nonsense are good channels of the rude ones, new ones each time, so that the program
// connects anew.
func (s *speakers) nonsense(rng *rand.Rand) (all []garbage.Entry) {
	for _, r := range s.rude {
		if rng.IntN(4) > 0 {
			all = append(all, channel(wire.TopicLoad, s.next(), onZMQ(r.address())))
		}
	}
	return all
}

// rehearse has the rude ones say something else from now on.
func (s *speakers) rehearse(rng *rand.Rand) {
	for _, r := range s.rude {
		r.greet(garbage.Mutated(rng, s.hellos))
	}
}

// say has the honest ones publish.
func (s *speakers) say(rng *rand.Rand, sent map[stats.Kind]int) error {
	for _, h := range s.honest {
		var b []byte
		for range fuzzFrames {
			b = appendMessage(b, h.message(rng))
		}
		if err := h.speaker.say(b); err != nil {
			return err
		}
		sent[h.kind] += fuzzFrames
	}
	return nil
}

// message is the frames of a message that is almost right: in its payload, in its
// envelope or in what is around it.
func (h *speech) message(rng *rand.Rand) [][]byte {
	how := rng.IntN(3)
	payload := h.payloads[rng.IntN(len(h.payloads))]
	if how == 0 {
		payload = garbage.Mutated(rng, h.payloads)
	}
	envelope := h.envelope(payload)
	if how == 1 {
		envelope = garbage.Mutated(rng, append(h.envelopes, envelope))
	}
	frames := [][]byte{
		[]byte(h.subject),
		binary.BigEndian.AppendUint64(nil, h.id),
		binary.BigEndian.AppendUint64(nil, h.sequence),
		append(binary.BigEndian.AppendUint32([]byte{1}, uint32(len(envelope))), envelope...),
	}
	h.sequence++
	if how < 2 {
		return frames
	}
	i := 1 + rng.IntN(len(frames)-1)
	switch rng.IntN(3) {
	case 0:
		return slices.Delete(frames, i, i+1)
	case 1:
		return slices.Insert(frames, i, frames[i])
	default:
		frames[i] = garbage.Mutated(rng, frames[i:i+1])
		return frames
	}
}

// envelope is a good one.
func (h *speech) envelope(payload []byte) []byte {
	b := msgp.AppendMapHeader(nil, 5)
	b = msgp.AppendUint64(msgp.AppendString(b, "publisher_id"), h.id)
	b = msgp.AppendUint64(msgp.AppendString(b, "sequence"), h.sequence)
	b = msgp.AppendUint64(msgp.AppendString(b, "published_at"), publishedAt+h.sequence)
	b = msgp.AppendString(msgp.AppendString(b, "topic"), h.topic)
	return msgp.AppendBytes(msgp.AppendString(b, "payload"), payload)
}
