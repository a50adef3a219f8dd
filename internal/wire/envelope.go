package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Envelope wraps every event of 0.9 to 1.6, over NATS and over ZMQ.
//
// Up to 1.2, Publisher is the worker's id, which all publishers of a process share. From
// 1.3 on each publisher has a random id of its own. Sequence counts from 0 for each pair
// of Publisher and Topic.
type Envelope struct {
	Publisher   uint64
	Sequence    uint64
	PublishedAt uint64 // by the publisher's clock, in Unix milliseconds
	Topic       []byte // aliases the decoded bytes
	Payload     []byte // aliases the decoded bytes
}

// maxUnixMilli is the limit of a time, in Unix milliseconds. It is in the year 10889, and
// far from overflowing.
const maxUnixMilli = 1 << 48

// IsEnvelope reports whether a message is a msgpack map, and so may be an Envelope. Older
// releases publish JSON on the same subjects.
func IsEnvelope(b []byte) bool {
	return len(b) > 0 && (b[0]&0xf0 == 0x80 || b[0] == 0xde || b[0] == 0xdf)
}

// ParseEnvelope decodes the envelope of an event (0.9 to 1.6).
func ParseEnvelope(b []byte) (Envelope, error) {
	const (
		publisher = 1 << iota
		sequence
		publishedAt
		topic
		payload
		all = 1<<iota - 1
	)
	var e Envelope
	var got uint
	m := msgpackReader{b: b}
	for range m.mapLen() {
		switch string(m.key()) {
		case "publisher_id":
			e.Publisher, got = m.uint(), got|publisher
		case "sequence":
			e.Sequence, got = m.uint(), got|sequence
		case "published_at":
			e.PublishedAt, got = m.boundedUint(maxUnixMilli), got|publishedAt
		case "topic":
			e.Topic, got = m.str(), got|topic
		case "payload":
			e.Payload, got = m.bin(), got|payload
		default:
			m.skipValue()
		}
	}
	m.require(got, all)
	if len(e.Topic) == 0 || len(e.Topic) > maxName {
		m.fail(errMsgpackRange)
	}
	if err := m.finish(); err != nil {
		return Envelope{}, fmt.Errorf("decode envelope: %w", err)
	}
	return e, nil
}

var (
	errFrames   = errors.New("decode ZMQ message: not the four frames of an event")
	errFrameIDs = errors.New("decode ZMQ message: its frames and its envelope differ in publisher or sequence")
)

// frameVersion is the first byte of the last frame.
const frameVersion = 1

// ParseFrames decodes an event from ZMQ (0.9 to 1.6). Its frames are the subject, the
// publisher, the sequence, and a last one with a version, a length and the envelope. The
// subject is the topic alone if a worker sent the event. If a broker did, it is a subject
// for ParseEventSubject.
func ParseFrames(frames [][]byte) (subject []byte, e Envelope, err error) {
	if len(frames) != 4 || len(frames[1]) != 8 || len(frames[2]) != 8 {
		return nil, Envelope{}, errFrames
	}
	body := frames[3]
	if len(body) < 5 || body[0] != frameVersion || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return nil, Envelope{}, errFrames
	}
	if e, err = ParseEnvelope(body[5:]); err != nil {
		return nil, Envelope{}, err
	}
	if binary.BigEndian.Uint64(frames[1]) != e.Publisher || binary.BigEndian.Uint64(frames[2]) != e.Sequence {
		return nil, Envelope{}, errFrameIDs
	}
	return frames[0], e, nil
}
