package fleet

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// Snapshot is one consistent cut through the Fleet; it is the reader's own.
type Snapshot struct {
	Endpoints []EndpointState // sorted by component, then endpoint
	Workers   []WorkerState   // sorted by component, endpoint, then label
}

// WorkerState is one worker at one endpoint, as readers show it.
type WorkerState struct {
	Endpoint
	ID      WorkerID
	Label   string // ID as in the label worker_id
	Service string // NATS service name under which it answered; empty if it never did

	Listed  bool          // registered or answering there; else only its hits are left
	Up      bool          // answered the last poll, or publishes and has
	Load    Opt[Load]     // the sum over its ranks, and of fractions the mean
	LoadAge time.Duration // since Load was received
	Source  Source        // of Load
	Model   string        // as its model card has it; may be empty
	Ranks   []RankState   // by number; nil where there is only one
	Passes  Opt[Passes]   // absent before its first forward pass
	Hits    Opt[Hits]     // absent before its first event
	Timings Timings       // shown where Hits are
}

// RankState is what is shown of one data parallel rank of several.
type RankState struct {
	Number   uint32
	KVActive Opt[uint64] // KV cache blocks in use
	Requests Opt[uint64] // being served
}

// Passes are the sums over the forward passes of one worker.
type Passes struct {
	Count         uint64
	Missed        uint64 // that were not heard of, by the gaps in the ranks' counters
	PrefillTokens uint64
	DecodeTokens  uint64
	Seconds       Histogram

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
	Load         Opt[LoadStats] // absent where no worker has a load
	Requests     *Histograms    // nil before the first finished request
}

// LoadStats are over the KV cache blocks in use of the workers that show them.
type LoadStats struct {
	Mean float64
	Std  float64 // of the population
	Max  float64
}

// Imbalance is max/mean; absent when the mean is 0.
func (s LoadStats) Imbalance() Opt[float64] {
	if s.Mean == 0 {
		return Opt[float64]{}
	}
	return Some(s.Max / s.Mean)
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
	s := f.copy()
	slices.SortFunc(s.Workers, func(a, b WorkerState) int {
		return cmp.Or(compareEndpoints(a.Endpoint, b.Endpoint), strings.Compare(a.Label, b.Label))
	})
	slices.SortFunc(s.Endpoints, func(a, b EndpointState) int { return compareEndpoints(a.Endpoint, b.Endpoint) })
	s.aggregate()
	return s
}

// copy is the part of Snapshot that needs the lock.
func (f *Fleet) copy() Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.findLoadless()
	for _, e := range f.endpoints {
		e.state = EndpointState{Endpoint: e.Endpoint, HitEvents: e.events, Requests: e.requests.clone()}
	}
	s := Snapshot{Workers: make([]WorkerState, 0, len(f.workers))}
	for _, w := range f.workers {
		s.Workers = f.appendRows(s.Workers, w)
	}
	for _, e := range f.endpoints {
		// Before the registry is known, no workers would be a zero that means unknown.
		e.state.Counted = f.IsSynced() && (e.named || e.watched && !e.loadless && e.Endpoint != Unknown)
		if e.state.Counted || e.useful && (e.watched || e.Endpoint == Unknown) {
			s.Endpoints = append(s.Endpoints, e.state)
		}
	}
	return s
}

// findLoadless marks the endpoints that carry no load, as far as every worker there
// says: by its answers to polls, or by having its load at another endpoint.
func (f *Fleet) findLoadless() {
	for _, e := range f.endpoints {
		e.loadless, e.carries = false, false
	}
	for _, w := range f.workers {
		elsewhere := w.bears()
		for i := range w.seats {
			s := &w.seats[i]
			carries := s.carries(w)
			s.endpoint.carries = s.endpoint.carries || carries
			s.endpoint.loadless = s.endpoint.loadless || s.noLoad || elsewhere && !carries
		}
	}
	for _, e := range f.endpoints {
		e.loadless = e.loadless && !e.carries
	}
}

// bears reports whether it is known at which seat the worker's load is.
func (w *worker) bears() bool {
	return len(w.loose) > 0 || slices.ContainsFunc(w.seats, func(s seat) bool { return s.bears() > 0 })
}

