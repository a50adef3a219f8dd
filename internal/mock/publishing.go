package mock

import (
	"bytes"
	"context"
	"time"

	"dynamo-metrics/internal/fleet"

	"golang.org/x/sync/errgroup"
)

const (
	samplePeriod = 250 * time.Millisecond // between two looks at the load: as often as a walk takes a step
	idlePeriod   = time.Second            // between two passes that were none
)

// speak says what a worker from 0.6 on has to say, until ctx ends.
func (w *worker) publishEvents(ctx context.Context, o *publishers) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { o.serve(ctx); return nil })
	if o.load != nil {
		g.Go(func() error { return every(ctx, samplePeriod, w.loadSender(o)) })
	}
	if o.hit != nil {
		g.Go(func() error { return every(ctx, w.EventInterval, w.hitSender(o.hit)) })
	}
	return g.Wait()
}

// speaker publishes the load if it has changed since it was called before, and the
// passes of the model.
func (w *worker) loadSender(o *publishers) func() error {
	id := w.id.Load()
	var last []byte
	var passes passGenerator
	return func() error {
		l := w.load()
		event, known := w.release.events.load(id, l)
		if known && !bytes.Equal(event, last) {
			last = event
			if err := o.load.send(event); err != nil {
				return err
			}
		}
		p, due := passes.next(l)
		if o.pass == nil || !due {
			return nil
		}
		return o.pass.send(encodeForwardPass(id, p))
	}
}

// tracer publishes what became of one request.
func (w *worker) hitSender(p *publisher) func() error {
	return func() error {
		h, ok := w.hits()
		if !ok {
			return nil
		}
		return p.send(w.release.events.hit(h))
	}
}

// passes are those of a model. While it has requests there is one at each look, though
// real ones are far more frequent.
type passGenerator struct {
	counter   uint64
	sinceLast time.Duration // since the last one
}

// next is the pass that is due, if one is. How many requests it has is exactly what
// the load says, all else is made up.
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
