package exposition

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/fleet/fleettest"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The fleets are random. metricsText compares the output with the client library's.
func TestTextWriterMatchesLibrary(t *testing.T) {
	odd := []string{"backend", "a\"b", `a\b`, "a\nb", "ü", "a{b}", "z"}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		target := fleettest.Everything
		if seed%2 == 1 {
			target = severalNamespaces
		}
		f := fleettest.New(target, true)
		name := func() string { return odd[r.IntN(len(odd))] }
		number := func() fleet.Opt[uint64] {
			return fleet.Opt[uint64]{V: []uint64{0, 1, 999_999, 1_000_000, 123_456_789, 1<<64 - 1, r.Uint64N(100)}[r.IntN(7)], OK: r.IntN(5) > 0}
		}
		fraction := func() fleet.Opt[float64] {
			return fleet.Opt[float64]{V: []float64{0, 1, 0.5, 1e-9, r.Float64(), 1e21}[r.IntN(6)], OK: r.IntN(5) > 0}
		}
		for range 60 {
			e := fleet.Endpoint{Component: name(), Name: name()}
			if target.MultipleNamespaces() {
				e.Namespace = name()
			}
			in := fleet.Instance{Endpoint: e, ID: 1 + r.Uint64N(30)}
			from := fleet.Origin{Endpoint: e, Worker: in.ID, Rank: uint32(r.IntN(12))}
			f.Register("", in, fleet.Registration{Publishes: r.IntN(2) == 0})
			switch r.IntN(6) {
			case 0:
				f.SetCard("", in, fleet.Card{Model: name(), KVTotal: number(), MaxSeqs: number()})
			case 1:
				f.RecordLoad(from, fleet.FromLoadEvent, fleet.Load{KVActive: number(), KVTotal: number(), ActiveSlots: number(), TotalSlots: number(),
					Waiting: number(), CacheUsage: fraction(), HitRate: fraction(), SpecDrafts: number()})
			case 2:
				f.RecordForwardPass(from, fleet.Pass{Counter: r.Uint64N(5), Seconds: r.ExpFloat64(), Running: r.Uint64N(9), PrefillTokens: r.Uint64N(9_000_000)})
			case 3:
				f.RecordRequest(fleet.Request{Prefill: fleet.Some(in.ID), Decode: fleet.Some(in.ID), ISLBlocks: number(), OverlapBlocks: number(),
					FirstToken: fraction(), InterToken: fraction(), Duration: fraction()})
			case 5:
				for _, p := range f.ScrapeTargets(r.IntN(2) == 0) {
					f.RecordScrape(p, []fleet.ScrapedValues{{Rank: uint32(r.IntN(3)), Lookups: number(), Hits: number(), Inflight: number(),
						Load: fleet.Load{KVActive: number(), KVTotal: number(), ActiveSlots: number(), TotalSlots: number(), Waiting: number(), CacheUsage: fraction()}}})
				}
			case 4:
				f.RecordPollReply(fleet.PollReply{Endpoint: e, Worker: fleet.WorkerID{Static: "x\"" + name()}, Service: "s", Load: fleet.Load{Waiting: number()}})
			}
		}
		metricsText(t, f)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// BenchmarkMetricsHandler measures whole responses to scrapes, ours and the client library's.
func BenchmarkMetricsHandler(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		m := metricsOf(fleettest.Full(n))
		for name, h := range map[string]http.Handler{
			"ours":    m.Handler(slog.New(slog.DiscardHandler)),
			"library": promhttp.HandlerFor(m, promhttp.HandlerOpts{DisableCompression: true}),
		} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
				for b.Loop() {
					h.ServeHTTP(new(discardWriter), request)
				}
			})
		}
	}
}

// discardWriter discards a response.
type discardWriter struct{ header http.Header }

func (n *discardWriter) Header() http.Header {
	if n.header == nil {
		n.header = make(http.Header)
	}
	return n.header
}
func (*discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (*discardWriter) WriteHeader(int)             {}
