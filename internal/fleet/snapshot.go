package fleet

import (
	"time"

	"dynamo-metrics/internal/stats"
)

// Snapshot is one consistent cut through the Fleet; it is the reader's own.
type Snapshot struct {
	Endpoints []EndpointState // sorted by component, namespace, endpoint
	Workers   []WorkerState   // in the order of Endpoints, then by label

	// Unregistered are those that answer or publish though their registration is gone, in
	// the same order: no metric shows them, and no statistics count them.
	Unregistered []WorkerState

	Brief bool // set by a reader who has no use for histograms: they are left out
}

// State is what a worker counts as at an endpoint.
type State int

// The states. A row of the zero State is no worker: of an id only its hits are left.
const (
	StateAnswering    State = iota + 1 // registered, with a load
	StateSilent                        // registered, no load
	StateUnregistered                  // answers without being registered
	StateMalformed                     // answers what cannot be decoded
)

// String is the value of the label state.
func (s State) String() string {
	return [...]string{"", "answering", "silent", "unregistered", "malformed"}[s]
}

// WorkerState is one worker at one endpoint, as readers show it.
type WorkerState struct {
	Endpoint
	ID      WorkerID
	Label   string // ID as in the label worker_id
	Service string // NATS service name under which it answered; empty if it never did

	State     State
	Listed    bool          // registered or answering there; else only its hits are left
	Publishes bool          // its registration says that its loads come as events, when they change
	Up        bool          // answered the last poll, or publishes and has
	Load      Opt[Load]     // the sum over its ranks, and of fractions the mean
	LoadAge   time.Duration // since Load was received
	Source    Source        // of Load
	Model     string        // as its model card has it; may be empty
	Ranks     []RankState   // by number; nil where there is only one
	Queues    Queues        // sums over its ranks
	Passes    Opt[Passes]   // absent before its first forward pass
	Hits      Opt[Hits]     // absent before its first event
	Timings   Timings       // shown where Hits are
}

// RankState is what is shown of one data parallel rank of several.
type RankState struct {
	Number  uint32
	Load    Load // with what the model card adds
	LoadAge time.Duration
	Source  Source
	PassAge Opt[time.Duration] // since the last report of a forward pass
}

// Passes are the sums over the forward passes of one worker.
type Passes struct {
	Count         uint64
	Missed        uint64 // that were not heard of, by the gaps in the ranks' counters
	PrefillTokens uint64
	DecodeTokens  uint64
	Seconds       stats.Histogram

	Age time.Duration // since the last report of one

	// As of the last pass of each rank.
	QueuedTokens      uint64 // prefill tokens of requests that wait
	ScheduledKVTokens uint64 // in the KV cache, of requests that run
}

// EndpointState is what holds for a watched endpoint as a whole.
type EndpointState struct {
	Endpoint
	Counted      bool // it carries load, or may: its workers are counted
	Answering    int  // registered, with a load
	Silent       int  // registered, no load
	Unregistered int  // answer without being registered
	Malformed    int  // answer what cannot be decoded
	HitEvents    uint64
	Blocks       Spread      // of the KV cache blocks in use, over the workers that show them
	Usage        Spread      // of KV use, over the workers that show it
	Requests     *Histograms // nil before the first finished request

	Rows int // its rows of Workers, which stand in the order of Endpoints
}

// ShowsBlocks reports whether both halves of the pair of KV block gauges are
// known: dashboards divide one by the other, so one alone is never shown.
func (w *WorkerState) ShowsBlocks() bool {
	return w.Load.OK && w.Load.V.KVActive.OK && w.Load.V.KVTotal.OK
}

// ShowsSlots is the same for the pair of request slot gauges.
func (w *WorkerState) ShowsSlots() bool {
	return w.Load.OK && w.Load.V.ActiveSlots.OK && w.Load.V.TotalSlots.OK
}

// Snapshot copies what readers show.
func (f *Fleet) Snapshot() Snapshot {
	var s Snapshot
	f.SnapshotInto(&s)
	return s
}

// SnapshotInto is Snapshot into the memory of an earlier one, which must not be in
// use any more.
func (f *Fleet) SnapshotInto(s *Snapshot) {
	f.copyInto(s)
	s.aggregate()
}

