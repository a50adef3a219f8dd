package fleet

import (
	"time"

	"dynamo-metrics/internal/stats"
)

// Snapshot is a consistent copy of the Fleet. It belongs to the caller.
type Snapshot struct {
	Endpoints []EndpointState // sorted by component, namespace, endpoint
	Workers   []WorkerState   // in the order of Endpoints, then by label

	// Unregistered has the workers that answer or publish although their registration is
	// deleted, in the same order. They are in no metric and no statistics.
	Unregistered []WorkerState

	Brief bool // set by a caller that does not need histograms: they are left out
}

// State is the state of a worker at an endpoint.
type State int

// The states. A row with the zero State has only the hits of an id, and is not a worker.
const (
	StateAnswering    State = iota + 1 // registered, with a load
	StateSilent                        // registered, no load
	StateUnregistered                  // answers without a registration
	StateMalformed                     // sends replies that cannot be decoded
)

// String returns the value of the label state.
func (s State) String() string {
	return [...]string{"", "answering", "silent", "unregistered", "malformed"}[s]
}

// WorkerState is the state of one worker at one endpoint.
type WorkerState struct {
	Endpoint
	ID      WorkerID
	Label   string // ID as in the label worker_id
	Service string // NATS service name of its replies; empty if it has never answered

	State     State
	Listed    bool          // registered or answering there; if false, only its hits are left
	Publishes bool          // it publishes its load as events whenever that changes
	Up        bool          // it answered the last poll, or publishes and has done so
	Load      Opt[Load]     // counts are sums over its ranks, fractions are means
	LoadAge   time.Duration // time since Load was received
	Source    Source        // of Load
	Model     string        // from its model card; may be empty
	Ranks     []RankState   // sorted by number; nil if there is only one
	Queues    Queues        // sums over its ranks
	Passes    Opt[Passes]   // absent before its first forward pass
	Hits      Opt[Hits]     // absent before its first event
	Timings   Timings       // shown where Hits are
}

// RankState is the state of one data parallel rank of several.
type RankState struct {
	Number  uint32
	Load    Load // completed from the model card
	LoadAge time.Duration
	Source  Source
	PassAge Opt[time.Duration] // time since its last forward pass event
}

// Passes has the sums over the forward passes of one worker.
type Passes struct {
	Count         uint64
	Missed        uint64 // passes that were not received, by the gaps in the ranks' counters
	PrefillTokens uint64
	DecodeTokens  uint64
	Seconds       stats.Histogram

	Age time.Duration // time since the last forward pass event

	// The sums over the last pass of each rank.
	QueuedTokens      uint64 // prefill tokens of waiting requests
	ScheduledKVTokens uint64 // tokens of running requests in the KV cache
}

// EndpointState is the state of a watched endpoint as a whole.
type EndpointState struct {
	Endpoint
	Counted      bool // it has load, or may have: its workers are counted
	Answering    int  // registered, with a load
	Silent       int  // registered, no load
	Unregistered int  // answer without being registered
	Malformed    int  // send replies that cannot be decoded
	HitEvents    uint64
	Blocks       Spread      // of KV cache blocks in use, over the workers that show them
	Usage        Spread      // of CacheUsage, over the workers that show it
	Requests     *Histograms // nil before the first finished request

	Rows int // the number of its rows in Workers
}

// ShowsBlocks reports whether both KVActive and KVTotal are known. Dashboards divide one by
// the other, so one of them is never shown without the other.
func (w *WorkerState) ShowsBlocks() bool {
	return w.Load.OK && w.Load.V.KVActive.OK && w.Load.V.KVTotal.OK
}

// ShowsSlots reports whether both ActiveSlots and TotalSlots are known, as ShowsBlocks does for
// blocks.
func (w *WorkerState) ShowsSlots() bool {
	return w.Load.OK && w.Load.V.ActiveSlots.OK && w.Load.V.TotalSlots.OK
}

// Snapshot returns a copy of the Fleet.
func (f *Fleet) Snapshot() Snapshot {
	var s Snapshot
	f.SnapshotInto(&s)
	return s
}

// SnapshotInto overwrites s with a new Snapshot and reuses its memory.
func (f *Fleet) SnapshotInto(s *Snapshot) {
	f.copyInto(s)
	s.aggregate()
}

// AcquireSnapshot returns a Snapshot that reuses the memory of one that was released. It is for
// callers that need Snapshots often, and each only for a short time.
func (f *Fleet) AcquireSnapshot(brief bool) *Snapshot {
	s, _ := f.snapshots.Get().(*Snapshot)
	if s == nil {
		s = new(Snapshot)
	}
	s.Brief = brief
	f.SnapshotInto(s)
	return s
}

// ReleaseSnapshot returns s to the pool of AcquireSnapshot. The caller may keep the strings of
// s, but nothing else.
func (f *Fleet) ReleaseSnapshot(s *Snapshot) { f.snapshots.Put(s) }

