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

	Listed  bool // registered or answering there; else only its hits are left
	Up      bool // answered the last poll
	Load    Opt[Load]
	LoadAge time.Duration // since Load was received
	Hits    Opt[Hits]     // absent before its first event
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
		e.state = EndpointState{Endpoint: e.Endpoint, HitEvents: e.events}
	}
	s := Snapshot{Workers: make([]WorkerState, 0, len(f.workers))}
	for _, w := range f.workers {
		s.Workers = f.appendRows(s.Workers, w)
	}
	for _, e := range f.endpoints {
		// Before the registry is known, no workers would be a zero that means unknown.
		e.state.Counted = f.knows() && (e.named || e.watched && !e.loadless && e.Endpoint != Unknown)
		if e.state.Counted || e.useful && (e.watched || e.Endpoint == Unknown) {
			s.Endpoints = append(s.Endpoints, e.state)
		}
	}
	return s
}

// findLoadless marks the endpoints of which every worker that answers says that
// they carry no load.
func (f *Fleet) findLoadless() {
	for _, e := range f.endpoints {
		e.loadless, e.carries = false, false
	}
	for _, w := range f.workers {
		for i := range w.seats {
			s := &w.seats[i]
			s.endpoint.loadless = s.endpoint.loadless || s.noLoad
			s.endpoint.carries = s.endpoint.carries || s.load.OK || s.malformed
		}
	}
	for _, e := range f.endpoints {
		e.loadless = e.loadless && !e.carries
	}
}

// appendRows appends what is shown of one worker and counts it on its endpoints.
func (f *Fleet) appendRows(rows []WorkerState, w *worker) []WorkerState {
	hits := Opt[Hits]{V: w.hits, OK: w.hits.Events > 0 && w.home != nil}
	for i := range w.seats {
		s := &w.seats[i]
		if !s.endpoint.watched || s.noLoad || s.endpoint.loadless || !f.count(w, s) {
			continue
		}
		row := WorkerState{
			Endpoint: s.endpoint.Endpoint, ID: w.id, Label: w.label, Service: s.service,
			Listed: true, Up: s.answered && s.missed == 0, Load: s.load,
		}
		if s.load.OK {
			row.LoadAge = max(0, f.now.Sub(s.loadAt))
		}
		if s.endpoint == w.home {
			row.Hits, hits = hits, Opt[Hits]{}
		}
		rows = append(rows, row)
	}
	if hits.OK {
		rows = append(rows, WorkerState{Endpoint: w.home.Endpoint, ID: w.id, Label: w.label, Hits: hits})
	}
	return rows
}

// count puts the seat under one of the states of its endpoint and reports
// whether it is shown: a worker that answers without being registered is, if
// that is how it was started, and not, if its registration is gone.
func (f *Fleet) count(w *worker, s *seat) bool {
	state := &s.endpoint.state
	shown := s.registered || w.id.IsStatic() || !f.registry
	switch {
	case s.malformed && shown:
		state.Malformed++
	case !s.registered:
		state.Unregistered++
	case s.load.OK:
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
