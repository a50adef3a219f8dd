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

// message is a captured NATS message.
type message struct {
	subject string
	data    []byte
}

// natsEvents returns the captured events of a release over NATS.
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

// zmqEvents returns the frames of the captured events of a release over ZMQ.
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

// natsReleases and zmqReleases list the releases with captured events.
var (
	natsReleases = [...]string{"0.5.1", "0.6.1", "0.7.1", "0.8.1", "0.9.1", "1.0.2", "1.1.1", "1.2.1", "1.3.1", "1.4.2", "1.5.1", "1.6.1"}
	zmqReleases  = [...]string{"0.9.1", "1.0.2", "1.2.1", "1.3.1", "1.4.2", "1.5.1", "1.6.1"}
)

// payloadsOf returns the payloads of all captured events of a topic, of every release.
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

// pairs lists the keys and values of a msgpack map, in order.
type pairs []any

// pack encodes v, in which pairs are maps, as msgpack.
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

// with returns p with the value of a key replaced, or with the key added at the end.
func (p pairs) with(key string, v any) pairs {
	p = slices.Clone(p)
	if i := slices.Index(p, any(key)); i >= 0 {
		p[i+1] = v
		return p
	}
	return append(p, key, v)
}

// without returns p without a key.
func (p pairs) without(key string) pairs {
	i := slices.Index(p, any(key))
	return slices.Delete(slices.Clone(p), i, i+2)
}

// reversed returns p in the opposite order.
func (p pairs) reversed() (r pairs) {
	for i := len(p) - 2; i >= 0; i -= 2 {
		r = append(r, p[i], p[i+1])
	}
	return r
}

// unknownValue returns a value that contains every type of msgpack.
func unknownValue() any {
	return []any{
		nil, true, -1, -1 << 40, uint64(1) << 63, float32(0.5), 0.5, "text", []byte("bytes"),
		pairs{"a", []any{pairs{}, []any{}}, "b", bytes.Repeat([]byte("x"), 300)},
		&msgp.RawExtension{Type: 7, Data: []byte("extension")},
	}
}

// nested returns a value of n nested maps and arrays.
func nested(n int) []byte {
	return append(bytes.Repeat([]byte{0x81, 0xa1, 'a', 0x91}, n/2), 0xc0)
}

// checkTruncated checks that parse rejects every proper prefix of a message.
func checkTruncated(t *testing.T, whole []byte, parse func([]byte) error) {
	t.Helper()
	for n := range whole {
		if parse(whole[:n]) == nil {
			t.Fatalf("the first %d of %d bytes are accepted", n, len(whole))
		}
	}
}
