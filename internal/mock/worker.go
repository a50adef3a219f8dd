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

// serviceVersion is what all of them to 0.5 give as the version of their NATS service.
const serviceVersion = "0.0.1"

// worker is one imitated worker.
type worker struct {
	*process
	n    int
	load func() fleet.Load
	hits func() (hit, bool)
	id   atomic.Uint64 // its lease while it is registered, else 0
}

// run lives one life after the other, each under its own lease, until ctx ends.
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

// life is from the grant of a lease to its loss, or to the end of ctx.
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
	// A worker that deregisters answers until it is gone, and so do those whose
	// lease is lost.
	defer w.stopService(service)
	out, err := w.openPublishers(in.ID)
	if err != nil {
		w.registry.release(ctx, lease)
		return err
	}
	defer out.close()

	entries := w.entries(in, out)
	key := entries[0].key
	alive, err := w.registry.register(ctx, lease, entries)
	if err != nil {
		return err
	}
	if alive && ctx.Err() == nil {
		w.id.Store(in.ID)
		w.Log.Debug("Registered mock worker", "key", key)
		w.notifyRegistered(in)
		alive, err = w.keepAndPublish(ctx, lease, out)
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

// work keeps the lease and publishes what there is to say, until the lease is lost
// (false), or ctx ends.
func (w *worker) keepAndPublish(ctx context.Context, lease clientv3.LeaseID, out *publishers) (alive bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.publishEvents(ctx, out) })
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

// serve makes the worker a NATS micro service, nil if those of the release are none.
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
	// It fails only where the requester cannot be reached.
	_ = r.Error("501", "this is a mock worker: it serves no requests", nil)
}

// stop ends the service and waits until the server knows, so that no later request
// is answered; the wait is in vain, and short, while there is no server.
func (w *worker) stopService(service micro.Service) {
	if service == nil {
		return
	}
	// It fails only on a closed connection, which ended the service before.
	_ = service.Stop()
	_ = w.nc.FlushTimeout(500 * time.Millisecond)
}
