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
	stableAfter   = 10 * time.Second // a session that lasted so long was a good one
	// renewIn is how long an answer to a renewal may take. etcd's grpc-proxy answers when it
	// renews the lease itself, which it does each third of the lease's time.
	renewTimeout = leaseTTL * time.Second / 2
)

// errFree says that the key of another program may be free.
var errMayBeFree = errors.New("it may be free")

func (k *etcdLock) hold(ctx context.Context, h *leadership) error {
	if k.predecessorResigned {
		h.predecessorResigned()
	}
	said := false
	for attempt := 0; ; attempt++ {
		began := time.Now()
		err := k.holdWithSession(ctx, h)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errLost):
			k.createdRevision, k.predecessorResigned = 0, false
			return err
		case time.Since(began) > stableAfter:
			attempt, said = 0, false
		}
		if attempt > 0 && !said && k.stats.RegistryUp() { // else Watch speaks of the connection
			k.log.Warn("The unique instance's key cannot be confirmed; trying goes on", "key", k.key, "error", err)
			said = true
		}
		if k.fail(err) {
			h.markUnreachable()
		}
		backoff.Wait(ctx, backoff.Pause(attempt))
	}
}

// holdOn keeps the key by one session, until that breaks or the key is lost.
func (k *etcdLock) holdWithSession(ctx context.Context, h *leadership) error {
	s, err := k.open(ctx)
	if err != nil {
		return err
	}
	from := k.createdRevision // of the watch
	if k.seenRevision != 0 && k.seenRevision < from {
		from = k.seenRevision + 1
	}
	if !k.replayHistory {
		asked := time.Now()
		revision, err := k.verify(ctx, s, h)
		if err != nil {
			return err
		}
		h.markConfirmed(asked)
		k.sessions.Succeeded()
		from = revision + 1
	}
	k.replayHistory, k.seenRevision = false, 0 // what goes wrong with it would do so again

	err = group.UntilFirst(clientv3.WithRequireLeader(ctx),
		func(ctx context.Context) error { return k.watch(ctx, s, from, h) },
		func(ctx context.Context) error { return k.renew(ctx, s, h) },
		func(ctx context.Context) error {
			return h.confirmLoop(ctx, func(ctx context.Context) (bool, error) { _, err := k.verify(ctx, s, h); return err == nil, err })
		})
	if errors.Is(err, errLost) { // though nothing broke
		if k.lost != nil {
			k.lost()
		}
	}
	return err
}

// look reads the key, as etcd confirms it with the whole cluster. The error is errLost where
// it is not ours.
func (k *etcdLock) verify(ctx context.Context, s *connect.EtcdSession, h *leadership) (revision int64, err error) {
	got, err := connect.EtcdGet(clientv3.WithRequireLeader(ctx), s, k.key)
	if err == nil {
		err = s.CheckCluster(got.Header)
	}
	switch {
	case errors.Is(err, connect.ErrEtcdTooLarge): // ours is not
		return 0, h.markLost("the key is another program's")
	case err != nil:
		return 0, fmt.Errorf("read %s: %w", k.key, err)
	case len(got.Kvs) == 0:
		return 0, h.markLost("the key is gone")
	case !k.isOurs(got.Kvs[0]):
		return 0, h.markLost("the key is another program's")
	}
	return got.Header.Revision, nil
}

// isOurs looks at both: an etcd that has lost its data counts its revisions anew.
func (k *etcdLock) isOurs(kv *mvccpb.KeyValue) bool {
	return clientv3.LeaseID(kv.Lease) == k.lease && kv.ModRevision == k.createdRevision
}

// watch hears at once of what becomes of the key, and of what became of it before it was
// ours: a program that gave it back need not be waited for.
func (k *etcdLock) watch(ctx context.Context, s *connect.EtcdSession, from int64, h *leadership) error {
	free := false // the key was given back
	return k.watchStream(s, from, func(e *mvccpb.Event) error {
		switch {
		case e.Kv.ModRevision < k.createdRevision:
			free = e.Type == mvccpb.Event_DELETE && isResigned(e.PrevKv.GetValue())
		case free && k.isOurs(e.Kv):
			h.predecessorResigned()
		case e.Type == mvccpb.Event_DELETE:
			return h.markLost("the key was deleted")
		case !k.isOurs(e.Kv):
			return h.markLost("the key was put by another program")
		}
		return nil
	}).Run(ctx)
}

