package fleet

import "dynamo-metrics/internal/stats"

// Request is a frontend's trace record of one finished request (1.4 to 1.6).
type Request struct {
	Prefill, Decode Opt[uint64] // worker ids; equal if one worker does both

	ISLBlocks, OverlapBlocks Opt[uint64] // KV blocks, as in a hit-rate event

	// The times are in seconds.
	FirstToken Opt[float64] // time to the first token
	InterToken Opt[float64] // mean time between tokens
	Duration   Opt[float64] // total time
}

// Timings has the sums over the finished requests of one worker.
type Timings struct {
	FirstToken, InterToken, Duration Timing
}

// Timing is a sum of durations in seconds.
type Timing struct {
	Count uint64
	Sum   float64
}

// RecordRequest records one finished request. Its hits and the time to the first token count
// for the worker that computed the input, the other times for the worker that generated the
// output. Frontends of all namespaces publish on the same subject, so a request of workers
// that are not watched is counted as foreign.
func (f *Fleet) RecordRequest(r Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	foreign := false
	if r.Prefill.OK {
		if w := f.watchedWorker(r.Prefill.V); w == nil {
			foreign = true
		} else {
			f.recordPrefill(w, &r)
		}
	}
	if r.Decode.OK {
		if w := f.watchedWorker(r.Decode.V); w == nil {
			foreign = true
		} else {
			f.recordDecode(w, &r)
		}
	}
	if foreign {
		f.Stats.ForeignEvents.Add(1)
	}
}

// watchedWorker returns the worker with this id if it belongs to a watched endpoint and is
// registered, or if there is no registry. Otherwise it returns nil.
func (f *Fleet) watchedWorker(id uint64) *worker {
	w := f.workers.get(WorkerID{Lease: id})
	if w == nil || w.hitsEndpoint == nil || f.registry && !w.isRegistered() {
		return nil
	}
	return w
}

func (f *Fleet) recordPrefill(w *worker, r *Request) {
	if r.ISLBlocks.OK && r.OverlapBlocks.OK {
		f.addHit(w, r.ISLBlocks.V, r.OverlapBlocks.V)
	}
	if r.FirstToken.OK {
		w.timings.FirstToken.add(r.FirstToken.V)
		w.hitsEndpoint.histograms().FirstToken.Observe(r.FirstToken.V)
	}
}

func (f *Fleet) recordDecode(w *worker, r *Request) {
	if r.InterToken.OK {
		w.timings.InterToken.add(r.InterToken.V)
		w.hitsEndpoint.histograms().InterToken.Observe(r.InterToken.V)
	}
	if r.Duration.OK {
		w.timings.Duration.add(r.Duration.V)
		w.hitsEndpoint.histograms().Duration.Observe(r.Duration.V)
	}
}

func (t *Timing) add(seconds float64) {
	t.Count++
	t.Sum += seconds
}

// Histograms has the distributions over the finished requests of an endpoint.
type Histograms struct {
	FirstToken, InterToken, Duration stats.Histogram
}

// histograms returns the endpoint's histograms, and creates them for its first request.
func (e *endpoint) histograms() *Histograms {
	e.hadData = true
	if e.requests == nil {
		e.requests = &Histograms{stats.NewHistogram(stats.FirstTokenBounds), stats.NewHistogram(stats.InterTokenBounds), stats.NewHistogram(stats.RequestBounds)}
	}
	return e.requests
}

func (h *Histograms) clone() *Histograms {
	if h == nil {
		return nil
	}
	return &Histograms{h.FirstToken.Clone(), h.InterToken.Clone(), h.Duration.Clone()}
}
