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
	releaseTimeout = 2 * time.Second // limit of revoking the leases at the end
)

// etcdRegistry registers workers in etcd. It retries while etcd is not available.
type etcdRegistry struct {
	client *clientv3.Client
	ttl    int64 // of leases, in seconds
	log    *slog.Logger

	mu           sync.Mutex
	disconnected bool  // has been logged
	unrevoked    int   // leases that could not be revoked
	revokeErr    error // of one of them
}

// grant returns a new lease, or 0 if ctx ended first.
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

// register puts the keys with the lease. It reports false if the lease is lost.
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

// keepAlive renews the lease until ctx ends or the lease is lost, and reports false if it
// is lost.
func (r *etcdRegistry) keepAlive(ctx context.Context, lease clientv3.LeaseID) (alive bool, err error) {
	for alive = true; alive && err == nil && ctx.Err() == nil; {
		// The channel is also closed when etcd has not responded for the lease's time to
		// live. After a restart etcd may still have the lease.
		if responses, err := r.client.KeepAlive(ctx, lease); err == nil {
			for range responses {
			}
		}
		err = r.retry(ctx, func(ctx context.Context) error {
			response, err := r.client.TimeToLive(ctx, lease)
			if err != nil {
				return fmt.Errorf("check lease %x: %w", lease, err)
			}
			alive = response.TTL > 0
			return nil
		})
	}
	return alive, err
}

// release revokes the lease, which deletes its keys immediately. It works after ctx has
// ended.
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

// logUnrevoked logs once for all workers if some could not be deregistered.
func (r *etcdRegistry) logUnrevoked() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unrevoked > 0 {
		r.log.Warn("Failed to deregister; the keys expire with their leases", "workers", r.unrevoked, "error", r.revokeErr)
	}
}

// retry makes the call until it succeeds or ctx ends, with backoff. It returns an error that
// further attempts cannot fix.
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

// markDisconnected and markConnected log once for all workers that etcd became unavailable
// and available.
func (r *etcdRegistry) markDisconnected(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.disconnected {
		r.log.Warn("etcd is not connected; retrying", "error", err)
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
