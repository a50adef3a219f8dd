package fleet

import (
	"container/list"
	"maps"
	"math"
	"slices"
	"testing"
	"time"
)

// checkInvariants recounts everything that the Fleet counts, from its workers.
func checkInvariants(t *testing.T, f *Fleet) {
	t.Helper()
	f.mu.Lock()
	checkWorkers(t, f)
	checkEndpoints(t, f)
	checkPoll(t, f)
	f.mu.Unlock()
	checkSnapshot(t, f.Snapshot())
	if t.Failed() {
		t.FailNow() // one wrong count causes many more errors
	}
}

func checkWorkers(t *testing.T, f *Fleet) {
	t.Helper()
	unregistered, unregisteredAttachments, pending := make(map[*worker]bool), make(map[*worker]bool), make(map[*worker]bool)
	for w := range f.workers.all() {
		if !w.id.IsStatic() && !w.isListed() {
			unregistered[w] = true
		}
		if f.registry && !w.id.IsStatic() && slices.ContainsFunc(w.attachments, func(a attachment) bool { return !a.isListed() }) {
			unregisteredAttachments[w] = true
		}
		if w.pending != nil {
			pending[w] = true
		}
		checkWorker(t, f, w)
	}
	checkQueue(t, "unregistered workers", &f.unregisteredWorkers, unregistered)
	checkQueue(t, "unregistered attachments", &f.unregisteredAttachments, unregisteredAttachments)
	checkQueue(t, "pending workers", &f.pendingWorkers, pending)
	checkBounds(t, f)
}

func checkQueue(t *testing.T, what string, q *lruQueue, want map[*worker]bool) {
	t.Helper()
	got := make(map[*worker]bool)
	q.each(func(w *worker) { got[w] = true })
	if q.workers.Len() != len(got) || !maps.Equal(got, want) {
		t.Errorf("%s = %d workers, recounted %d", what, len(got), len(want))
	}
}

// checkBounds recounts the footprints, and compares them with the bounds.
func checkBounds(t *testing.T, f *Fleet) {
	t.Helper()
	var all footprint
	for w := range f.workers.all() {
		h := footprint{attachments: int32(len(w.attachments))}
		registering := f.registry && !w.id.IsStatic()
		add := func(n int, has bool) {
			if registering && !has {
				h.unregisteredRanks += int32(n)
			} else {
				h.ranks += int32(n)
			}
		}
		for _, a := range w.attachments {
			if !a.registered && !a.card.OK {
				h.unregisteredAttachments++
			}
			add(len(a.ranks), a.registered || a.card.OK)
		}
		add(len(w.unattributed), w.isListed())
		if w.pending != nil {
			add(len(w.pending.ranks), false)
		}
		h.extraRanks = max(0, h.ranks-1)
		if w.footprint != h {
			t.Errorf("worker %s has footprint %+v, recounted %+v", w.label, w.footprint, h)
		}
		all.attachments += h.attachments
		all.unregisteredAttachments += h.unregisteredAttachments
		all.ranks += h.ranks
		all.extraRanks += h.extraRanks
		all.unregisteredRanks += h.unregisteredRanks
	}
	if f.footprint != all {
		t.Errorf("all workers have footprint %+v, recounted %+v", f.footprint, all)
	}
	for what, of := range map[string][2]int{
		"workers":                  {f.workers.len(), f.workerLimit},
		"attachments":              {int(all.attachments), int(f.bounds.attachments)},
		"unregistered attachments": {int(all.unregisteredAttachments), int(f.bounds.unregisteredAttachments)},
		"extra ranks":              {int(all.extraRanks), int(f.bounds.extraRanks)},
		"unregistered ranks":       {int(all.unregisteredRanks), int(f.bounds.unregisteredRanks)},
		"endpoints":                {f.countedEndpoints(), f.bounds.endpoints},
		"empty endpoints":          {min(f.emptyEndpoints.Len(), f.countedEndpoints()), f.bounds.endpoints},
	} {
		if of[0] > of[1] {
			t.Errorf("%d %s, above the limit %d", of[0], what, of[1])
		}
	}
}

