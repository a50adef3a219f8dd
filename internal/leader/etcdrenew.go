package leader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/group"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	renewInterval = time.Second
	stableAfter   = 10 * time.Second // a session that lasts this long resets the backoff
	// renewTimeout bounds the response to a renewal. etcd's grpc-proxy responds only when it
	// renews the lease itself, which it does once in each third of the TTL.
	renewTimeout = leaseTTL * time.Second / 2
)

// errMayBeFree means that another program may have released the key.
var errMayBeFree = errors.New("the key may be free")

func (l *etcdLock) hold(ctx context.Context, h *leadership) error {
	if l.predecessorResigned {
		h.predecessorResigned()
	}
	logged := false
	for attempt := 0; ; attempt++ {
		began := time.Now()
		err := l.holdWithSession(ctx, h)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errLost):
			l.createdRevision, l.predecessorResigned = 0, false
			return err
		case time.Since(began) > stableAfter:
			attempt, logged = 0, false
		}
		if attempt > 0 && !logged && l.stats.RegistryUp() { // otherwise Watch logs the connection's state
			l.log.Warn("The unique instance's key cannot be confirmed; retrying", "key", l.key, "error", err)
			logged = true
		}
		if l.fail(err) {
			h.markUnreachable()
		}
		backoff.Wait(ctx, backoff.Pause(attempt))
	}
}

// holdWithSession holds the key with one session, until the session breaks or the key is lost.
func (l *etcdLock) holdWithSession(ctx context.Context, h *leadership) error {
	s, err := l.open(ctx)
	if err != nil {
		return err
	}
	from := l.createdRevision // where the watch starts
	if l.seenRevision != 0 && l.seenRevision < from {
		from = l.seenRevision + 1
	}
	if !l.replayHistory {
		requested := time.Now()
		revision, err := l.verify(ctx, s, h)
		if err != nil {
			return err
		}
		h.markConfirmed(requested)
		l.sessions.Succeeded()
		from = revision + 1
	}
	l.replayHistory, l.seenRevision = false, 0 // if the replay fails once, it would fail again

	err = group.UntilFirst(clientv3.WithRequireLeader(ctx),
		func(ctx context.Context) error { return l.watch(ctx, s, from, h) },
		func(ctx context.Context) error { return l.renew(ctx, s, h) },
		func(ctx context.Context) error {
			return h.confirmLoop(ctx, func(ctx context.Context) (bool, error) { _, err := l.verify(ctx, s, h); return err == nil, err })
		})
	if errors.Is(err, errLost) { // although the session works
		if l.lost != nil {
			l.lost()
		}
	}
	return err
}

// verify reads the key with a linearizable read. The error is errLost if this program does not
// hold it.
func (l *etcdLock) verify(ctx context.Context, s *connect.EtcdSession, h *leadership) (revision int64, err error) {
	got, err := connect.EtcdGet(clientv3.WithRequireLeader(ctx), s, l.key)
	if err == nil {
		err = s.CheckCluster(got.Header)
	}
	switch {
	case errors.Is(err, connect.ErrEtcdTooLarge): // it is not this program's value, which is small
		return 0, h.markLost("the key belongs to another program")
	case err != nil:
		return 0, fmt.Errorf("read %s: %w", l.key, err)
	case len(got.Kvs) == 0:
		return 0, h.markLost("the key is gone")
	case !l.isOurs(got.Kvs[0]):
		return 0, h.markLost("the key belongs to another program")
	}
	return got.Header.Revision, nil
}

// isOurs reports whether this program put the key. It compares lease and revision, because an etcd
// that has lost its data starts its revisions again.
func (l *etcdLock) isOurs(kv *mvccpb.KeyValue) bool {
	return clientv3.LeaseID(kv.Lease) == l.lease && kv.ModRevision == l.createdRevision
}

// watch reports changes of the key at once. It starts before this program put the key: if the
// previous holder resigned, this program does not have to wait for it to stop.
func (l *etcdLock) watch(ctx context.Context, s *connect.EtcdSession, from int64, h *leadership) error {
	free := false // the previous holder has resigned
	return l.watchStream(s, from, func(e *mvccpb.Event) error {
		switch {
		case e.Kv.ModRevision < l.createdRevision:
			free = e.Type == mvccpb.Event_DELETE && isResigned(e.PrevKv.GetValue())
		case free && l.isOurs(e.Kv):
			h.predecessorResigned()
		case e.Type == mvccpb.Event_DELETE:
			return h.markLost("the key was deleted")
		case !l.isOurs(e.Kv):
			return h.markLost("the key was put by another program")
		}
		return nil
	}).Run(ctx)
}

