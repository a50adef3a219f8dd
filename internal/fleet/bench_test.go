package fleet

import "testing"

// fleetOf returns a Fleet of n registered workers that all have a load and a hit.
func fleetOf(n int) *Fleet {
	f := newFleet(everything, n)
	f.BeginPoll()
	for id := range uint64(n) {
		register(f, generate, id+1)
		f.RecordPollReply(loaded(generate, lease(id+1), id%100))
		f.RecordHit(id+1, 20, 5)
	}
	f.EndPoll(true)
	return f
}

const benchWorkers = 10_000

func BenchmarkRecordHit(b *testing.B) {
	f := fleetOf(benchWorkers)
	b.ReportAllocs()
	id := uint64(0)
	for b.Loop() {
		id = (id + 7919) % benchWorkers // a prime: visits every worker in a cache-unfriendly order
		f.RecordHit(id+1, 20, 5)
	}
}

func BenchmarkRecordHitParallel(b *testing.B) {
	f := fleetOf(benchWorkers)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for id := uint64(0); p.Next(); {
			id = (id + 7919) % benchWorkers
			f.RecordHit(id+1, 20, 5)
		}
	})
}

func BenchmarkRecordPollReply(b *testing.B) {
	f := fleetOf(benchWorkers)
	r := loaded(generate, lease(0), 10)
	b.ReportAllocs()
	id := uint64(0)
	for b.Loop() {
		id = (id + 7919) % benchWorkers
		r.Worker.Lease = id + 1
		f.RecordPollReply(r)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	f := fleetOf(benchWorkers)
	b.ReportAllocs()
	var s Snapshot
	for b.Loop() {
		f.SnapshotInto(&s)
	}
}

func BenchmarkSnapshotCopyInto(b *testing.B) {
	f := fleetOf(benchWorkers)
	b.ReportAllocs()
	var s Snapshot
	for b.Loop() {
		f.copyInto(&s)
	}
}

func BenchmarkPoll(b *testing.B) {
	f := fleetOf(benchWorkers)
	b.ReportAllocs()
	for b.Loop() {
		f.BeginPoll()
		f.PollAnswered()
		f.EndPoll(false)
	}
}

func TestRecordHitDoesNotAllocate(t *testing.T) {
	f := fleetOf(100)
	if n := testing.AllocsPerRun(100, func() { f.RecordHit(50, 20, 5) }); n != 0 {
		t.Errorf("a hit allocates %v times, want 0", n)
	}
}
