package fleet

import "dynamo-metrics/internal/stats"

// Request is what a frontend says of one finished request (1.4 to 1.6).
type Request struct {
	Prefill, Decode Opt[uint64] // the workers' ids; the same where one does both

	ISLBlocks, OverlapBlocks Opt[uint64] // as in a hit-rate event

	// In seconds.
	FirstToken Opt[float64] // until the first token
	InterToken Opt[float64] // mean between tokens
	Duration   Opt[float64] // in all
}

// Timings are the sums over the finished requests of one worker.
type Timings struct {
	FirstToken, InterToken, Duration Timing
}

// Timing is a sum of durations in seconds.
type Timing struct {
	Count uint64
	Sum   float64
}

// Serve books one finished request: hits and the time to the first token on the
// worker that computed the input, the rest on the one that made the output. Frontends
// of all namespaces publish together: what is of no worker of ours is foreign.
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

// ours is the worker of this id, if it is registered, or answers where nobody
// registers, and belongs to a watched endpoint; else nil.
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

// Histograms are those of the finished requests of an endpoint.
type Histograms struct {
	FirstToken, InterToken, Duration stats.Histogram
}

// histograms are the endpoint's, made with its first request.
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