// watchStream watches the key from a revision on.
func (l *etcdLock) watchStream(s *connect.EtcdSession, from int64, event func(*mvccpb.Event) error) connect.EtcdWatch {
	return connect.EtcdWatch{Session: s, OnEvent: event, Ranges: []*etcdserverpb.WatchCreateRequest{{Key: []byte(l.key), StartRevision: from, PrevKv: true}}}
}

// renew keeps the lease alive with one stream, because each new stream costs etcd a password
// check. Renewals do not wait for each other's responses, which arrive in order.
func (l *etcdLock) renew(ctx context.Context, s *connect.EtcdSession, h *leadership) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var receiving sync.WaitGroup
	defer receiving.Wait()
	defer cancel(nil)
	stream, err := etcdserverpb.NewLeaseClient(s.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return fmt.Errorf("renew lease %x: %w", l.lease, connect.EtcdError(err))
	}
	answered := make(chan struct{}, renewTimeout/renewInterval+1)
	receiving.Go(func() { cancel(fmt.Errorf("renew lease %x: %w", l.lease, receiveRenewals(ctx, stream, h, answered))) })
	ticker := time.NewTicker(renewInterval)
	defer ticker.Stop()
	var requested []time.Time // the times of requests without a response
	for {
		now := time.Now()
		if len(requested) > 0 && now.Sub(requested[0]) > renewTimeout {
			return fmt.Errorf("renew lease %x: no response in %v", l.lease, renewTimeout)
		}
		requested = append(requested, now)
		if stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(l.lease)}) != nil {
			<-ctx.Done() // Recv returns the error
			return context.Cause(ctx)
		}
		for waiting := true; waiting; {
			select {
			case <-answered:
				if len(requested) > 0 {
					l.aliveUntil = requested[0].Add(leaseTTL * time.Second)
					requested = requested[1:]
				}
			case <-ticker.C:
				waiting = false
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// receiveRenewals reports each renewal until ctx ends, the stream fails or the lease is lost.
func receiveRenewals(ctx context.Context, stream etcdserverpb.Lease_LeaseKeepAliveClient, h *leadership, answered chan<- struct{}) error {
	for {
		response, err := stream.Recv()
		switch {
		case err != nil:
			return connect.EtcdError(err)
		case response.TTL <= 0:
			return h.markLost("its lease is gone")
		}
		select {
		case answered <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *etcdLock) awaitFree(ctx context.Context) {
	if err := l.standBy(ctx); err != nil && ctx.Err() == nil {
		l.fail(err)
		backoff.Wait(ctx, backoff.Pause(0))
	}
}

// standBy waits until the key may be free, or the session breaks.
func (l *etcdLock) standBy(ctx context.Context) error {
	s, err := l.open(ctx)
	if err != nil {
		return err
	}
	from := l.seenRevision + 1
	err = group.UntilFirst(clientv3.WithRequireLeader(ctx),
		func(ctx context.Context) error {
			return l.watchStream(s, from, func(e *mvccpb.Event) error {
				if e.Type == mvccpb.Event_DELETE || isResigned(e.Kv.Value) {
					return errMayBeFree
				}
				return nil
			}).Run(ctx)
		},
		func(ctx context.Context) error { return l.pollKey(ctx, s) })
	if errors.Is(err, errMayBeFree) {
		return nil
	}
	return err
}

// keyPollInterval is how often a standby reads the key, in addition to the watch.
const keyPollInterval = 2 * time.Second

// pollKey reads another program's key at intervals, in addition to the watch.
func (l *etcdLock) pollKey(ctx context.Context, s *connect.EtcdSession) error {
	for backoff.Wait(ctx, keyPollInterval) {
		got, err := connect.EtcdGet(ctx, s, l.key, clientv3.WithKeysOnly())
		if err == nil {
			err = s.CheckCluster(got.Header)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", l.key, err)
		}
		if len(got.Kvs) == 0 || got.Kvs[0].ModRevision != l.rivalRevision { // a third program may have put it
			return errMayBeFree
		}
		l.seenRevision = got.Header.Revision
	}
	return context.Cause(ctx)
}
