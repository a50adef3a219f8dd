package mock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/connect"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	callTimeout    = 3 * time.Second
	releaseTimeout = 2 * time.Second // for what is said to etcd at the end
)

// registry is etcd, for workers that outlast its absence.
type etcdRegistry struct {
	client *clientv3.Client
	ttl    int64 // seconds, of leases
	log    *slog.Logger

	mu           sync.Mutex
	disconnected bool  // as was logged
	unrevoked    int   // leases that could not be revoked
	revokeErr    error // for one of them
}

// grant gets a lease; 0 if ctx ended before.
func (r *etcdRegistry) grant(ctx context.Context) (lease clientv3.LeaseID, err error) {
	err = r.retry(ctx, func(ctx context.Context) error {
		grant, err := r.client.Grant(ctx, r.ttl)
		if err != nil {
			return fmt.Errorf("get a lease: %w", err)
		}
		lease = grant.ID
		return nil
	})
	return lease, err
}

// register puts the keys on the lease; false if the lease is lost.
func (r *etcdRegistry) register(ctx context.Context, lease clientv3.LeaseID, entries []entry) (alive bool, err error) {
	alive = true
	for _, e := range entries {
		err = r.retry(ctx, func(ctx context.Context) error {
			_, err := r.client.Put(ctx, e.key, string(e.value), clientv3.WithLease(lease))
			if errors.Is(err, rpctypes.ErrLeaseNotFound) {
				alive = false
				return nil
			}
			if err != nil {
				return fmt.Errorf("register %s: %w", e.key, err)
			}
			return nil
		})
		if err != nil || !alive {
			break
		}
	}
	return alive, err
}

// keep renews the lease until it is lost (false), or ctx ends.
func (r *etcdRegistry) keepAlive(ctx context.Context, lease clientv3.LeaseID) (alive bool, err error) {
	for alive = true; alive && err == nil && ctx.Err() == nil; {
		// The answers end when etcd has been silent for as long as the lease lasts,
		// too: restarted, it may well have kept the lease.
		if answers, err := r.client.KeepAlive(ctx, lease); err == nil {
			for range answers {
			}
		}
		err = r.retry(ctx, func(ctx context.Context) error {
			left, err := r.client.TimeToLive(ctx, lease)
			if err != nil {
				return fmt.Errorf("look after lease %x: %w", lease, err)
			}
			alive = left.TTL > 0
			return nil
		})
	}
	return alive, err
}

// release revokes the lease, and so deletes its keys at once, though ctx has ended.
func (r *etcdRegistry) release(ctx context.Context, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	_, err := r.client.Revoke(ctx, lease)
	if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unrevoked++
	r.revokeErr = err
}

// leave says, once for all workers, if some could not be deregistered.
func (r *etcdRegistry) logUnrevoked() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unrevoked > 0 {
		r.log.Warn("Failed to deregister; the keys end with their leases", "workers", r.unrevoked, "error", r.revokeErr)
	}
}

// insist calls until the call succeeds or ctx ends, with growing pauses. What
// another attempt cannot mend is an error.
func (r *etcdRegistry) retry(ctx context.Context, call func(context.Context) error) error {
	for attempt := 0; ; attempt++ {
		err := callOnce(ctx, call)
		if err == nil {
			r.markConnected()
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		if connect.IsEtcdAuthError(err) || r.client.Ctx().Err() != nil {
			return err
		}
		r.markDisconnected(err)
		backoff.Wait(ctx, backoff.Pause(attempt))
	}
}

func callOnce(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx)
}

// gone and back log once, for all workers, that etcd went and came.
func (r *etcdRegistry) markDisconnected(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.disconnected {
		r.log.Warn("etcd is not connected; connecting goes on", "error", err)
	}
	r.disconnected = true
}

func (r *etcdRegistry) markConnected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.disconnected {
		r.log.Info("Connected to etcd")
	}
	r.disconnected = false
}
