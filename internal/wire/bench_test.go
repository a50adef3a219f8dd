package wire

import (
	"testing"

	"dynamo-metrics/internal/testutil"
)

// benchmark measures decode, which must not fail.
func benchmark(b *testing.B, decode func() error) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		if err := decode(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseActiveLoad(b *testing.B) {
	data := natsEvents(b, "1.6.1")[0].data
	benchmark(b, func() error {
		e, err := ParseEnvelope(data)
		if err != nil {
			return err
		}
		_, err = ParseActiveLoad(e.Payload)
		return err
	})
}

func BenchmarkParseForwardPass(b *testing.B) {
	frames := zmqEvents(b, "1.6.1")[2]
	benchmark(b, func() error {
		_, e, err := ParseFrames(frames)
		if err != nil {
			return err
		}
		_, err = ParseForwardPass(e.Payload)
		return err
	})
}

func BenchmarkParseHitRateMsgpack(b *testing.B) {
	data := natsEvents(b, "0.9.1")[7].data
	benchmark(b, func() error {
		e, err := ParseEnvelope(data)
		if err != nil {
			return err
		}
		_, err = ParseHitRateMsgpack(e.Payload)
		return err
	})
}

func BenchmarkParseEventSubject(b *testing.B) {
	subject := natsEvents(b, "1.6.1")[0].subject
	benchmark(b, func() error {
		if _, _, ok := ParseEventSubject("lab", subject); !ok {
			return errChannelKey
		}
		return nil
	})
}

// The decoders of JSON follow. Those with a fast path are compared to encoding/json.

func BenchmarkParseHitRate(b *testing.B) {
	data := natsEvents(b, "0.6.1")[7].data
	b.Run("scan", func(b *testing.B) {
		benchmark(b, func() error { _, err := ParseHitRate(data); return err })
	})
	b.Run("encoding", func(b *testing.B) {
		benchmark(b, func() error { _, err := unmarshalHitRate(data); return err })
	})
}

func BenchmarkStatsDecoder(b *testing.B) {
	for _, file := range []string{"0.2.1/stats_reply_1.json", "0.5.1/stats_reply_1.json", "0.5.1/stats_reply_2.json"} {
		data := testutil.Captured(b, file)
		var d StatsDecoder
		b.Run("scan/"+file, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			benchmark(b, func() error { _, err := d.Decode(data); return err })
		})
		b.Run("encoding/"+file, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			benchmark(b, func() error { _, _, err := d.unmarshal(data); return err })
		})
	}
}

func BenchmarkParseLoadEvent(b *testing.B) {
	data := loadEventsOf(b, "0.6.1")[0]
	b.Run("scan", func(b *testing.B) {
		benchmark(b, func() error { _, err := ParseLoadEvent(data); return err })
	})
	b.Run("encoding", func(b *testing.B) {
		benchmark(b, func() error { var v loadEventFields; return v.unmarshal(data) })
	})
}

func BenchmarkParseTrace(b *testing.B) {
	data := traces(b)[0]
	benchmark(b, func() error { _, err := ParseTrace(data); return err })
}

func TestDecodersDoNotAllocate(t *testing.T) {
	load, pass, hit := natsEvents(t, "1.6.1")[0], zmqEvents(t, "1.6.1")[2], natsEvents(t, "0.9.1")[7]
	hitJSON, loadJSON := natsEvents(t, "0.6.1")[7].data, loadEventsOf(t, "0.6.1")[0]
	var replies [][]byte
	for _, file := range capturedReplies(t) {
		replies = append(replies, testutil.Captured(t, file))
	}
	var d StatsDecoder
	for name, decode := range map[string]func(){
		"active load": func() {
			e, _ := ParseEnvelope(load.data)
			_, _ = ParseActiveLoad(e.Payload)
		},
		"forward pass": func() {
			_, e, _ := ParseFrames(pass)
			_, _ = ParseForwardPass(e.Payload)
		},
		"hit rate": func() {
			e, _ := ParseEnvelope(hit.data)
			_, _ = ParseHitRateMsgpack(e.Payload)
		},
		"hit rate in JSON":   func() { _, _ = ParseHitRate(hitJSON) },
		"load event in JSON": func() { _, _ = ParseLoadEvent(loadJSON) },
		"every stats reply": func() {
			for _, b := range replies {
				_, _ = d.Decode(b)
			}
		},
		"subject": func() { _, _, _ = ParseEventSubject("lab", load.subject) },
	} {
		if n := testing.AllocsPerRun(100, decode); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}
