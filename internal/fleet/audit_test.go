package fleet

import (
	"maps"
	"math"
	"slices"
	"testing"
	"time"
)

// audit recounts everything the Fleet keeps count of, from the workers alone.
func audit(t *testing.T, f *Fleet) {
	t.Helper()
	f.mu.Lock()
	auditWorkers(t, f)
	auditEndpoints(t, f)
	auditPoll(t, f)
	f.mu.Unlock()
	auditSnapshot(t, f.Snapshot())
	if t.Failed() {
		t.FailNow() // one broken book breaks many
	}
}

func auditWorkers(t *testing.T, f *Fleet) {
	t.Helper()
	strangers := make(map[WorkerID]*worker)
	for w := range f.workers.all() {
		if !w.listed() {
			strangers[w.id] = w
		}
		if w.stranger == w.listed() {
			t.Errorf("worker %s: stranger is %v, listed %v", w.label, w.stranger, w.listed())
		}
		auditWorker(t, f, w)
	}
	if f.workers.len() > f.limit {
		t.Errorf("%d workers are tracked, above the limit %d", f.workers.len(), f.limit)
	}
	if !maps.Equal(f.strangers, strangers) {
		t.Errorf("strangers = %d workers, recounted %d", len(f.strangers), len(strangers))
	}
}

func auditWorker(t *testing.T, f *Fleet, w *worker) {
	t.Helper()
	if f.workers.of(w.id) != w || w.label != w.id.String() {
		t.Errorf("worker %s stands under another id", w.label)
	}
	if len(w.seats) == 0 && len(w.loose) == 0 && (w.hits.Events == 0 || w.home == nil) {
		t.Errorf("worker %s has nothing to be remembered for", w.label)
	}
	auditRanks(t, w, w.loose, false)
	seen := make(map[Endpoint]bool)
	for _, s := range w.seats {
		if seen[s.endpoint.Endpoint] {
			t.Errorf("worker %s sits twice at %s", w.label, s.endpoint)
		}
		seen[s.endpoint.Endpoint] = true
		if !s.registered && !s.answered && !s.card.OK && len(s.ranks) == 0 {
			t.Errorf("worker %s sits at %s for nothing", w.label, s.endpoint)
		}
		auditRanks(t, w, s.ranks, s.registered && s.endpoint.watched)
		for _, r := range s.ranks {
			if r.load.OK && r.source == FromStats && (s.noLoad || s.malformed || !s.answered) {
				t.Errorf("worker %s at %s has a load that it did not report", w.label, s.endpoint)
			}
		}
	}
}

// auditRanks checks that ranks are in order, that each is there for something, and that
// only where pages are booked something of them is known.
func auditRanks(t *testing.T, w *worker, ranks []rank, pages bool) {
	t.Helper()
	for i, r := range ranks {
		if i > 0 && ranks[i-1].number >= r.number || !r.load.OK && r.passes == nil && r.scraped == nil {
			t.Errorf("worker %s has ranks %+v", w.label, ranks)
		}
		if r.scraped != nil && (!pages || r.scraped.load == Load{}) {
			t.Errorf("worker %s has scraped %+v where pages are booked: %v", w.label, r.scraped, pages)
		}
	}
}

func auditEndpoints(t *testing.T, f *Fleet) {
	t.Helper()
	refs, here, speaking := make(map[*endpoint]int), make(map[*endpoint]int), make(map[*endpoint]int)
	for w := range f.workers.all() {
		for _, s := range w.seats {
			refs[s.endpoint]++
			if s.registered {
				here[s.endpoint]++
			}
			if s.registered && s.Publishes {
				speaking[s.endpoint]++
			}
		}
		if w.home != nil {
			refs[w.home]++
		}
	}
	for e, n := range refs {
		if f.endpoints[e.Endpoint] != e {
			t.Errorf("endpoint %s has %d refs and no record", e, n)
		}
	}
	for key, e := range f.endpoints {
		if e.refs != refs[e] || e.Endpoint != key || e.watched != f.target.Covers(key) {
			t.Errorf("endpoint %s: refs = %d, recounted %d; watched %v", key, e.refs, refs[e], e.watched)
		}
		if e.here != here[e] || e.speaking != speaking[e] {
			t.Errorf("endpoint %s: %d registered, %d of them publish; recounted %d and %d", key, e.here, e.speaking, here[e], speaking[e])
		}
		lingers := e.useful && f.swept.Sub(e.lastSeen) < retention
		if e.refs == 0 && !e.named && !lingers {
			t.Errorf("endpoint %s is kept for nothing, %s after its last worker", key, f.now.Sub(e.lastSeen))
		}
	}
}