func checkWorker(t *testing.T, f *Fleet, w *worker) {
	t.Helper()
	if f.workers.get(w.id) != w || w.label != w.id.String() {
		t.Errorf("worker %s is indexed under another id", w.label)
	}
	if len(w.attachments) == 0 && len(w.unattributed) == 0 && w.pending == nil && (w.hits.Events == 0 || w.hitsEndpoint == nil) {
		t.Errorf("worker %s is empty", w.label)
	}
	if w.hitsEndpoint != nil && !w.hitsEndpoint.exempt && w.hits.Events == 0 && len(w.attachments) == 0 {
		t.Errorf("worker %s keeps endpoint %s without need", w.label, w.hitsEndpoint)
	}
	checkRanks(t, w, w.unattributed, false)
	if w.pending != nil {
		checkRanks(t, w, w.pending.ranks, false)
		if len(w.pending.ranks) == 0 || w.attachmentAt(w.pending.endpoint) != nil || !f.registry {
			t.Errorf("%d ranks of worker %s are pending for %s", len(w.pending.ranks), w.label, w.pending.endpoint)
		}
	}
	seen := make(map[Endpoint]bool)
	for _, a := range w.attachments {
		if seen[a.endpoint.Endpoint] {
			t.Errorf("worker %s has two attachments to %s", w.label, a.endpoint)
		}
		seen[a.endpoint.Endpoint] = true
		if !a.registered && !a.answered && !a.card.OK && len(a.ranks) == 0 {
			t.Errorf("worker %s has an empty attachment to %s", w.label, a.endpoint)
		}
		if a.registered != (a.keys.effective != 0) || a.card.OK != (a.cardKeys.effective != 0) {
			t.Errorf("worker %s at %s: registered %v, has a card %v, keys %x and %x", w.label, a.endpoint, a.registered, a.card.OK, a.keys.effective, a.cardKeys.effective)
		}
		checkRanks(t, w, a.ranks, a.registered && a.endpoint.watched)
		for _, r := range a.ranks {
			if r.load.OK && r.source == FromStats && (a.noLoad || a.malformed || !a.answered) {
				t.Errorf("worker %s at %s has a load that it did not report", w.label, a.endpoint)
			}
		}
	}
}

// checkRanks checks that ranks are sorted, that none is empty, and that ranks have scraped
// values only where those can be shown.
func checkRanks(t *testing.T, w *worker, ranks []rank, scrapedShown bool) {
	t.Helper()
	for i, r := range ranks {
		if i > 0 && ranks[i-1].number >= r.number || !r.load.OK && r.passes == nil && r.scraped == nil {
			t.Errorf("worker %s has ranks %+v", w.label, ranks)
		}
		if r.scraped != nil && (!scrapedShown || r.scraped.load == Load{}) {
			t.Errorf("worker %s has scraped values %+v, want any: %v", w.label, r.scraped, scrapedShown)
		}
	}
}

func checkEndpoints(t *testing.T, f *Fleet) {
	t.Helper()
	type count struct{ here, listed, static int }
	members, counts := make(map[*endpoint]map[*worker]int8), make(map[*endpoint]count)
	join := func(e *endpoint, w *worker) {
		if members[e] == nil {
			members[e] = make(map[*worker]int8)
		}
		members[e][w]++
	}
	one := map[bool]int{true: 1}
	for w := range f.workers.all() {
		for _, a := range w.attachments {
			join(a.endpoint, w)
			c := counts[a.endpoint]
			counts[a.endpoint] = count{c.here + one[a.registered], c.listed + one[a.registered || a.card.OK], c.static + one[w.id.IsStatic()]}
		}
		if w.hitsEndpoint != nil {
			join(w.hitsEndpoint, w)
		}
	}
	for e := range members {
		if f.endpoints[e.Endpoint] != e {
			t.Errorf("endpoint %s has members, but is not known", e)
		}
	}
	var byStatus [numStatuses]int
	for key, e := range f.endpoints {
		if !maps.Equal(e.members, members[e]) || e.Endpoint != key || e.watched != f.target.Covers(key) {
			t.Errorf("endpoint %s: %d members, recounted %d; watched %v", key, len(e.members), len(members[e]), e.watched)
		}
		if c := (count{e.registeredCount, e.listedCount, e.staticCount}); c != counts[e] {
			t.Errorf("endpoint %s: counts %+v, recounted %+v", key, c, counts[e])
		}
		if e.status != e.computeStatus() {
			t.Errorf("endpoint %s has status %d, want %d", key, e.status, e.computeStatus())
		}
		byStatus[e.status]++
		kept := e.hadData && (e.hadWorker || e.exempt) && f.expiredAt.Sub(e.emptySince) < retention
		if len(e.members) == 0 && !e.named && !kept {
			t.Errorf("endpoint %s is kept without need, %s after its last worker", key, f.now.Sub(e.emptySince))
		}
		waits := map[endpointStatus]*list.List{statusEmpty: &f.emptyEndpoints, statusUnregistered: &f.unregisteredEndpoints}[e.status]
		if e.status == statusUnregistered && e.staticCount > 0 {
			waits = nil
		}
		if e.evictionQueue != waits || (e.evictionElem != nil) != (waits != nil) || e.evictionElem != nil && e.evictionElem.Value != any(e) {
			t.Errorf("endpoint %s with status %d is in the wrong queue", key, e.status)
		}
	}
	if f.statusCounts != byStatus {
		t.Errorf("endpoints by status: %v, recounted %v", f.statusCounts, byStatus)
	}
	if n := f.emptyEndpoints.Len() + f.unregisteredEndpoints.Len(); n > len(f.endpoints) {
		t.Errorf("%d of %d endpoints are candidates for eviction", n, len(f.endpoints))
	}
}

