package fleet

import "testing"

// fleetOf is a Fleet of n registered workers that all report a load and have had a hit.
func fleetOf(n int) *Fleet {
	f := fleetAt(everything, n)
	f.BeginPoll()
	for id := range uint64(n) {
		register(f, generate, id+1)
		f.Report(loaded(generate, lease(id+1), id%100))
		f.Hit(id+1, 20, 5)
	}
	f.EndPoll(true)
	return f
}

const many = 10_000

func BenchmarkHit(b *testing.B) {
	f := fleetOf(many)
	b.ReportAllocs()
	id := uint64(0)
	for b.Loop() {
		id = (id + 7919) % many // a prime: every worker, in no order that caches like
		f.Hit(id+1, 20, 5)
	}
}

func BenchmarkHitInParallel(b *testing.B) {
	f := fleetOf(many)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for id := uint64(0); p.Next(); {
			id = (id + 7919) % many
			f.Hit(id+1, 20, 5)
		}
	})
}

func BenchmarkReport(b *testing.B) {
	f := fleetOf(many)
	r := loaded(generate, lease(0), 10)
	b.ReportAllocs()
	id := uint64(0)
	for b.Loop() {
		id = (id + 7919) % many
		r.Worker.Lease = id + 1
		f.Report(r)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	f := fleetOf(many)
	b.ReportAllocs()
	var s Snapshot
	for b.Loop() {
		f.SnapshotInto(&s)
	}
}

func BenchmarkSnapshotUnderTheLock(b *testing.B) {
	f := fleetOf(many)
	b.ReportAllocs()
	var s Snapshot
	for b.Loop() {
		f.copy(&s)
	}
}

func BenchmarkPoll(b *testing.B) {
	f := fleetOf(many)
	b.ReportAllocs()
	for b.Loop() {
		f.BeginPoll()
		f.PollAnswered()
		f.EndPoll(false)
	}
}

func TestAHitAllocatesNothing(t *testing.T) {
	f := fleetOf(100)
	if n := testing.AllocsPerRun(100, func() { f.Hit(50, 20, 5) }); n != 0 {
		t.Errorf("a hit allocates %v times, want 0", n)
	}
}
