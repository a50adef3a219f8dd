package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"dynamo-metrics/internal/wire"
)

// A soak runs rounds of everything that could make the program grow. Workers register, answer
// polls, have hits, and leave. Hit-rate events name thousands of ids that belong to no worker, and
// other messages name thousands of made-up endpoints. Together they exceed the program's limits.
// Besides, there are permanent workers.
const (
	soakNamespace  = "bench-soak"
	soakMaxWorkers = 2000 // --max-workers
	soakPermanent  = 500  // workers that stay for the whole soak
	soakTransient  = 500  // workers that register and leave in each round
	soakForged     = 5000 // ids in each round that belong to no worker

	// The minimum of what a soak sends, however short it is.
	minForged    = 100_000
	minTransient = 10_000
	minSoak      = 10 * time.Second

	// firstForgedID is far from the ids of workers.
	firstForgedID = 1 << 40
)

// soakRun is the state of a running soak.
type soakRun struct {
	*environment
	m        *instance
	expected expectation
	begin    time.Time
	rounds   int
}

// soak runs a soak for at least this long.
func (s *environment) soak(ctx context.Context, length time.Duration) error {
	c, err := startFakeWorkers(ctx, s.nats, s.client, soakNamespace, soakPermanent)
	if err != nil {
		return err
	}
	defer c.leave()
	m, err := s.startMetrics(ctx, soakNamespace, "--max-workers", strconv.Itoa(soakMaxWorkers), "--poll-interval", "0.5")
	if err != nil {
		return err
	}
	defer m.terminate()
	k := soakRun{environment: s, m: m, expected: newExpectation(), begin: time.Now()}
	if err := k.waitForExpected(ctx, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := sampler{m: m}
	var sampling sync.WaitGroup
	sampling.Go(func() {
		if err := w.run(ctx); err != nil {
			cancel(err)
		}
	})
	err = k.run(ctx, length)
	if cause := context.Cause(ctx); cause != nil {
		err = cause // the driver's own error is only a consequence
	}
	cancel(nil)
	sampling.Wait()
	if err == nil {
		err = k.report(&w)
	}
	if err = cmp.Or(m.failure(), err); err != nil {
		return fmt.Errorf("soak, round %d: %w", k.rounds, err)
	}
	return nil
}

func (k *soakRun) run(ctx context.Context, length time.Duration) error {
	for time.Since(k.begin) < length || k.rounds*soakForged < minForged || k.rounds*soakTransient < minTransient {
		if err := k.runRound(ctx); err != nil {
			return err
		}
		k.rounds++
	}
	return nil
}

// runRound registers workers and removes them, and sends hits of all workers in between.
func (k *soakRun) runRound(ctx context.Context) error {
	first := soakPermanent + k.rounds*soakTransient
	c, err := registerFakeWorkers(ctx, k.client, soakNamespace, first, soakTransient)
	if err != nil {
		return err
	}
	defer c.leave() // the second call has no effect unless something fails before the first
	k.expected.registerWorkers(soakTransient)
	// The poll reply of a worker that the program does not know yet would be over the
	// limit, and be counted.
	if err := k.waitForRegistered(ctx, soakTransient); err != nil {
		return err
	}
	if err := c.answerPolls(k.nats); err != nil {
		return err
	}
	if err := k.waitForExpected(ctx, soakTransient); err != nil {
		return fmt.Errorf("after %d workers registered: %w", soakTransient, err)
	}
	if err := k.sendHits(first); err != nil {
		return err
	}
	if err := k.waitForExpected(ctx, soakTransient); err != nil {
		return fmt.Errorf("after hits of all workers: %w", err)
	}
	if err := k.sendMadeUpNames(ctx); err != nil {
		return err
	}
	if err := k.waitForExpected(ctx, soakTransient); err != nil {
		return fmt.Errorf("after messages with made-up endpoints: %w", err)
	}
	// If a reply arrives after its worker has left and been evicted, the program rejects
	// and counts it.
	c.stopAnswering()
	if err := k.waitForPolls(ctx, 2); err != nil {
		return err
	}
	c.leave()
	if err := k.waitForExpected(ctx, 0); err != nil {
		return fmt.Errorf("after %d workers left: %w", soakTransient, err)
	}
	return nil
}

// sendHits sends four hits of each permanent worker, one of each transient worker, and one
// of each of the round's forged ids.
func (k *soakRun) sendHits(first int) error {
	for i := range 4 * soakPermanent {
		if err := k.sendHit(workerID(i%soakPermanent), uint64(1+(i+k.rounds)%5)); err != nil {
			return err
		}
	}
	for i := range soakTransient {
		if err := k.sendHit(workerID(first+i), 3); err != nil {
			return err
		}
	}
	k.expected.recordForged(soakForged)
	for i := range soakForged {
		if err := k.publishHit(firstForgedID+uint64(k.rounds*soakForged+i), 2); err != nil {
			return err
		}
	}
	return k.nats.FlushTimeout(waitTimeout)
}

// sendHit sends a hit of a registered worker.
func (k *soakRun) sendHit(id, blocks uint64) error {
	k.expected.recordHit(id, blocks)
	return k.publishHit(id, blocks)
}

// publishHit publishes a hit-rate event with twice as much input as overlap.
func (k *soakRun) publishHit(id, blocks uint64) error {
	b := fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, id, 2*blocks, blocks)
	if err := k.nats.Publish(wire.HitRateSubject(soakNamespace), b); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// waitForExpected waits until /metrics is as expected, with this number of workers in addition
// to the permanent ones.
func (k *soakRun) waitForExpected(ctx context.Context, others int) error {
	return k.waitFor(ctx, func(p metricsText) error { return k.expected.check(summarize(p), soakPermanent+others) })
}

// waitForRegistered waits until n workers are registered and have not answered.
func (k *soakRun) waitForRegistered(ctx context.Context, n int) error {
	return k.waitFor(ctx, func(p metricsText) error {
		if _, silent := p.sum(workersSeries("silent")); silent != float64(n) {
			return fmt.Errorf("%.0f registered workers have not answered, want %d", silent, n)
		}
		return nil
	})
}

// waitForPolls waits until n more polls have been answered.
func (k *soakRun) waitForPolls(ctx context.Context, n float64) error {
	first := -1.0
	return k.waitFor(ctx, func(p metricsText) error {
		_, now := p.sum("dynamo_metrics_polls_total{")
		if first < 0 {
			first = now
		}
		if now < first+n {
			return fmt.Errorf("%.0f polls, want %.0f", now-first, n)
		}
		return nil
	})
}

// waitFor waits for a scrape for which check returns nil.
func (k *soakRun) waitFor(ctx context.Context, check func(metricsText) error) error {
	return until(ctx, 100*time.Millisecond, func() error {
		p, err := k.m.scrape(ctx)
		if err != nil {
			return err
		}
		return check(p)
	})
}
