package wire

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/testutil"

	"github.com/tinylib/msgp/msgp"
)

// message is an event of testdata as it came over NATS.
type message struct {
	subject string
	data    []byte
}

// natsEvents are the captured events of a release that came over NATS.
func natsEvents(t testing.TB, release string) (all []message) {
	t.Helper()
	for line := range bytes.Lines(testutil.Captured(t, release, "nats.jsonl")) {
		var m struct {
			Subject, Payload string
			Base64           []byte `json:"payload_base64"`
		}
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		if m.Payload != "" {
			m.Base64 = []byte(m.Payload)
		}
		all = append(all, message{m.Subject, m.Base64})
	}
	return all
}

// zmqEvents are the captured events of a release that came over ZMQ, as frames.
func zmqEvents(t testing.TB, release string) (all [][][]byte) {
	t.Helper()
	for line := range bytes.Lines(testutil.Captured(t, release, "zmq.jsonl")) {
		var m struct {
			Frames [][]byte `json:"frames_base64"`
		}
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		all = append(all, m.Frames)
	}
	return all
}

// natsReleases and zmqReleases have captured events.
var (
	natsReleases = [...]string{"0.5.1", "0.6.1", "0.7.1", "0.8.1", "0.9.1", "1.0.2", "1.1.1", "1.2.1", "1.3.1", "1.4.2", "1.5.1", "1.6.1"}
	zmqReleases  = [...]string{"0.9.1", "1.0.2", "1.2.1", "1.3.1", "1.4.2", "1.5.1", "1.6.1"}
)

// payloadsOf are the payloads of all captured events of a topic, of every release.
func payloadsOf(t testing.TB, topic string) (all [][]byte) {
	t.Helper()
	add := func(e Envelope) {
		if string(e.Topic) == topic {
			all = append(all, e.Payload)
		}
	}
	for _, release := range natsReleases {
		for _, m := range natsEvents(t, release) {
			if IsEnvelope(m.data) {
				add(envelopeOf(t, m.data))
			}
		}
	}
	for _, release := range zmqReleases {
		for _, frames := range zmqEvents(t, release) {
			_, e, err := ParseFrames(frames)
			if err != nil {
				t.Fatal(err)
			}
			add(e)
		}
	}
	if len(all) == 0 {
		t.Fatalf("no event of topic %s is captured", topic)
	}
	return all
}

func envelopeOf(t testing.TB, b []byte) Envelope {
	t.Helper()
	e, err := ParseEnvelope(b)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// pairs is a map to be written as msgpack: keys and values, in order.
type pairs []any

// pack writes v as msgpack, the map in it too.
func pack(v any) []byte { return appendPack(nil, v) }

func appendPack(b []byte, v any) []byte {
	switch v := v.(type) {
	case pairs:
		b = msgp.AppendMapHeader(b, uint32(len(v)/2))
		for _, v := range v {
			b = appendPack(b, v)
		}
	case []any:
		b = msgp.AppendArrayHeader(b, uint32(len(v)))
		for _, v := range v {
			b = appendPack(b, v)
		}
	case fleet.Opt[uint64]:
		if !v.OK {
			return msgp.AppendNil(b)
		}
		b = msgp.AppendUint64(b, v.V)
	case []byte:
		b = msgp.AppendBytes(b, v)
	default:
		var err error
		if b, err = msgp.AppendIntf(b, v); err != nil {
			panic(err)
		}
	}
	return b
}

// with is p with the value of a key replaced, or with the key behind all others.
func (p pairs) with(key string, v any) pairs {
	p = slices.Clone(p)
	if i := slices.Index(p, any(key)); i >= 0 {
		p[i+1] = v
		return p
	}
	return append(p, key, v)
}

// without is p without a key.
func (p pairs) without(key string) pairs {
	i := slices.Index(p, any(key))
	return slices.Delete(slices.Clone(p), i, i+2)
}

// reversed is p in the opposite order.
func (p pairs) reversed() (r pairs) {
	for i := len(p) - 2; i >= 0; i -= 2 {
		r = append(r, p[i], p[i+1])
	}
	return r
}

// unread is a value with every kind of thing in it that msgpack has.
func unknownValue() any {
	return []any{
		nil, true, -1, -1 << 40, uint64(1) << 63, float32(0.5), 0.5, "text", []byte("bytes"),
		pairs{"a", []any{pairs{}, []any{}}, "b", bytes.Repeat([]byte("x"), 300)},
		&msgp.RawExtension{Type: 7, Data: []byte("extension")},
	}
}

// nested is a value of n maps and arrays in each other.
func nested(n int) []byte {
	return append(bytes.Repeat([]byte{0x81, 0xa1, 'a', 0x91}, n/2), 0xc0)
}

// checkCutOff checks that parse refuses every part of a message that lacks its end.
func checkTruncated(t *testing.T, whole []byte, parse func([]byte) error) {
	t.Helper()
	for n := range whole {
		if parse(whole[:n]) == nil {
			t.Fatalf("the first %d of %d bytes are read", n, len(whole))
		}
	}
}