// Borrow is SnapshotInto the memory of one that somebody has given back with Return:
// those who look again and again, each for a moment, share what it takes.
func (f *Fleet) AcquireSnapshot(brief bool) *Snapshot {
	s, _ := f.snapshots.Get().(*Snapshot)
	if s == nil {
		s = new(Snapshot)
	}
	s.Brief = brief
	f.SnapshotInto(s)
	return s
}

// Return gives a borrowed Snapshot back. Nothing of it may be used any more, but for
// the strings.
func (f *Fleet) ReleaseSnapshot(s *Snapshot) { f.snapshots.Put(s) }

// copy is the part of Snapshot that needs the lock. What it takes is copied there and
// not shared until written, since events would then have to copy.
func (f *Fleet) copyInto(s *Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sortEndpoints()
	f.locateLoads()
	s.Endpoints, s.Workers, s.Unregistered = s.Endpoints[:0], s.Workers[:0], s.Unregistered[:0]
	for _, e := range f.sorted {
		first, outside := len(s.Workers), len(s.Unregistered)
		e.state = EndpointState{Endpoint: e.Endpoint, HitEvents: e.hitEvents}
		for _, w := range e.rows {
			f.appendRow(s, w, e)
		}
		// Before the registry is known, no workers would be a zero that means unknown.
		e.state.Counted = f.IsSynced() && (e.named || e.watched && (e.loadExpected || !e.loadNotExpected) && e.Endpoint != f.unknown)
		if e.state.Counted || e.hadData && (e.watched || e.Endpoint == f.unknown) {
			e.state.Rows = len(s.Workers) - first
			if !s.Brief {
				e.state.Requests = e.requests.clone()
			}
			s.Endpoints = append(s.Endpoints, e.state)
		} else {
			s.Workers, s.Unregistered = s.Workers[:first], s.Unregistered[:outside]
		}
	}
}

// findLoadless works out where the load of each worker is, and which endpoints carry none.
func (f *Fleet) locateLoads() {
	for _, e := range f.endpoints {
		e.hasLoad, e.reportsNoLoad, e.loadElsewhere, e.loadExpected, e.loadNotExpected = false, false, false, false, false
	}
	for w := range f.workers.all() {
		hasLocated := w.hasLocatedLoad()
		w.loadLocated = hasLocated || w.isRouter()
		unattributed := w.unattributedAttachment()
		for i := range w.attachments {
			a := &w.attachments[i]
			a.showsUnattributed = a == unattributed
			a.hasLoad = a.malformed || a.loadCertainty() > 0 || a.showsUnattributed
			a.endpoint.hasLoad = a.endpoint.hasLoad || a.hasLoad
			a.endpoint.reportsNoLoad = a.endpoint.reportsNoLoad || a.noLoad
			a.endpoint.loadElsewhere = a.endpoint.loadElsewhere || hasLocated && !a.hasLoad
		}
	}
}

// isExcused reports whether no load is expected of the worker at this seat: it says so in its
// answers to polls, it has its load at another endpoint, or it is a router's. What other
// workers say of the endpoint counts, too, for one that has said nothing so far: that it
// carries no load, or that theirs is elsewhere, where this one is as well.
func (w *worker) expectsNoLoad(a *attachment) bool {
	e := a.endpoint
	return a.noLoad || w.loadLocated && !a.hasLoad || !e.hasLoad && (e.reportsNoLoad || e.loadElsewhere && w.isAtLoadEndpoint())
}

// isWhereLoadIs reports whether the worker is at an endpoint that carries load.
func (w *worker) isAtLoadEndpoint() bool {
	for i := range w.attachments { // not by value: a seat is large
		if w.attachments[i].endpoint.hasLoad {
			return true
		}
	}
	return false
}

// bears reports whether it is known at which seat the worker's load is.
func (w *worker) hasLocatedLoad() bool {
	if len(w.unattributed) > 0 {
		return true
	}
	for i := range w.attachments { // not by value: a seat is large
		if w.attachments[i].loadCertainty() > 0 {
			return true
		}
	}
	return false
}

// carries reports whether the worker's load is, or has been, at this seat.
func (a *attachment) carriesLoadOf(w *worker) bool {
	return a.malformed || a.loadCertainty() > 0 || a == w.unattributedAttachment()
}

// looseBearer is the seat where the loads are shown that name no endpoint; nil if there is
// none, or they are none.
func (w *worker) unattributedAttachment() *attachment {
	if len(w.unattributed) == 0 {
		return nil
	}
	return w.loadAttachment(w.unattributedComponent)
}

