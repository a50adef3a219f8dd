package zmtp

import (
	"context"
	"io"
	"strings"
	"testing"
)

// event is a message of the size of a worker's load event: four frames, 203 bytes.
var event = message("kv_metrics", "\x00\x1f\x0f\x37\x24\xc2\xe4\x61", "\x00\x00\x00\x00\x00\x00\x00\x01", strings.Repeat("x", 177))

// repeatReader reads as s, repeated the given number of times.
type repeatReader struct {
	s     string
	times int
	at    int
}

func (r *repeatReader) Read(b []byte) (n int, err error) {
	if r.times == 0 {
		return 0, io.EOF
	}
	for n < len(b) && r.times > 0 {
		c := copy(b[n:], r.s[r.at:])
		n += c
		if r.at += c; r.at == len(r.s) {
			r.at = 0
			r.times--
		}
	}
	return n, nil
}

// BenchmarkSubDeliver measures reading and delivering one message without a network.
func BenchmarkSubDeliver(b *testing.B) {
	c := &replayConn{Reader: io.MultiReader(strings.NewReader(publisherHandshake), &repeatReader{s: event, times: b.N})}
	s := &Sub{Address: testAddress, Topics: []string{"a"}}
	got := 0
	b.ReportAllocs()
	b.SetBytes(int64(len(event)))
	b.ResetTimer()
	replayInto(s, c, func([][]byte) { got++ })
	b.StopTimer()
	if got != b.N {
		b.Fatalf("delivered %d messages, want %d", got, b.N)
	}
	b.ReportMetric(float64(got)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkSubOverTCP measures one message over TCP on loopback, from a publisher that
// writes 64 KiB at once.
func BenchmarkSubOverTCP(b *testing.B) {
	endpoint, accept := listen(b, "127.0.0.1:0")
	batch := []byte(strings.Repeat(event, 64<<10/len(event)))
	go func() {
		p := accept()
		defer p.conn.Close()
		p.acceptSubscription(1, "a")
		for {
			if _, err := p.conn.Write(batch); err != nil {
				return
			}
		}
	}()
	ctx, cancel := context.WithCancel(b.Context())
	s := &Sub{Address: endpoint, Topics: []string{"a"}, OnConnected: b.ResetTimer}
	got := 0
	b.ReportAllocs()
	b.SetBytes(int64(len(event)))
	err := s.Run(ctx, func([][]byte) {
		if got++; got == b.N {
			b.StopTimer()
			cancel()
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