// copyInto is the part of Snapshot that needs the lock. It copies everything. Copy-on-write
// would move the cost of copying to the events.
func (f *Fleet) copyInto(s *Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sortEndpoints()
	f.locateLoads()
	s.Endpoints, s.Workers, s.Unregistered = s.Endpoints[:0], s.Workers[:0], s.Unregistered[:0]
	for _, e := range f.sorted {
		first, unregistered := len(s.Workers), len(s.Unregistered)
		e.state = EndpointState{Endpoint: e.Endpoint, HitEvents: e.hitEvents}
		for _, w := range e.rows {
			f.appendRow(s, w, e)
		}
		// Before the first Sync the number of workers is unknown, and not zero.
		e.state.Counted = f.IsSynced() && (e.named || e.watched && (e.loadExpected || !e.loadNotExpected) && e.Endpoint != f.unknown)
		if e.state.Counted || e.hadData && (e.watched || e.Endpoint == f.unknown) {
			e.state.Rows = len(s.Workers) - first
			if !s.Brief {
				e.state.Requests = e.requests.clone()
			}
			s.Endpoints = append(s.Endpoints, e.state)
		} else {
			s.Workers, s.Unregistered = s.Workers[:first], s.Unregistered[:unregistered]
		}
	}
}

// locateLoads decides at which endpoint the load of each worker is, and which endpoints have
// no load.
func (f *Fleet) locateLoads() {
	for _, e := range f.endpoints {
		e.hasLoad, e.reportsNoLoad, e.loadElsewhere, e.loadExpected, e.loadNotExpected = false, false, false, false, false
	}
	for w := range f.workers.all() {
		located := w.hasLocatedLoad()
		w.loadLocated = located || w.isRouter()
		unattributed := w.unattributedAttachment()
		for i := range w.attachments {
			a := &w.attachments[i]
			a.showsUnattributed = a == unattributed
			a.hasLoad = a.malformed || a.loadCertainty() > 0 || a.showsUnattributed
			a.endpoint.hasLoad = a.endpoint.hasLoad || a.hasLoad
			a.endpoint.reportsNoLoad = a.endpoint.reportsNoLoad || a.noLoad
			a.endpoint.loadElsewhere = a.endpoint.loadElsewhere || located && !a.hasLoad
		}
	}
}

// expectsNoLoad reports whether no load of the worker is expected at this attachment: its poll
// replies say so, its load is at another endpoint, or it is a router. For a worker that has
// reported nothing yet the other workers of the endpoint decide: their replies say that the
// endpoint has no load, or their load is at another endpoint of this worker.
func (w *worker) expectsNoLoad(a *attachment) bool {
	e := a.endpoint
	return a.noLoad || w.loadLocated && !a.hasLoad || !e.hasLoad && (e.reportsNoLoad || e.loadElsewhere && w.isAtLoadEndpoint())
}

// isAtLoadEndpoint reports whether the worker is at an endpoint with load.
func (w *worker) isAtLoadEndpoint() bool {
	for i := range w.attachments { // not by value: an attachment is large
		if w.attachments[i].endpoint.hasLoad {
			return true
		}
	}
	return false
}

// hasLocatedLoad reports whether it is known at which attachment the worker's load is.
func (w *worker) hasLocatedLoad() bool {
	if len(w.unattributed) > 0 {
		return true
	}
	for i := range w.attachments { // not by value: an attachment is large
		if w.attachments[i].loadCertainty() > 0 {
			return true
		}
	}
	return false
}

// carriesLoadOf reports whether the worker's load is, or was, at this attachment.
func (a *attachment) carriesLoadOf(w *worker) bool {
	return a.malformed || a.loadCertainty() > 0 || a == w.unattributedAttachment()
}

// unattributedAttachment returns the attachment that shows the loads of events without an
// endpoint. It returns nil if there are no such loads, or if no attachment fits.
func (w *worker) unattributedAttachment() *attachment {
	if len(w.unattributed) == 0 {
		return nil
	}
	return w.loadAttachment(w.unattributedComponent)
}

// appendRow appends the row of one worker at one endpoint, if it has one, and counts the worker
// in the endpoint's state.
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

// appendEmptyRow appends an empty row, and reuses the memory of the slices of an earlier one.
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

// fillRow writes what the worker has reported at the endpoint into its row, counts the worker
// in the endpoint's state, and reports whether the row is shown.
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

// ranksAt returns the ranks that are shown at the worker's attachment.
func (w *worker) ranksAt(a *attachment) []rank {
	if a == w.unattributedAttachment() {
		return mergeRanks(a.ranks, w.unattributed)
	}
	return a.ranks
}

// fillLoad writes what the ranks have reported into the worker's row.
func (f *Fleet) fillLoad(row *WorkerState, ranks []rank, a *attachment, brief bool) {
	row.Load = Some(loadOf(ranks, a.card.V))
	row.Queues = queuesOf(ranks)
	row.Source, row.LoadAge = f.loadSource(ranks, a.card.V)
	f.sumPasses(&row.Passes, ranks, a.earlierPasses, brief)
	row.Ranks = f.appendRankStates(row.Ranks, ranks, a.card.V)
}

// countState decides the state of the worker at the attachment, counts it in the endpoint's
// state, and reports whether the row is shown.
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

// aggregate computes the statistics of each endpoint from the rows that are shown.
func (s *Snapshot) aggregate() {
	rows := s.Workers
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		e.Blocks, e.Usage = spreadOf(rows[:e.Rows], shownBlocks), spreadOf(rows[:e.Rows], cacheUsage)
		rows = rows[e.Rows:]
	}
}
