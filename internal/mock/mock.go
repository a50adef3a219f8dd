package mock

import (
	"cmp"
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
// SIGKILL: the workers stop answering, publishing and renewing, but their keys stay
// until the leases expire.
var ErrKilled = errors.New("mock worker killed")

var (
	errNoNATS = errors.New("these mock workers need a NATS connection")
	errNoEtcd = errors.New("these mock workers need an etcd client")
)

// Run imitates the workers of c until ctx ends, and then deregisters them as workers
// do on SIGTERM, within about two seconds. With a nil ec they are static workers:
// without lease and registration. With a nil nc they say nothing on NATS. Losing NATS
// or etcd ends nothing: workers that lost their lease register again under a new id.
// It fails only on a wrong configuration, one that needs what is nil among them, where
// etcd refuses the credentials, where nc or ec is closed under it, and where no port
// is free for a ZMQ socket.
func Run(ctx context.Context, nc *nats.Conn, ec *clientv3.Client, c Config) error {
	if err := c.Check(); err != nil {
		return err
	}
	if nc == nil && c.NeedsNATS() {
		return errNoNATS
	}
	if ec == nil && c.NeedsEtcd() {
		return errNoEtcd
	}
	c.Workers = max(c.Workers, 1)
	c.Host = cmp.Or(c.Host, "127.0.0.1")
	if c.Seed == 0 {
		c.Seed = uint64(time.Now().UnixNano())
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	r, _ := c.release()
	m := &process{Config: c, release: r, nc: nc, start: time.Now()}
	if ec != nil {
		m.registry = &etcdRegistry{client: ec, ttl: r.ttl, log: c.Log}
		defer m.registry.logUnrevoked()
	}
	g, ctx := errgroup.WithContext(ctx)
	hits := c.EventInterval > 0 && r.events == nil // from 0.6 on they are a part of a worker's life
	own := c.Correlated || c.Hit != nil
	for n := range c.Workers {
		w := m.worker(n)
		g.Go(func() error { return w.run(ctx) })
		if hits && own && ec != nil {
			g.Go(func() error { return m.publishHits(ctx, w.hits) })
		}
	}
	if hits && !own {
		g.Go(func() error { return m.publishHits(ctx, unregisteredHits(m.newRand(0))) })
	}
	return g.Wait()
}

// process is what the workers of one Run have in common.
type process struct {
	Config
	release  release
	nc       *nats.Conn    // nil: none
	registry *etcdRegistry // nil: static workers
	start    time.Time
}

// stream is one of the independent sources of randomness of the seed: 0 for the
// events of nobody, 2n+1 for the load of worker n, 2n+2 for its events.
func (p *process) newRand(n int) *rand.Rand { return rand.New(rand.NewPCG(p.Seed, uint64(n))) }

func (p *process) worker(n int) *worker {
	w := &worker{process: p, n: n}
	w.hits = workerHits(p.newRand(2*n+2), w)
	switch {
	case p.Load != nil:
		w.load = func() fleet.Load { return p.Load(n) }
	case p.Correlated:
		w.load = newRandomWalk(p.newRand(2*n+1), p.start).load
	default:
		w.load = (&randomLoad{rng: p.newRand(2*n + 1)}).load
	}
	return w
}
