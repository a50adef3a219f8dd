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

// A soak is rounds of everything that could make the program grow: workers register,
// answer, are hit and go, thousands of ids that no one has are hit, and thousands of
// endpoints are made up. There are more of them than there is room for,
// beside a crowd that stays.
const (
	soakNamespace  = "bench-soak"
	soakMaxWorkers = 2000 // --max-workers
	soakPermanent  = 500  // workers that stay
	soakTransient  = 500  // workers that come in a round, and go
	soakForged     = 5000 // ids of a round that nobody has

	// What a soak has seen at least, however short it is.
	minForged    = 100_000
	minTransient = 10_000
	minSoak      = 10 * time.Second

	// firstForged is far from the ids of workers.
	firstForgedID = 1 << 40
)

// soaking is a soak that runs.
type soakRun struct {
	*environment
	m        *instance
	expected expectation
	begin    time.Time
	rounds   int
}

// soak soaks a program for so long at least.
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
		err = cause // what the driver says then is a consequence
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

// round has workers come and go, and everybody hit meanwhile.
func (k *soakRun) runRound(ctx context.Context) error {
	first := soakPermanent + k.rounds*soakTransient
	c, err := registerFakeWorkers(ctx, k.client, soakNamespace, first, soakTransient)
	if err != nil {
		return err
	}
	defer c.leave() // again, unless something fails
	k.expected.registerWorkers(soakTransient)
	// The answer of a worker that the program does not know yet would find no room, and count.
	if err := k.waitForRegistered(ctx, soakTransient); err != nil {
		return err
	}
	if err := c.answerPolls(k.nats); err != nil {
		return err
	}
	if err := k.waitForExpected(ctx, soakTransient); err != nil {
		return fmt.Errorf("%d workers have come: %w", soakTransient, err)
	}
	if err := k.sendHits(first); err != nil {
		return err
	}
	if err := k.waitForExpected(ctx, soakTransient); err != nil {
		return fmt.Errorf("everybody was hit: %w", err)
	}
	if err := k.sendMadeUpNames(ctx); err != nil {
		return err
	}
	if err := k.waitForExpected(ctx, soakTransient); err != nil {
		return fmt.Errorf("endpoints were made up: %w", err)
	}
	// An answer that is still under way when its worker is gone, and has been pushed
	// out, would be turned away and count.
	c.stopAnswering()
	if err := k.waitForPolls(ctx, 2); err != nil {
		return err
	}
	c.leave()
	if err := k.waitForExpected(ctx, 0); err != nil {
		return fmt.Errorf("%d workers have gone: %w", soakTransient, err)
	}
	return nil
}

// hitAll hits the workers that stay four times, those that have come once, and the
// round's ids that nobody has.
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

// hit hits a worker that is registered.
func (k *soakRun) sendHit(id, blocks uint64) error {
	k.expected.recordHit(id, blocks)
	return k.publishHit(id, blocks)
}

// publish sends a hit-rate event of twice as much input as overlap.
func (k *soakRun) publishHit(id, blocks uint64) error {
	b := fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, id, 2*blocks, blocks)
	if err := k.nats.Publish(wire.HitRateSubject(soakNamespace), b); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// settle waits until the page is as the ledger has it, with so many workers beside
// those that stay.
func (k *soakRun) waitForExpected(ctx context.Context, others int) error {
	return k.waitFor(ctx, func(p exposition) error { return k.expected.check(summarize(p), soakPermanent+others) })
}

// known waits until so many workers are registered that have not answered.
func (k *soakRun) waitForRegistered(ctx context.Context, n int) error {
	return k.waitFor(ctx, func(p exposition) error {
		if _, silent := p.sum(workersSeries("silent")); silent != float64(n) {
			return fmt.Errorf("%.0f workers are known that have not answered, want %d", silent, n)
		}
		return nil
	})
}

// polls waits until so many more polls have been answered.
func (k *soakRun) waitForPolls(ctx context.Context, n float64) error {
	first := -1.0
	return k.waitFor(ctx, func(p exposition) error {
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

// shows waits for a page that check has nothing to complain about.
func (k *soakRun) waitFor(ctx context.Context, check func(exposition) error) error {
	return until(ctx, 100*time.Millisecond, func() error {
		p, err := k.m.scrape(ctx)
		if err != nil {
			return err
		}
		return check(p)
	})
}
