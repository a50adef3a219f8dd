package monitor

import (
	"fmt"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
)

// crowd is a fleet of so many workers that report and are hit, half of them by forward
// passes, too.
func newLargeFleet(n int) *fleet.Fleet {
	f := fleet.New(fleet.Target{}, 2*n, true)
	f.Advance(time.Now())
	l := fleet.Listing{Instances: make(map[string]fleet.InstanceEntry), Cards: make(map[string]fleet.CardEntry)}
	for i := range n {
		in := fleet.Instance{Endpoint: generate, ID: 0x694d000000000000 + uint64(i)*7919}
		l.Instances[fmt.Sprint(i)] = fleet.InstanceEntry{Instance: in, Registration: fleet.Registration{NATS: true, Publishes: i%2 == 1}}
		l.Cards[fmt.Sprint(i)] = fleet.CardEntry{Instance: in, Card: fleet.Card{Model: "deepseek-ai/DeepSeek-R1", KVTotal: u(16384), MaxSeqs: u(256)}}
	}
	f.Sync(l)
	for _, in := range l.Instances {
		updateWorker(f, in.ID, 0)
	}
	return f
}

// renew gives a worker of crowd a new load, and a hit.
func updateWorker(f *fleet.Fleet, id uint64, at int) {
	from := fleet.Origin{Endpoint: generate, Worker: id}
	blocks := (id/7919*37 + uint64(at)*41) % 16384
	f.RecordLoad(from, fleet.FromActiveLoad, fleet.Load{KVActive: u(blocks)})
	f.RecordForwardPass(from, fleet.Pass{Counter: uint64(at) + 1, Seconds: 0.02, Running: blocks / 64, Waiting: blocks / 16000, QueuedTokens: blocks})
	f.RecordHit(id, 40, blocks%41)
}

func BenchmarkMonitor(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 65_536} {
		f := newLargeFleet(n)
		m := New(options(f))
		at := time.Now()
		ids := make([]uint64, 0, n)
		for i := range n {
			ids = append(ids, 0x694d000000000000+uint64(i)*7919)
		}
		round := 0
		// next is the next second: everybody has a new load.
		next := func(b *testing.B) {
			b.StopTimer()
			round++
			for _, id := range ids {
				updateWorker(f, id, round)
			}
			at = at.Add(time.Second)
			b.StartTimer()
		}
		b.Run(fmt.Sprintf("%d workers/look", n), func(b *testing.B) {
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
				m.cachedEvents = [2]*snapshotEvent{}
				e, _ := m.latestEvent(m.historyClock.total)
				size = len(e.json())
			}
			b.ReportMetric(float64(size), "bytes")
		})
		e, _ := m.latestEvent(m.historyClock.total)
		b.Run(fmt.Sprintf("%d workers/compress", n), func(b *testing.B) {
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				size = len(deflateChunk(e.frame))
			}
			b.ReportMetric(float64(size), "bytes")
		})
		b.ReportMetric(float64(f.Stats.HistoryBytes.Load()), "history")
	}
}
