package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Envelope is what every event of 0.9 to 1.6 comes in, over NATS and ZMQ alike.
//
// Publisher is the worker's id to 1.2, and one number for all the publishers of a
// process; from 1.3 on it is random, one for each. Sequence counts from 0 for each
// pair of Publisher and Topic.
type Envelope struct {
	Publisher   uint64
	Sequence    uint64
	PublishedAt uint64 // by the publisher's clock, in Unix milliseconds
	Topic       []byte // part of what was decoded
	Payload     []byte // part of what was decoded
}

// maxUnixMilli bounds a time: it is in the year 10889, and far from overflowing.
const maxUnixMilli = 1 << 48

// IsEnvelope reports whether a message is a msgpack map, and so may be an
// Envelope. Its subjects are also those of the older events, which are JSON.
func IsEnvelope(b []byte) bool {
	return len(b) > 0 && (b[0]&0xf0 == 0x80 || b[0] == 0xde || b[0] == 0xdf)
}

// ParseEnvelope decodes the envelope of an event (0.9 to 1.6).
func ParseEnvelope(b []byte) (Envelope, error) {
	var e Envelope
	var got uint
	u := msgpackReader{b: b}
	for range u.mapLen() {
		switch string(u.key()) {
		case "publisher_id":
			e.Publisher, got = u.uint(), got|1
		case "sequence":
			e.Sequence, got = u.uint(), got|2
		case "published_at":
			e.PublishedAt, got = u.boundedUint(maxUnixMilli), got|4
		case "topic":
			e.Topic, got = u.str(), got|8
		case "payload":
			e.Payload, got = u.bin(), got|16
		default:
			u.skipValue()
		}
	}
	u.require(got, 1|2|4|8|16)
	if len(e.Topic) == 0 || len(e.Topic) > maxName {
		u.fail(errMsgpackRange)
	}
	if err := u.finish(); err != nil {
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

// ParseFrames decodes an event that came over ZMQ (0.9 to 1.6): subject, publisher
// and sequence, then a version, a length and the envelope. The subject is the topic
// alone where the worker sent it, and for ParseEventSubject where a broker did.
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
