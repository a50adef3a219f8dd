package wire

import "testing"

// benchmark runs decode.
func benchmark(b *testing.B, decode func() error) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		if err := decode(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEnvelopeAndActiveLoad(b *testing.B) {
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

func BenchmarkFramesAndForwardPass(b *testing.B) {
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

func BenchmarkEnvelopeAndHitRate(b *testing.B) {
	data := natsEvents(b, "0.9.1")[7].data
	benchmark(b, func() error {
		e, err := ParseEnvelope(data)
		if err != nil {
			return err
		}
		_, err = ParseHitRatePack(e.Payload)
		return err
	})
}

func BenchmarkEventSubject(b *testing.B) {
	subject := natsEvents(b, "1.6.1")[0].subject
	benchmark(b, func() error {
		if _, _, ok := ParseEventSubject("lab", subject); !ok {
			return errChannelKey
		}
		return nil
	})
}

// Those below are of JSON, and allocate as encoding/json does.

func BenchmarkHitRateJSON(b *testing.B) {
	data := natsEvents(b, "0.6.1")[7].data
	benchmark(b, func() error { _, err := ParseHitRate(data); return err })
}

func BenchmarkLoadEvent(b *testing.B) {
	data := loadEventsOf(b, "0.6.1")[0]
	benchmark(b, func() error { _, err := ParseLoadEvent(data); return err })
}

func BenchmarkTrace(b *testing.B) {
	data := traces(b)[0]
	benchmark(b, func() error { _, err := ParseTrace(data); return err })
}

func TestHotDecodersDoNotAllocate(t *testing.T) {
	load, pass, hit := natsEvents(t, "1.6.1")[0], zmqEvents(t, "1.6.1")[2], natsEvents(t, "0.9.1")[7]
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
			_, _ = ParseHitRatePack(e.Payload)
		},
		"subject": func() { _, _, _ = ParseEventSubject("lab", load.subject) },
	} {
		if n := testing.AllocsPerRun(100, decode); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}
