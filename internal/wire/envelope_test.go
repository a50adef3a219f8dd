package wire

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"dynamo-metrics/internal/testutil"
)

// envelopeFields returns the fields of an envelope in Dynamo's order.
func envelopeFields() pairs {
	return pairs{
		"publisher_id", uint64(2228897027003908015), "sequence", 0, "published_at", uint64(1795455643078),
		"topic", "kv_metrics", "payload", []byte("payload"),
	}
}

func TestParseEnvelopeReadsCaptures(t *testing.T) {
	for _, c := range []struct {
		release string
		want    Envelope // the first captured one
	}{
		{"0.9.1", Envelope{Publisher: 2228897027003908015, PublishedAt: 1795455643078, Topic: []byte("kv_metrics")}},
		{"1.6.1", Envelope{Publisher: 6793699674751207, PublishedAt: 1795456063648, Topic: []byte("kv_metrics")}},
	} {
		got := envelopeOf(t, natsEvents(t, c.release)[0].data)
		if len(got.Payload) < 70 {
			t.Errorf("%s: payload is %x", c.release, got.Payload)
		}
		got.Payload = nil
		testutil.Equal(t, "result", got, c.want)
	}
}

func TestIsEnvelopeSplitsCapturedNATSEvents(t *testing.T) {
	type kind struct{ subject, topic string } // topic is empty for JSON
	for release, want := range map[string]map[kind]int{
		"0.5.1": {{"namespace.dynamo.kv_metrics", ""}: 6},
		"0.6.1": {{"namespace.lab.kv_metrics", ""}: 7, {"namespace.lab.kv-hit-rate", ""}: 10},
		"0.7.1": {{"namespace.lab.kv_metrics", ""}: 2},
		"0.8.1": {{"namespace.lab.kv_metrics", ""}: 2},
		"0.9.1": {{"namespace.lab.kv_metrics", "kv_metrics"}: 7, {"namespace.lab.kv-hit-rate", "kv-hit-rate"}: 1},
		"1.0.2": {{"namespace.lab.kv_metrics", "kv_metrics"}: 2},
		"1.3.1": {
			{"namespace.lab.kv_metrics", "kv_metrics"}:                                 2,
			{"namespace.lab.component.backend.forward-pass-metrics", TopicForwardPass}: 2,
		},
		"1.4.2": {
			{"namespace.lab.component.backend.endpoint.generate.kv_metrics", "kv_metrics"}:               2,
			{"namespace.lab.component.backend.endpoint.generate.forward-pass-metrics", TopicForwardPass}: 2,
		},
		"1.6.1": {
			{"namespace.lab.component.backend.endpoint.generate.kv_metrics", "kv_metrics"}:               4,
			{"namespace.lab.component.backend.endpoint.generate.forward-pass-metrics", TopicForwardPass}: 4,
			{"namespace.lab.component.backend.endpoint.generate.kv-events", "kv-events"}:                 1,
			{TraceSubject, ""}: 10,
		},
	} {
		got := make(map[kind]int)
		for _, m := range natsEvents(t, release) {
			k := kind{subject: m.subject}
			if IsEnvelope(m.data) {
				k.topic = string(envelopeOf(t, m.data).Topic)
			}
			got[k]++
		}
		t.Run(release, func(t *testing.T) { testutil.Equal(t, "result", got, want) })
	}
}

func TestParseFramesReadsCapturedZMQEvents(t *testing.T) {
	for release, want := range map[string]map[string]int{
		"0.9.1": {"kv-hit-rate": 1},
		"1.0.2": {"kv_metrics": 1},
		"1.2.1": {"kv_metrics": 1, "forward-pass-metrics": 1},
		"1.3.1": {"kv_metrics": 1, "forward-pass-metrics": 1},
		"1.4.2": {"kv_metrics": 1, "forward-pass-metrics": 1},
		"1.5.1": {"kv_metrics": 1, "forward-pass-metrics": 1},
		"1.6.1": {
			"kv_metrics": 5, "forward-pass-metrics": 5, "kv-events": 2, "active_sequences_events": 1,
			"namespace.lab.component.backend.endpoint.generate.kv_metrics":           2, // through a broker
			"namespace.lab.component.backend.endpoint.generate.forward-pass-metrics": 2,
		},
	} {
		got := make(map[string]int)
		for _, frames := range zmqEvents(t, release) {
			subject, e, err := ParseFrames(frames)
			if err != nil {
				t.Fatalf("%s: %v", release, err)
			}
			if topic := string(e.Topic); string(subject) != topic {
				_, inSubject, ok := ParseEventSubject("lab", string(subject))
				testutil.Equal(t, "values", []any{inSubject, ok}, []any{topic, true})
			}
			got[string(subject)]++
		}
		t.Run(release, func(t *testing.T) { testutil.Equal(t, "result", got, want) })
	}
}

