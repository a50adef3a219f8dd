package mock

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"dynamo-metrics/internal/fleet"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// ErrKilled as the cause of Run's context makes it end like a process that gets
// SIGKILL: the workers stop answering and renewing, but their keys stay until the
// leases expire.
var ErrKilled = errors.New("mock worker killed")

// Run imitates the workers of c until ctx ends, and then deregisters them as workers
// do on SIGTERM, within about two seconds. With a nil ec they are static workers:
// without lease and registration. Losing NATS or etcd ends nothing: workers that lost
// their lease register again under a new id. It fails only on a wrong configuration,
// where etcd refuses the credentials, and where nc or ec is closed under it.
func Run(ctx context.Context, nc *nats.Conn, ec *clientv3.Client, c Config) error {
	if err := c.Check(); err != nil {
		return err
	}
	c.Workers = max(c.Workers, 1)
	if c.Seed == 0 {
		c.Seed = uint64(time.Now().UnixNano())
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	r, _ := c.release()
	m := &process{Config: c, release: r, nc: nc, start: time.Now()}
	if ec != nil {
		m.registry = &registry{client: ec, log: c.Log}
		defer m.registry.leave()
	}
	g, ctx := errgroup.WithContext(ctx)
	for n := range c.Workers {
		w := m.worker(n)
		g.Go(func() error { return w.run(ctx) })
		if c.EventInterval > 0 && c.Correlated && ec != nil {
			g.Go(func() error { return publish(ctx, nc, c.Namespace, c.EventInterval, ownHits(m.stream(2*n+2), w)) })
		}
	}
	if c.EventInterval > 0 && !c.Correlated {
		g.Go(func() error { return publish(ctx, nc, c.Namespace, c.EventInterval, strangeHits(m.stream(0))) })
	}
	return g.Wait()
}

// process is what the workers of one Run have in common.
type process struct {
	Config
	release  release
	nc       *nats.Conn
	registry *registry // nil: static workers
	start    time.Time
}

// stream is one of the independent sources of randomness of the seed: 0 for the
// events of nobody, 2n+1 for the load of worker n, 2n+2 for its events.
func (p *process) stream(n int) *rand.Rand { return rand.New(rand.NewPCG(p.Seed, uint64(n))) }

func (p *process) worker(n int) *worker {
	w := &worker{process: p, n: n}
	switch {
	case p.Load != nil:
		w.load = func() fleet.Load { return p.Load(n) }
	case p.Correlated:
		w.load = newWalk(p.stream(2*n+1), p.start).load
	default:
		w.load = (&dice{rng: p.stream(2*n + 1)}).load
	}
	return w
}
