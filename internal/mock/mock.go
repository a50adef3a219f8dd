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

// ErrKilled, as the cause of the end of Run's context, makes Run end like a process that
// gets SIGKILL: the workers stop replying, publishing and renewing their leases, but their
// keys remain until the leases expire.
var ErrKilled = errors.New("mock worker killed")

var (
	errNoNATS = errors.New("these mock workers need a NATS connection")
	errNoEtcd = errors.New("these mock workers need an etcd client")
)

// Run imitates the workers of c until ctx ends, and then deregisters them within about two
// seconds, as workers do on SIGTERM. If ec is nil the workers are static: they have no lease
// and do not register. If nc is nil they do not use NATS. When NATS or etcd becomes
// unavailable the workers continue, and register again with a new id if they lost their
// lease. Run fails if the configuration is invalid, or needs a connection that is nil. It
// also fails if etcd rejects the credentials, if nc or ec is closed, and if no port is free
// for a ZMQ socket.
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
	hits := c.EventInterval > 0 && r.events == nil // from 0.6 on each worker publishes its hits in run
	perWorker := c.Correlated || c.Hit != nil
	for n := range c.Workers {
		w := m.worker(n)
		g.Go(func() error { return w.run(ctx) })
		if hits && perWorker && ec != nil {
			g.Go(func() error { return m.publishHits(ctx, w.hits) })
		}
	}
	if hits && !perWorker {
		g.Go(func() error { return m.publishHits(ctx, unregisteredHits(m.newRand(0))) })
	}
	return g.Wait()
}

// process has the data that all workers of one Run share.
type process struct {
	Config
	release  release
	nc       *nats.Conn    // nil if NATS is not used
	registry *etcdRegistry // nil if the workers are static
	start    time.Time
}

// newRand returns the random source of the seed with the number n. Source 0 is for
// unregisteredHits. Of worker n, source 2n+1 is for the load, and 2n+2 for the hits.
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