func TestParseEnvelopeAcceptsVariants(t *testing.T) {
	want := Envelope{2228897027003908015, 0, 1795455643078, []byte("kv_metrics"), []byte("payload")}
	fields := envelopeFields()
	for name, b := range map[string][]byte{
		"as Dynamo writes it":         pack(fields),
		"the other way round":         pack(fields.reversed()),
		"with more at the end":        pack(fields.with("published_at_ns", uint64(1795455643078000000)).with("later", unknownValue())),
		"with more at the start":      pack(append(pairs{"later", unknownValue()}, fields...)),
		"a signed id":                 pack(fields.with("publisher_id", int64(2228897027003908015))),
		"a field count of two bytes":  append([]byte{0xde, 0, 5}, pack(fields)[1:]...),
		"a field count of four bytes": append([]byte{0xdf, 0, 0, 0, 5}, pack(fields)[1:]...),
	} {
		t.Run(name, func(t *testing.T) {
			if !IsEnvelope(b) {
				t.Error("IsEnvelope is false")
			}
			testutil.Equal(t, "envelope", envelopeOf(t, b), want)
		})
	}
}

func TestParseEnvelopeSharesInput(t *testing.T) {
	b := pack(envelopeFields())
	e := envelopeOf(t, b)
	clear(b)
	testutil.Equal(t, "topic", e.Topic, make([]byte, len("kv_metrics")))
	testutil.Equal(t, "payload", e.Payload, make([]byte, len("payload")))
}

func TestParseEnvelopeRejectsInvalid(t *testing.T) {
	fields := envelopeFields()
	for name, b := range map[string][]byte{
		"empty":                        {},
		"JSON":                         []byte(`{"worker_id":1,"data":null}`),
		"an array of the values":       pack([]any{1, 0, 1795455643078, "kv_metrics", []byte("payload")}),
		"nil":                          pack(nil),
		"an empty map":                 pack(pairs{}),
		"no publisher":                 pack(fields.without("publisher_id")),
		"no sequence":                  pack(fields.without("sequence")),
		"no time":                      pack(fields.without("published_at")),
		"no topic":                     pack(fields.without("topic")),
		"no payload":                   pack(fields.without("payload")),
		"a nil publisher":              pack(fields.with("publisher_id", nil)),
		"a negative sequence":          pack(fields.with("sequence", -1)),
		"a float for a sequence":       pack(fields.with("sequence", 1.0)),
		"a time too far":               pack(fields.with("published_at", uint64(maxUnixMilli+1))),
		"a number for a topic":         pack(fields.with("topic", 1)),
		"an empty topic":               pack(fields.with("topic", "")),
		"too long a topic":             pack(fields.with("topic", strings.Repeat("t", maxName+1))),
		"text for a payload":           pack(fields.with("payload", "payload")),
		"numbers for a payload":        pack(fields.with("payload", []any{1, 2})),
		"a number for a key":           append([]byte{0x86, 1, 1}, pack(fields)[1:]...),
		"trailing bytes":               append(pack(fields), 0xc0),
		"a second envelope after it":   append(pack(fields), pack(fields)...),
		"fewer fields than announced":  append([]byte{0x86}, pack(fields)[1:]...),
		"more fields than announced":   append([]byte{0x84}, pack(fields)[1:]...),
		"four billion fields":          append([]byte{0xdf, 255, 255, 255, 255}, pack(fields)[1:]...),
		"a payload of 4 GiB":           {0x81, 0xa7, 'p', 'a', 'y', 'l', 'o', 'a', 'd', 0xc6, 255, 255, 255, 255, 0},
		"a topic of 4 GiB":             {0x81, 0xa5, 't', 'o', 'p', 'i', 'c', 0xdb, 255, 255, 255, 255, 't'},
		"four billion unknown values":  {0x81, 0xa1, 'x', 0xdd, 255, 255, 255, 255, 0xc0},
		"an unknown extension cut off": {0x81, 0xa1, 'x', 0xc9, 255, 255, 255, 255},
		"the byte msgpack never uses":  {0x81, 0xa1, 'x', 0xc1},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseEnvelope(b)
			if err == nil {
				t.Errorf("ParseEnvelope = %+v, want an error", got)
			}
			testutil.Equal(t, "result", got, Envelope{})
		})
	}
}