// carries reports whether the worker's load is, or has been, at this seat.
func (s *seat) carries(w *worker) bool {
	return s.malformed || s.bears() > 0 || len(w.loose) > 0 && s == w.bearer(w.looseOf)
}

// appendRows appends what is shown of one worker and counts it on its endpoints.
func (f *Fleet) appendRows(rows []WorkerState, w *worker) []WorkerState {
	hits := Opt[Hits]{V: w.hits, OK: w.hits.Events > 0 && w.home != nil}
	timed := w.timings != Timings{} && w.home != nil
	elsewhere := w.bears()
	for i := range w.seats {
		s := &w.seats[i]
		if !s.endpoint.watched || s.noLoad || s.endpoint.loadless || elsewhere && !s.carries(w) {
			continue
		}
		row := WorkerState{Endpoint: s.endpoint.Endpoint, ID: w.id, Label: w.label, Service: s.service, Listed: true}
		f.fill(&row, w, s)
		if !f.count(&row, w, s) {
			continue
		}
		s.endpoint.useful = s.endpoint.useful || row.Load.OK
		if s.endpoint == w.home {
			row.Hits, row.Timings = hits, w.timings
			hits, timed = Opt[Hits]{}, false
		}
		rows = append(rows, row)
	}
	if hits.OK || timed {
		rows = append(rows, WorkerState{Endpoint: w.home.Endpoint, ID: w.id, Label: w.label, Hits: hits, Timings: w.timings})
	}
	return rows
}

// fill writes what the worker has reported at this seat into its row.
func (f *Fleet) fill(row *WorkerState, w *worker, s *seat) {
	row.Model = s.card.V.Model
	answered := s.answered && s.missed == 0
	row.Up = answered && !s.Publishes
	if s.mute {
		return
	}
	ranks := s.ranks
	if len(w.loose) > 0 && s == w.bearer(w.looseOf) {
		ranks = merged(ranks, w.loose)
	}
	if len(ranks) == 0 {
		return
	}
	row.Load = Some(loadOf(ranks, s.card.V))
	row.Source, row.LoadAge = f.newest(ranks)
	row.Passes = passesOf(ranks)
	row.Ranks = rankStates(ranks)
	row.Up = answered || !s.carried
}

// count puts the seat under one of the states of its endpoint and reports
// whether it is shown: a worker that is heard of without being registered is, if
// that is how it was started, and not, if its registration is gone.
func (f *Fleet) count(row *WorkerState, w *worker, s *seat) bool {
	state := &s.endpoint.state
	shown := s.registered || (w.id.IsStatic() || !f.registry) && (s.answered || len(s.ranks) > 0)
	switch {
	case s.malformed && shown:
		state.Malformed++
	case !s.registered && (shown || s.speaks(f.now)):
		state.Unregistered++
	case !s.registered:
	case row.Load.OK:
		state.Answering++
	default:
		state.Silent++
	}
	return shown
}

// aggregate computes the statistics of each endpoint from the very rows that are shown.
func (s *Snapshot) aggregate() {
	rows := s.Workers
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		for len(rows) > 0 && compareEndpoints(rows[0].Endpoint, e.Endpoint) < 0 {
			rows = rows[1:]
		}
		n := 0
		for n < len(rows) && rows[n].Endpoint == e.Endpoint {
			n++
		}
		e.Load = loadStats(rows[:n])
		rows = rows[n:]
	}
}

func loadStats(rows []WorkerState) Opt[LoadStats] {
	var n, sum, squares float64
	var stats LoadStats
	for i := range rows {
		if rows[i].ShowsBlocks() {
			active := float64(rows[i].Load.V.KVActive.V)
			n++
			sum += active
			stats.Max = max(stats.Max, active)
		}
	}
	if n == 0 {
		return Opt[LoadStats]{}
	}
	stats.Mean = sum / n
	for i := range rows {
		if rows[i].ShowsBlocks() {
			d := float64(rows[i].Load.V.KVActive.V) - stats.Mean
			squares += d * d
		}
	}
	stats.Std = math.Sqrt(squares / n)
	return Some(stats)
}
