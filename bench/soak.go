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
	soakNamespace = "bench-soak"
	soakLimit     = 2000 // --max-workers
	soakStaying   = 500  // workers that stay
	soakComing    = 500  // workers that come in a round, and go
	soakForged    = 5000 // ids of a round that nobody has

	// What a soak has seen at least, however short it is.
	leastForged = 100_000
	leastComing = 10_000
	leastSoak   = 10 * time.Second

	// firstForged is far from the ids of workers.
	firstForged = 1 << 40
)

// soaking is a soak that runs.
type soaking struct {
	*stage
	m      *instance
	ledger ledger
	begin  time.Time
	rounds int
}

// soak soaks a program for so long at least.
func (s *stage) soak(ctx context.Context, length time.Duration) error {
	c, err := gather(ctx, s.nats, s.client, soakNamespace, soakStaying)
	if err != nil {
		return err
	}
	defer c.leave()
	m, err := s.metrics(ctx, soakNamespace, "--max-workers", strconv.Itoa(soakLimit), "--poll-interval", "0.5")
	if err != nil {
		return err
	}
	defer m.end()
	k := soaking{stage: s, m: m, ledger: newLedger(), begin: time.Now()}
	if err := k.settle(ctx, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := witness{m: m}
	var looking sync.WaitGroup
	looking.Go(func() {
		if err := w.look(ctx); err != nil {
			cancel(err)
		}
	})
	err = k.run(ctx, length)
	if cause := context.Cause(ctx); cause != nil {
		err = cause // what the driver says then is a consequence
	}
	cancel(nil)
	looking.Wait()
	if err == nil {
		err = k.figures(&w)
	}
	if err = cmp.Or(m.death(), err); err != nil {
		return fmt.Errorf("soak, round %d: %w", k.rounds, err)
	}
	return nil
}

func (k *soaking) run(ctx context.Context, length time.Duration) error {
	for time.Since(k.begin) < length || k.rounds*soakForged < leastForged || k.rounds*soakComing < leastComing {
		if err := k.round(ctx); err != nil {
			return err
		}
		k.rounds++
	}
	return nil
}

// round has workers come and go, and everybody hit meanwhile.
func (k *soaking) round(ctx context.Context) error {
	first := soakStaying + k.rounds*soakComing
	c, err := enrol(ctx, k.client, soakNamespace, first, soakComing)
	if err != nil {
		return err
	}
	defer c.leave() // again, unless something fails
	k.ledger.register(soakComing)
	// The answer of a worker that the program does not know yet would find no room, and count.
	if err := k.known(ctx, soakComing); err != nil {
		return err
	}
	if err := c.answer(k.nats); err != nil {
		return err
	}
	if err := k.settle(ctx, soakComing); err != nil {
		return fmt.Errorf("%d workers have come: %w", soakComing, err)
	}
	if err := k.hitAll(first); err != nil {
		return err
	}
	if err := k.settle(ctx, soakComing); err != nil {
		return fmt.Errorf("everybody was hit: %w", err)
	}
	if err := k.nameAll(ctx); err != nil {
		return err
	}
	if err := k.settle(ctx, soakComing); err != nil {
		return fmt.Errorf("endpoints were made up: %w", err)
	}
	// An answer that is still under way when its worker is gone, and has been pushed
	// out, would be turned away and count.
	c.hush()
	if err := k.polls(ctx, 2); err != nil {
		return err
	}
	c.leave()
	if err := k.settle(ctx, 0); err != nil {
		return fmt.Errorf("%d workers have gone: %w", soakComing, err)
	}
	return nil
}

// hitAll hits the workers that stay four times, those that have come once, and the
// round's ids that nobody has.
func (k *soaking) hitAll(first int) error {
	for i := range 4 * soakStaying {
		if err := k.hit(workerID(i%soakStaying), uint64(1+(i+k.rounds)%5)); err != nil {
			return err
		}
	}
	for i := range soakComing {
		if err := k.hit(workerID(first+i), 3); err != nil {
			return err
		}
	}
	k.ledger.forge(soakForged)
	for i := range soakForged {
		if err := k.publish(firstForged+uint64(k.rounds*soakForged+i), 2); err != nil {
			return err
		}
	}
	return k.nats.FlushTimeout(patience)
}

// hit hits a worker that is registered.
func (k *soaking) hit(id, blocks uint64) error {
	k.ledger.hit(id, blocks)
	return k.publish(id, blocks)
}

// publish sends a hit-rate event of twice as much input as overlap.
func (k *soaking) publish(id, blocks uint64) error {
	b := fmt.Appendf(nil, `{"worker_id":%d,"isl_blocks":%d,"overlap_blocks":%d}`, id, 2*blocks, blocks)
	if err := k.nats.Publish(wire.HitRateSubject(soakNamespace), b); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// settle waits until the page is as the ledger has it, with so many workers beside
// those that stay.
func (k *soaking) settle(ctx context.Context, others int) error {
	return k.shows(ctx, func(p page) error { return k.ledger.check(look(p), soakStaying+others) })
}

// known waits until so many workers are registered that have not answered.
func (k *soaking) known(ctx context.Context, n int) error {
	return k.shows(ctx, func(p page) error {
		if _, silent := p.sum(stateOf("silent")); silent != float64(n) {
			return fmt.Errorf("%.0f workers are known that have not answered, want %d", silent, n)
		}
		return nil
	})
}

// polls waits until so many more polls have been answered.
func (k *soaking) polls(ctx context.Context, n float64) error {
	first := -1.0
	return k.shows(ctx, func(p page) error {
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
func (k *soaking) shows(ctx context.Context, check func(page) error) error {
	return until(ctx, 100*time.Millisecond, func() error {
		p, err := k.m.page(ctx)
		if err != nil {
			return err
		}
		return check(p)
	})
}