func TestParseEnvelopeRejectsTruncated(t *testing.T) {
	for _, release := range []string{"0.9.1", "1.6.1"} {
		checkTruncated(t, natsEvents(t, release)[0].data, func(b []byte) error { _, err := ParseEnvelope(b); return err })
	}
}

func TestParseEnvelopeRejectsDeepNesting(t *testing.T) {
	envelope := func(b []byte) error { _, err := ParseEnvelope(b); return err }
	deep := func(n int) []byte {
		return append(append([]byte{0x86, 0xa1, 'x'}, nested(n)...), pack(envelopeFields())[1:]...)
	}
	if err := envelope(deep(maxDepth)); err != nil {
		t.Errorf("%d deep: %v", maxDepth, err)
	}
	for _, n := range []int{maxDepth + 2, 2_000_000} {
		if envelope(deep(n)) == nil {
			t.Errorf("%d deep: no error", n)
		}
	}
}

func TestParseFramesRejectsInvalid(t *testing.T) {
	good := zmqEvents(t, "1.6.1")[0]
	replaced := func(i int, b []byte) [][]byte {
		frames := slices.Clone(good)
		frames[i] = b
		return frames
	}
	length := func(n uint32) []byte {
		b := slices.Clone(good[3])
		binary.BigEndian.PutUint32(b[1:], n)
		return b
	}
	version := slices.Clone(good[3])
	version[0] = 2
	envelope := uint32(len(good[3]) - 5)
	for name, frames := range map[string][][]byte{
		"none":                       nil,
		"one":                        good[:1],
		"three":                      good[:3],
		"five":                       append(slices.Clone(good), nil),
		"nothing in them":            {nil, nil, nil, nil},
		"in another order":           {good[1], good[2], good[0], good[3]},
		"a publisher of 7 bytes":     replaced(1, good[1][:7]),
		"a sequence of 9 bytes":      replaced(2, append(slices.Clone(good[2]), 0)),
		"another publisher":          replaced(1, make([]byte, 8)),
		"another sequence":           replaced(2, []byte{0, 0, 0, 0, 0, 0, 0, 99}),
		"another version":            replaced(3, version),
		"no envelope":                replaced(3, []byte{1, 0, 0, 0, 0}),
		"the envelope alone":         replaced(3, good[3][5:]),
		"one byte less":              replaced(3, good[3][:len(good[3])-1]),
		"one byte more":              replaced(3, append(slices.Clone(good[3]), 0)),
		"a length that is too small": replaced(3, length(envelope-1)),
		"a length of 4 GiB":          replaced(3, length(math.MaxUint32)),
		"publisher and sequence little-endian": {good[0],
			binary.LittleEndian.AppendUint64(nil, binary.BigEndian.Uint64(good[1])), good[2], good[3]},
	} {
		t.Run(name, func(t *testing.T) {
			subject, e, err := ParseFrames(frames)
			if err == nil || subject != nil {
				t.Errorf("ParseFrames = %q, %+v, %v, want an error and nothing else", subject, e, err)
			}
			testutil.Equal(t, "event", e, Envelope{})
		})
	}
}

func TestIsEnvelopeAcceptsMapsOnly(t *testing.T) {
	for _, data := range []string{"", "{", `{"worker_id":1}`, "[", "null", " {", "\x90", "\xc0", "\xdd"} {
		if IsEnvelope([]byte(data)) {
			t.Errorf("IsEnvelope(%q) is true", data)
		}
	}
}