// changes is a watch of the key from a revision on.
func (k *etcdLock) watchStream(s *connect.EtcdSession, from int64, event func(*mvccpb.Event) error) connect.EtcdWatch {
	return connect.EtcdWatch{Session: s, OnEvent: event, Ranges: []*etcdserverpb.WatchCreateRequest{{Key: []byte(k.key), StartRevision: from, PrevKv: true}}}
}

// renew keeps the lease alive, by one stream: each stream is a login. Renewals do not wait
// for each other's answers, which come in the order of the questions.
func (k *etcdLock) renew(ctx context.Context, s *connect.EtcdSession, h *leadership) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var receiving sync.WaitGroup
	defer receiving.Wait()
	defer cancel(nil)
	stream, err := etcdserverpb.NewLeaseClient(s.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return fmt.Errorf("renew lease %x: %w", k.lease, connect.EtcdError(err))
	}
	answered := make(chan struct{}, renewTimeout/renewInterval+1)
	receiving.Go(func() {
		for {
			answer, err := stream.Recv()
			if err == nil && answer.TTL <= 0 {
				err = h.markLost("its lease is gone")
			}
			if err != nil {
				cancel(fmt.Errorf("renew lease %x: %w", k.lease, connect.EtcdError(err)))
				return
			}
			select {
			case answered <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	})
	ticker := time.NewTicker(renewInterval)
	defer ticker.Stop()
	var asked []time.Time // of those without an answer
	for {
		now := time.Now()
		if len(asked) > 0 && now.Sub(asked[0]) > renewTimeout {
			return fmt.Errorf("renew lease %x: no answer in %v", k.lease, renewTimeout)
		}
		asked = append(asked, now)
		if stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(k.lease)}) != nil {
			<-ctx.Done() // Recv says why
			return context.Cause(ctx)
		}
		for waiting := true; waiting; {
			select {
			case <-answered:
				if len(asked) > 0 {
					k.aliveUntil = asked[0].Add(leaseTTL * time.Second)
					asked = asked[1:]
				}
			case <-ticker.C:
				waiting = false
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

func (k *etcdLock) awaitFree(ctx context.Context) {
	if err := k.standBy(ctx); err != nil && ctx.Err() == nil {
		k.fail(err)
		backoff.Wait(ctx, backoff.Pause(0))
	}
}

// standBy waits until the key may be free, or the session breaks.
func (k *etcdLock) standBy(ctx context.Context) error {
	s, err := k.open(ctx)
	if err != nil {
		return err
	}
	from := k.seenRevision + 1
	err = group.UntilFirst(clientv3.WithRequireLeader(ctx),
		func(ctx context.Context) error {
			return k.watchStream(s, from, func(e *mvccpb.Event) error {
				if e.Type == mvccpb.Event_DELETE || isResigned(e.Kv.Value) {
					return errMayBeFree
				}
				return nil
			}).Run(ctx)
		},
		func(ctx context.Context) error { return k.pollKey(ctx, s) })
	if errors.Is(err, errMayBeFree) {
		return nil
	}
	return err
}

// keyPollInterval is how often a standby reads the key, beside the watch.
const keyPollInterval = 2 * time.Second

// pollKey looks at the key of another program from time to time, beside the watch.
func (k *etcdLock) pollKey(ctx context.Context, s *connect.EtcdSession) error {
	for backoff.Wait(ctx, keyPollInterval) {
		got, err := connect.EtcdGet(ctx, s, k.key, clientv3.WithKeysOnly())
		if err == nil {
			err = s.CheckCluster(got.Header)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", k.key, err)
		}
		if len(got.Kvs) == 0 || got.Kvs[0].ModRevision != k.rivalRevision { // it may be another program's now
			return errMayBeFree
		}
		k.seenRevision = got.Header.Revision
	}
	return context.Cause(ctx)
}
