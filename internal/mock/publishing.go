package mock

import (
	"bytes"
	"context"
	"time"

	"dynamo-metrics/internal/fleet"

	"golang.org/x/sync/errgroup"
)

const (
	samplePeriod = 250 * time.Millisecond // between two samples of the load; equals walkStep
	idlePeriod   = time.Second            // between two idle reports
)

// publishEvents publishes the events of a worker from 0.6 on until ctx ends.
func (w *worker) publishEvents(ctx context.Context, ps *publishers) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { ps.serve(ctx); return nil })
	if ps.load != nil {
		g.Go(func() error { return every(ctx, samplePeriod, w.loadSender(ps)) })
	}
	if ps.hit != nil {
		g.Go(func() error { return every(ctx, w.EventInterval, w.hitSender(ps.hit)) })
	}
	return g.Wait()
}

// loadSender returns a function that publishes the load if it has changed since the last
// call, and a forward pass of the model if one is due.
func (w *worker) loadSender(ps *publishers) func() error {
	id := w.id.Load()
	var last []byte
	var passes passGenerator
	return func() error {
		l := w.load()
		event, known := w.release.events.load(id, l)
		if known && !bytes.Equal(event, last) {
			last = event
			if err := ps.load.send(event); err != nil {
				return err
			}
		}
		p, due := passes.next(l)
		if ps.pass == nil || !due {
			return nil
		}
		return ps.pass.send(encodeForwardPass(id, p))
	}
}

// hitSender returns a function that publishes one hit.
func (w *worker) hitSender(p *publisher) func() error {
	return func() error {
		h, ok := w.hits()
		if !ok {
			return nil
		}
		return p.send(w.release.events.hit(h))
	}
}

// passGenerator generates the forward passes of a model. While the model has requests, there is
// one pass in each samplePeriod. A real model makes far more.
type passGenerator struct {
	counter   uint64
	sinceLast time.Duration // time since the last pass
}

// next returns the pass that is due, if one is. It has the same number of requests as the
// load; its other values are made up.
func (p *passGenerator) next(l fleet.Load) (forwardPass, bool) {
	if !l.ActiveSlots.OK && !l.Waiting.OK {
		return forwardPass{}, false
	}
	busy := l.ActiveSlots.V > 0 || l.Waiting.V > 0
	p.sinceLast += samplePeriod
	if !busy && p.sinceLast < idlePeriod {
		return forwardPass{}, false
	}
	p.sinceLast = 0
	p.counter++
	if !busy {
		return forwardPass{counter: p.counter}, true
	}
	prefill, waiting := l.ActiveSlots.V/8, l.Waiting.V
	decode := l.ActiveSlots.V - prefill
	return forwardPass{
		counter:   p.counter,
		wallTime:  0.0125,
		scheduled: passRequests{prefill, 128 * prefill, 64 * prefill, decode, 512 * decode},
		queued:    passRequests{prefill: waiting, prefillTokens: 100 * waiting},
	}, true
}
