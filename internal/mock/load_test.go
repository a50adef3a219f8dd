package mock

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newTestRandomWalk(seed uint64) *randomWalk {
	return newRandomWalk(rand.New(rand.NewPCG(seed, 1)), time.Time{})
}

func TestRandomLoadIsTheOriginals(t *testing.T) {
	d := &randomLoad{rng: rand.New(rand.NewPCG(1, 1))}
	seen := map[uint64]bool{}
	for range 2000 {
		l := d.load()
		if l.TotalSlots.V != 100 || l.KVTotal.V != 100 {
			t.Fatalf("totals: got %d and %d, want 100", l.TotalSlots.V, l.KVTotal.V)
		}
		if l.ActiveSlots.V > 100 || l.KVActive.V > 100 || l.Waiting.V > 100 {
			t.Fatalf("got %+v, want counts of 0 to 100", l)
		}
		if l.CacheUsage.V < 0 || l.CacheUsage.V > 1 || l.HitRate.V < 0 || l.HitRate.V > 1 {
			t.Fatalf("got %+v, want fractions of 0 to 1", l)
		}
		seen[l.KVActive.V] = true
	}
	if len(seen) < 90 {
		t.Errorf("2000 loads had %d values, want nearly all of 101", len(seen))
	}
}

func TestRandomWalkValuesFitTogether(t *testing.T) {
	w := newTestRandomWalk(1)
	var busy, full, waiting int
	const samples = 20000
	for i := range samples {
		l := w.loadAt(time.Duration(i) * walkStep)
		switch {
		case l.ActiveSlots.V > l.TotalSlots.V, l.KVActive.V > l.KVTotal.V:
			t.Fatalf("more in use than the total: %+v", l)
		case l.CacheUsage.V != float64(l.KVActive.V)/float64(l.KVTotal.V):
			t.Fatalf("cache usage is not active by total: %+v", l)
		case l.Waiting.V > 0 && l.ActiveSlots.V != l.TotalSlots.V:
			t.Fatalf("requests wait although slots are free: %+v", l)
		case l.HitRate.V < 0 || l.HitRate.V > 1:
			t.Fatalf("hit rate: %+v", l)
		}
		if l.ActiveSlots.V > 0 {
			busy++
		}
		if l.ActiveSlots.V == l.TotalSlots.V {
			full++
		}
		if l.Waiting.V > 0 {
			waiting++
		}
	}
	if busy < samples*9/10 || full == 0 || full > samples/2 || waiting == 0 {
		t.Errorf("of %d samples: %d busy, %d full, %d waiting; want mostly busy, sometimes full and waiting", samples, busy, full, waiting)
	}
}

func TestRandomWalkIsSmooth(t *testing.T) {
	w := newTestRandomWalk(2)
	last := w.loadAt(0)
	var sum float64
	const samples = 2000
	for i := range samples {
		l := w.loadAt(time.Duration(i+1) * walkStep)
		step := math.Abs(l.CacheUsage.V - last.CacheUsage.V)
		if step > 0.25 {
			t.Errorf("sample %d: cache usage jumps from %v to %v", i, last.CacheUsage.V, l.CacheUsage.V)
		}
		sum += step
		last = l
	}
	if mean := sum / samples; mean > 0.03 || mean < 0.001 {
		t.Errorf("cache usage moves by %v a step, want between 0.001 and 0.03", mean)
	}
}

func TestRandomWalkIsIndependentOfCalls(t *testing.T) {
	often, seldom := newTestRandomWalk(3), newTestRandomWalk(3)
	for d := time.Duration(0); d < time.Minute; d += 10 * time.Millisecond {
		often.loadAt(d)
	}
	if diff := cmp.Diff(seldom.loadAt(time.Minute), often.loadAt(time.Minute)); diff != "" {
		t.Error(diff)
	}
}

func TestSeedMakesLoadsRepeatable(t *testing.T) {
	draw := func(seed uint64, n int, correlated bool) any {
		p := &process{Config: Config{Seed: seed, Correlated: correlated}}
		w := p.worker(n)
		if correlated {
			return newRandomWalk(p.newRand(2*n+1), time.Time{}).loadAt(time.Hour)
		}
		return w.load()
	}
	for _, correlated := range []bool{false, true} {
		first := draw(1, 0, correlated)
		if diff := cmp.Diff(first, draw(1, 0, correlated)); diff != "" {
			t.Errorf("same seed, same worker, correlated %v: %s", correlated, diff)
		}
		if cmp.Equal(first, draw(2, 0, correlated)) || cmp.Equal(first, draw(1, 1, correlated)) {
			t.Errorf("correlated %v: another seed or worker has the same load", correlated)
		}
	}
	a, _ := unregisteredHits((&process{Config: Config{Seed: 1}}).newRand(0))()
	b, _ := unregisteredHits((&process{Config: Config{Seed: 1}}).newRand(0))()
	if a != b {
		t.Errorf("same seed: got %+v and %+v", a, b)
	}
}

func TestHitsAreInRange(t *testing.T) {
	p := &process{Config: Config{Seed: 1, Correlated: true}, start: time.Now()}
	w := p.worker(0)
	workerHit := workerHits(p.newRand(2), w)
	if h, ok := workerHit(); ok {
		t.Errorf("got %+v of a worker that is not registered", h)
	}
	w.id.Store(1 << 62)
	unregisteredHit := unregisteredHits(p.newRand(0))
	first, _ := unregisteredHit()
	if first.worker < 1 || first.worker > 1000 {
		t.Errorf("got worker %d, want 1 to 1000", first.worker)
	}
	for range 2000 {
		h, _ := unregisteredHit()
		if h.worker != first.worker {
			t.Fatalf("worker changed from %d to %d", first.worker, h.worker)
		}
		own, ok := workerHit()
		if !ok || own.worker != 1<<62 {
			t.Fatalf("got %+v, %v", own, ok)
		}
		for _, h := range []hit{h, own} {
			if h.isl < 0 || h.isl > 100 || h.overlap < 0 || h.overlap > h.isl {
				t.Fatalf("got %+v, want 0 to 100 and overlap within", h)
			}
		}
	}
}
