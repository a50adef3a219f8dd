package monitor

import (
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet/fleettest"
)

func BenchmarkMonitor(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 65_536} {
		f := fleettest.Large(n)
		m := New(options(f))
		at := time.Now()
		ids := make([]uint64, 0, n)
		for i := range n {
			ids = append(ids, 0x694d000000000000+uint64(i)*7919)
		}
		round := 0
		// next lets a second pass, in which every worker publishes a new load.
		next := func(b *testing.B) {
			b.StopTimer()
			round++
			for _, id := range ids {
				fleettest.UpdateWorker(f, id, round)
			}
			at = at.Add(time.Second)
			b.StartTimer()
		}
		b.Run(fmt.Sprintf("%d workers/sample", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				next(b)
				m.Sample(at)
			}
		})
		b.Run(fmt.Sprintf("%d workers/write", n), func(b *testing.B) {
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				m.renderings = [2]*Rendering{}
				r, _ := m.Render(m.historyClock.total)
				size = len(r.JSON)
			}
			b.ReportMetric(float64(size), "bytes")
		})
		b.ReportMetric(float64(f.Stats.HistoryBytes.Load()), "history")
	}
}