// appendRow appends what is shown of one worker at one endpoint, if anything is, and
// counts it there.
func (f *Fleet) appendRow(s *Snapshot, w *worker, e *endpoint) {
	row := appendEmptyRow(&s.Workers)
	row.Endpoint, row.ID, row.Label = e.Endpoint, w.id, w.label
	shown := f.fillRow(row, w, e, s.Brief)
	if !shown && row.State == StateUnregistered {
		s.Unregistered = append(s.Unregistered, *row)
	}
	if !shown {
		*row = WorkerState{Endpoint: row.Endpoint, ID: row.ID, Label: row.Label}
	}
	if e == w.hitsEndpoint {
		row.Hits = Opt[Hits]{V: w.hits, OK: w.hits.Events > 0}
		row.Timings = w.timings
		shown = shown || row.Hits.OK || row.Timings != Timings{}
	}
	if !shown {
		s.Workers = s.Workers[:len(s.Workers)-1]
	}
}

// extend makes the slice longer by one that is empty but for the memory of its slices.
func appendEmptyRow(rows *[]WorkerState) *WorkerState {
	n := len(*rows)
	if n == cap(*rows) {
		*rows = append(*rows, WorkerState{})
		return &(*rows)[n]
	}
	*rows = (*rows)[:n+1]
	row := &(*rows)[n]
	ranks, seconds := row.Ranks[:0], row.Passes.V.Seconds
	*row = WorkerState{Ranks: ranks}
	row.Passes.V.Seconds.Counts, row.Passes.V.Seconds.NativeCounts = seconds.Counts[:0], seconds.NativeCounts[:0]
	return row
}

// fill writes what the worker has reported at the endpoint into its row, counts it
// there, and reports whether it is to be shown.
func (f *Fleet) fillRow(row *WorkerState, w *worker, e *endpoint, brief bool) bool {
	a := w.attachmentTo(e)
	if a == nil || !e.watched {
		return false
	}
	if w.expectsNoLoad(a) {
		e.loadNotExpected = true
		return false
	}
	e.loadExpected = true
	row.Service, row.Model, row.Listed, row.Publishes = a.service, a.card.V.Model, true, a.Publishes
	answered := a.answered && a.missedPolls == 0
	row.Up = answered && !a.Publishes
	ranks := a.ranks
	if a.showsUnattributed {
		ranks = mergeRanks(ranks, w.unattributed)
	}
	if len(ranks) > 0 && !a.stale {
		f.fillLoad(row, ranks, a, brief)
		row.Up = answered || !a.reportedLoad
		e.hadData = true
	}
	return f.countState(row, w, a)
}

// ranksAt are the ranks that are shown at the worker's seat.
func (w *worker) ranksAt(a *attachment) []rank {
	if a == w.unattributedAttachment() {
		return mergeRanks(a.ranks, w.unattributed)
	}
	return a.ranks
}

// show writes what the ranks have reported into the worker's row.
func (f *Fleet) fillLoad(row *WorkerState, ranks []rank, a *attachment, brief bool) {
	row.Load = Some(loadOf(ranks, a.card.V))
	row.Queues = queuesOf(ranks)
	row.Source, row.LoadAge = f.loadSource(ranks, a.card.V)
	f.sumPasses(&row.Passes, ranks, a.earlierPasses, brief)
	row.Ranks = f.appendRankStates(row.Ranks, ranks, a.card.V)
}

// count puts the seat under one of the states of its endpoint and reports
// whether it is shown.
func (f *Fleet) countState(row *WorkerState, w *worker, a *attachment) bool {
	state := &a.endpoint.state
	shown := f.isPresent(w, a)
	switch {
	case a.malformed && shown:
		row.State = StateMalformed
		state.Malformed++
	case !a.registered && (shown || a.isActive(f.now)):
		row.State = StateUnregistered
		state.Unregistered++
	case !a.registered:
	case row.Load.OK:
		row.State = StateAnswering
		state.Answering++
	default:
		row.State = StateSilent
		state.Silent++
	}
	return shown
}

// aggregate computes the statistics of each endpoint from the very rows that are shown.
func (s *Snapshot) aggregate() {
	rows := s.Workers
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		e.Blocks, e.Usage = spreadOf(rows[:e.Rows], shownBlocks), spreadOf(rows[:e.Rows], cacheUsage)
		rows = rows[e.Rows:]
	}
}
