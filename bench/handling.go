package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"testing"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"github.com/prometheus/client_golang/prometheus"
)

// measureHandling measures the cost of a hit-rate event that has been received: decoding
// and counting it, compared with the straightforward implementation.
func (s *environment) measureHandling(context.Context) error {
	const workers = 10_000
	events := hitEvents(workers)
	ours, err := benchmark(func(b *testing.B) {
		f := registeredFleet(workers)
		b.ReportAllocs()
		for i := 0; b.Loop(); i = (i + 1) % workers {
			f.Stats.CountMessage(stats.HitRate)
			hit, err := wire.ParseHitRate(events[i].data)
			if err != nil {
				b.Fatal(err)
			}
			f.RecordHit(hit.Worker, hit.ISLBlocks, hit.OverlapBlocks)
		}
	})
	if err != nil {
		return err
	}
	first, err := benchmark(func(b *testing.B) {
		labels := []string{"component", "endpoint", "worker_id"}
		isl := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isl"}, labels)
		overlap := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "overlap"}, labels)
		b.ReportAllocs()
		for i := 0; b.Loop(); i = (i + 1) % workers {
			var hit struct {
				Worker  uint64 `json:"worker_id"`
				ISL     uint64 `json:"isl_blocks"`
				Overlap uint64 `json:"overlap_blocks"`
			}
			if err := json.Unmarshal(events[i].data, &hit); err != nil {
				b.Fatal(err)
			}
			id := strconv.FormatUint(hit.Worker, 10)
			isl.WithLabelValues(component, "generate", id).Add(float64(hit.ISL))
			overlap.WithLabelValues(component, "generate", id).Add(float64(hit.Overlap))
		}
	})
	if err != nil {
		return err
	}
	ratio := perRun(ours) / perRun(first)
	s.table.add(row{
		measure: "a hit-rate event decoded and counted, of 10,000 workers, compared with encoding/json and two CounterVecs",
		ours:    nanoseconds(perRun(ours)), baseline: nanoseconds(perRun(first)),
		ratio: times(ratio), target: "≤ 0.2, or 150 ns", met: ratio <= 0.2 || perRun(ours) <= 150, gate: true,
	})
	s.table.add(row{
		measure: "the same: allocations", ours: fmt.Sprint(ours.AllocsPerOp()), baseline: fmt.Sprint(first.AllocsPerOp()),
		target: "0", met: ours.AllocsPerOp() == 0, gate: true,
	})
	return nil
}

// registeredFleet returns a fleet with n workers. Each has a hit, and reports everything
// that a poll reply can hold.
func registeredFleet(n int) *fleet.Fleet {
	f := fleet.New(fleet.Target{}, n, true)
	f.Sync(fleet.Listing{})
	f.Advance(time.Now())
	some := fleet.Some[uint64]
	for i := range n {
		for _, in := range instances(i) {
			f.Register("", in, fleet.Registration{NATS: true})
		}
		f.RecordPollReply(fleet.PollReply{
			Endpoint: instances(i)[0].Endpoint, Worker: fleet.WorkerID{Lease: workerID(i)}, Service: "dynamo_backend",
			Load: fleet.Load{
				ActiveSlots: some(3), TotalSlots: some(16), Waiting: some(2), KVActive: some(uint64(i % 1000)), KVTotal: some(1000),
				CacheUsage: fleet.Some(0.4000000059604645), HitRate: fleet.Some(0.25),
			},
		})
		f.RecordHit(workerID(i), 20, uint64(i%20))
	}
	return f
}

// benchmark runs f as go test -bench does, for a shorter time.
func benchmark(f func(*testing.B)) (testing.BenchmarkResult, error) {
	if flag.Lookup("test.benchtime") == nil {
		testing.Init()
	}
	if err := flag.Set("test.benchtime", "500ms"); err != nil {
		return testing.BenchmarkResult{}, err
	}
	best := testing.BenchmarkResult{}
	for range 3 { // only the best run counts: other processes on the machine can only slow a run down
		r := testing.Benchmark(f)
		if r.N == 0 {
			return r, errors.New("a benchmark failed")
		}
		if best.N == 0 || perRun(r) < perRun(best) {
			best = r
		}
	}
	return best, nil
}

// perRun returns the time of one run in nanoseconds, with fractions.
func perRun(r testing.BenchmarkResult) float64 { return float64(r.T.Nanoseconds()) / float64(r.N) }
