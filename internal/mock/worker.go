package mock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"github.com/nats-io/nats.go/micro"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// serviceVersion is the version of the NATS service in all releases up to 0.5.
const serviceVersion = "0.0.1"

// worker is one imitated worker.
type worker struct {
	*process
	n    int
	load func() fleet.Load
	hits func() (hit, bool)
	id   atomic.Uint64 // the lease while the worker is registered, else 0
}

// run runs the worker until ctx ends. A worker that loses its lease starts again with a new
// one.
func (w *worker) run(ctx context.Context) error {
	if w.registry == nil {
		return w.runStatic(ctx)
	}
	for ctx.Err() == nil {
		if err := w.runWithLease(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) runStatic(ctx context.Context) error {
	service, err := w.startService(0)
	if err != nil {
		return err
	}
	defer w.stopService(service)
	w.notifyRegistered(w.instance(0))
	<-ctx.Done()
	return nil
}

// runWithLease gets a lease, and runs the worker until the lease is lost or ctx ends.
func (w *worker) runWithLease(ctx context.Context) error {
	lease, err := w.registry.grant(ctx)
	if err != nil || lease == 0 {
		return err
	}
	in := w.instance(uint64(lease))
	service, err := w.startService(in.ID)
	if err != nil {
		w.registry.release(ctx, lease)
		return err
	}
	// The service stops last: real workers reply until they have deregistered or found
	// that their lease is lost.
	defer w.stopService(service)
	ps, err := w.openPublishers(in.ID)
	if err != nil {
		w.registry.release(ctx, lease)
		return err
	}
	defer ps.close()

	entries := w.entries(in, ps)
	key := entries[0].key
	alive, err := w.registry.register(ctx, lease, entries)
	if err != nil {
		return err
	}
	if alive && ctx.Err() == nil {
		w.id.Store(in.ID)
		w.Log.Debug("Registered mock worker", "key", key)
		w.notifyRegistered(in)
		alive, err = w.keepAndPublish(ctx, lease, ps)
		w.id.Store(0)
	}
	switch {
	case err != nil, errors.Is(context.Cause(ctx), ErrKilled):
		return err
	case ctx.Err() != nil:
		w.registry.release(ctx, lease)
	case !alive:
		w.Log.Warn("A mock worker lost its lease and gets a new one", "key", key)
	}
	return nil
}

// keepAndPublish renews the lease and publishes events until ctx ends or the lease is lost,
// and reports false if it is lost.
func (w *worker) keepAndPublish(ctx context.Context, lease clientv3.LeaseID, ps *publishers) (alive bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.publishEvents(ctx, ps) })
	alive, err = w.registry.keepAlive(ctx, lease)
	cancel()
	return alive, cmp.Or(err, g.Wait())
}

func (w *worker) notifyRegistered(in fleet.Instance) {
	if w.OnRegistered != nil {
		w.OnRegistered(w.n, in)
	}
}

func (w *worker) instance(id uint64) fleet.Instance {
	return fleet.Instance{Endpoint: fleet.Endpoint{Component: w.Component, Name: w.Endpoint}, ID: id}
}

func (w *worker) service() string { return wire.ServiceName(w.release.era, w.Namespace, w.Component) }

func (w *worker) subject(id uint64) string { return wire.Subject(w.service(), w.Endpoint, id) }

// startService registers the worker as a NATS micro service. It returns nil if the workers of the
// release are not NATS micro services.
func (w *worker) startService(id uint64) (micro.Service, error) {
	if w.release.statsData == nil {
		return nil, nil
	}
	name := w.service() + "-" + w.Endpoint
	if id != 0 {
		name += "-" + wire.HexID(id)
	}
	service, err := micro.AddService(w.nc, micro.Config{
		Name:         w.service(),
		Version:      cmp.Or(w.release.version, serviceVersion),
		Description:  fmt.Sprintf("Dynamo component %s in namespace %s", w.Component, w.Namespace),
		StatsHandler: func(*micro.Endpoint) any { return w.release.statsData(w.load()) },
	})
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", w.service(), err)
	}
	err = service.AddEndpoint(name, micro.HandlerFunc(rejectRequest),
		micro.WithEndpointSubject(w.subject(id)), micro.WithEndpointQueueGroup(micro.DefaultQueueGroup))
	if err != nil {
		w.stopService(service)
		return nil, fmt.Errorf("serve %s: %w", w.subject(id), err)
	}
	return service, nil
}

func rejectRequest(r micro.Request) {
	// Error fails only if the requester cannot be reached.
	_ = r.Error("501", "this is a mock worker: it serves no requests", nil)
}

// stopService stops the service and waits until the NATS server has processed that, so that
// no later request gets a reply. Without a server the wait is short.
func (w *worker) stopService(service micro.Service) {
	if service == nil {
		return
	}
	// Stop fails only if the connection is closed, and then the service has ended already.
	_ = service.Stop()
	_ = w.nc.FlushTimeout(500 * time.Millisecond)
}