func auditPoll(t *testing.T, f *Fleet) {
	t.Helper()
	asked, awaited, answering, heard := 0, 0, 0, 0
	for w := range f.workers.all() {
		for i, s := range w.seats {
			if s.awaited {
				asked++
				if s.arrived != f.poll {
					awaited++
				}
			}
			if s.answered {
				answering++
				if s.poll == f.poll {
					heard++
				}
			}
			if !f.reenrolled && s.awaited != f.awaits(w, i) {
				t.Errorf("worker %s at %s: awaited %v", w.label, s.endpoint.Endpoint, s.awaited)
			}
		}
	}
	if !f.reenrolled && f.asked != asked {
		t.Errorf("%d seats are asked, recounted %d", f.asked, asked)
	}
	if f.answering != answering || f.heard != heard {
		t.Errorf("%d seats answer, %d of them the poll; recounted %d and %d", f.answering, f.heard, answering, heard)
	}
	if f.expected == 0 && f.awaiting == 0 {
		return // no poll runs
	}
	if f.awaiting != awaited || f.awaiting > f.expected {
		t.Errorf("poll awaits %d of %d answers, recounted %d", f.awaiting, f.expected, awaited)
	}
}

// auditExpiry checks what holds whenever the clock has just been advanced.
func auditExpiry(t *testing.T, f *Fleet) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.workers.all() {
		if len(w.seats) == 0 && len(w.loose) == 0 && f.now.Sub(w.lastHit) >= retention {
			t.Fatalf("worker %s should have expired: its last hit was %s ago", w.label, f.now.Sub(w.lastHit))
		}
	}
}

// auditSnapshot checks what holds for every page, whatever the Fleet went through.
func auditSnapshot(t *testing.T, s Snapshot) {
	t.Helper()
	if !slices.IsSortedFunc(s.Endpoints, func(a, b EndpointState) int { return compareEndpoints(a.Endpoint, b.Endpoint) }) {
		t.Errorf("endpoints are not sorted: %v", s.Endpoints)
	}
	endpoints := make(map[Endpoint]EndpointState)
	for _, e := range s.Endpoints {
		endpoints[e.Endpoint] = e
	}
	if len(endpoints) != len(s.Endpoints) {
		t.Errorf("an endpoint is shown twice: %v", s.Endpoints)
	}
	for i, w := range s.Workers {
		if i > 0 && compareEndpoints(s.Workers[i-1].Endpoint, w.Endpoint) == 0 && s.Workers[i-1].Label >= w.Label {
			t.Errorf("workers %s and %s are not in order, or one", s.Workers[i-1].Label, w.Label)
		}
		if w.Load.OK && !w.Listed || w.Up && !w.Listed || w.LoadAge < 0 || w.LoadAge > 1000*time.Hour {
			t.Errorf("worker is shown as %+v", w)
		}
	}
	for e, state := range endpoints {
		auditStats(t, s, e, state)
	}
}

// auditStats recomputes an endpoint's statistics from the rows that are shown.
func auditStats(t *testing.T, s Snapshot, e Endpoint, state EndpointState) {
	t.Helper()
	var blocks []float64
	for _, w := range s.Workers {
		if w.Endpoint == e && w.ShowsBlocks() {
			blocks = append(blocks, float64(w.Load.V.KVActive.V))
		}
	}
	if state.Load.OK != (len(blocks) > 0) {
		t.Errorf("%s has statistics: %v, over %d workers", e, state.Load.OK, len(blocks))
	}
	if len(blocks) == 0 {
		return
	}
	sum := 0.0
	for _, b := range blocks {
		sum += b
	}
	mean := sum / float64(len(blocks))
	l := state.Load.V
	if math.Abs(l.Mean-mean) > 1e-9*mean || l.Max != slices.Max(blocks) || math.IsNaN(l.Std) || l.Std < 0 {
		t.Errorf("%s: load %+v over %v", e, l, blocks)
	}
	if r := l.Imbalance(); r.OK != (mean != 0) || math.IsNaN(r.V) || math.IsInf(r.V, 0) {
		t.Errorf("%s: imbalance %+v with mean %v", e, r, mean)
	}
}