func checkPoll(t *testing.T, f *Fleet) {
	t.Helper()
	asked, awaited, answering, answered := 0, 0, 0, 0
	for w := range f.workers.all() {
		for i, a := range w.attachments {
			if a.pollTarget {
				asked++
				if a.donePoll != f.poll {
					awaited++
				}
			}
			if a.answered {
				answering++
				if a.lastPoll == f.poll {
					answered++
				}
			}
			if !f.pollTargetsStale && a.pollTarget != f.isPollTarget(w, i) {
				t.Errorf("worker %s at %s: awaited %v", w.label, a.endpoint.Endpoint, a.pollTarget)
			}
		}
	}
	if !f.pollTargetsStale && f.pollTargets != asked {
		t.Errorf("%d attachments are poll targets, recounted %d", f.pollTargets, asked)
	}
	if f.answeringCount != answering || f.answeredCount != answered {
		t.Errorf("%d attachments answer, %d of them the poll; recounted %d and %d", f.answeringCount, f.answeredCount, answering, answered)
	}
	if f.pollExpected == 0 && f.pollAwaiting == 0 {
		return // no poll is running
	}
	if f.pollAwaiting != awaited || f.pollAwaiting > f.pollExpected {
		t.Errorf("poll awaits %d of %d replies, recounted %d", f.pollAwaiting, f.pollExpected, awaited)
	}
}

// checkExpiry checks what must hold after each Advance.
func checkExpiry(t *testing.T, f *Fleet) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.workers.all() {
		if len(w.attachments) == 0 && len(w.unattributed) == 0 && f.now.Sub(w.lastHit) >= retention {
			t.Fatalf("worker %s should have expired: its last hit was %s ago", w.label, f.now.Sub(w.lastHit))
		}
	}
}

// checkSnapshot checks what must hold for every Snapshot.
func checkSnapshot(t *testing.T, s Snapshot) {
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
			t.Errorf("workers %s and %s are not sorted, or equal", s.Workers[i-1].Label, w.Label)
		}
		if w.Load.OK && !w.Listed || w.Up && !w.Listed || w.LoadAge < 0 || w.LoadAge > 1000*time.Hour {
			t.Errorf("worker is shown as %+v", w)
		}
	}
	for e, state := range endpoints {
		checkSpread(t, s, e, state)
	}
}

// checkSpread recomputes an endpoint's statistics from the rows that are shown.
func checkSpread(t *testing.T, s Snapshot, e Endpoint, state EndpointState) {
	t.Helper()
	var blocks []float64
	for _, w := range s.Workers {
		if w.Endpoint == e && w.ShowsBlocks() {
			blocks = append(blocks, float64(w.Load.V.KVActive.V))
		}
	}
	if state.Blocks.N != len(blocks) {
		t.Errorf("%s has a spread of %d blocks in use, want of %d", e, state.Blocks.N, len(blocks))
	}
	if len(blocks) == 0 {
		return
	}
	sum := 0.0
	for _, b := range blocks {
		sum += b
	}
	mean := sum / float64(len(blocks))
	l := state.Blocks
	if math.Abs(l.Mean-mean) > 1e-9*mean || l.Max != slices.Max(blocks) || math.IsNaN(l.Std) || l.Std < 0 {
		t.Errorf("%s: load %+v over %v", e, l, blocks)
	}
	if r := state.Blocks.Imbalance(); r.OK != (mean != 0) || math.IsNaN(r.V) || math.IsInf(r.V, 0) {
		t.Errorf("%s: imbalance %+v with mean %v", e, r, mean)
	}
}
