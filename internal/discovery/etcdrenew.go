package discovery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/connect"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	renewEvery = time.Second
	settled    = 10 * time.Second // a session that lasted so long was a good one
	// renewIn is how long an answer to a renewal may take. etcd's grpc-proxy answers when it
	// renews the lease itself, which it does each third of the lease's time.
	renewIn = leaseTTL * time.Second / 2
)

// errFree says that the key of another program may be free.
var errFree = errors.New("it may be free")

func (k *etcdKey) keep(ctx context.Context, h *holding) error {
	if k.free {
		h.resigned()
	}
	said := false
	for attempt := 0; ; attempt++ {
		began := time.Now()
		err := k.holdOn(ctx, h)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errLost):
			k.created, k.free = 0, false
			return err
		case time.Since(began) > settled:
			attempt, said = 0, false
		}
		if attempt > 0 && !said && k.etcd.Fleet.Stats.RegistryUp() { // else Watch speaks of the connection
			k.log.Warn("The unique instance's key cannot be confirmed; trying goes on", "key", k.key, "error", err)
			said = true
		}
		if k.fail(err) {
			h.away()
		}
		backoff.Wait(ctx, backoff.Pause(attempt))
	}
}

// holdOn keeps the key by one session, until that breaks or the key is lost.
func (k *etcdKey) holdOn(ctx context.Context, h *holding) error {
	s, err := k.open(ctx)
	if err != nil {
		return err
	}
	from := k.created // of the watch
	if k.seen != 0 && k.seen < from {
		from = k.seen + 1
	}
	if !k.replay {
		asked := time.Now()
		revision, err := k.look(ctx, s, h)
		if err != nil {
			return err
		}
		h.confirmed(asked)
		k.sessions.Succeeded()
		from = revision + 1
	}
	k.replay, k.seen = false, 0 // what goes wrong with it would do so again

	err = together(clientv3.WithRequireLeader(ctx),
		func(ctx context.Context) error { return k.watch(ctx, s, from, h) },
		func(ctx context.Context) error { return k.renew(ctx, s, h) },
		func(ctx context.Context) error {
			return h.confirm(ctx, func(ctx context.Context) (bool, error) { _, err := k.look(ctx, s, h); return err == nil, err })
		})
	if errors.Is(err, errLost) { // though nothing broke
		k.etcd.doubts.Add(1)
	}
	return err
}

// look reads the key, as etcd confirms it with the whole cluster. The error is errLost where
// it is not ours.
func (k *etcdKey) look(ctx context.Context, s *connect.EtcdSession, h *holding) (revision int64, err error) {
	got, err := get(clientv3.WithRequireLeader(ctx), s, k.key)
	if err == nil {
		err = s.CheckCluster(got.Header)
	}
	switch {
	case errors.Is(err, errTooLarge): // ours is not
		return 0, h.lose("the key is another program's")
	case err != nil:
		return 0, fmt.Errorf("read %s: %w", k.key, err)
	case len(got.Kvs) == 0:
		return 0, h.lose("the key is gone")
	case !k.isOurs(got.Kvs[0]):
		return 0, h.lose("the key is another program's")
	}
	return got.Header.Revision, nil
}

// isOurs looks at both: an etcd that has lost its data counts its revisions anew.
func (k *etcdKey) isOurs(kv *mvccpb.KeyValue) bool {
	return clientv3.LeaseID(kv.Lease) == k.lease && kv.ModRevision == k.created
}

// watch hears at once of what becomes of the key, and of what became of it before it was
// ours: a program that gave it back need not be waited for.
func (k *etcdKey) watch(ctx context.Context, s *connect.EtcdSession, from int64, h *holding) error {
	free := false // the key was given back
	return k.changes(s, from, func(e *mvccpb.Event) error {
		switch {
		case e.Kv.ModRevision < k.created:
			free = e.Type == mvccpb.Event_DELETE && isResigned(e.PrevKv.GetValue())
		case free && k.isOurs(e.Kv):
			h.resigned()
		case e.Type == mvccpb.Event_DELETE:
			return h.lose("the key was deleted")
		case !k.isOurs(e.Kv):
			return h.lose("the key was put by another program")
		}
		return nil
	}).follow(ctx)
}

// changes is a watch of the key from a revision on.
func (k *etcdKey) changes(s *connect.EtcdSession, from int64, event func(*mvccpb.Event) error) changes {
	return changes{session: s, event: event, ranges: []*etcdserverpb.WatchCreateRequest{{Key: []byte(k.key), StartRevision: from, PrevKv: true}}}
}

// renew keeps the lease alive, by one stream: each stream is a login. Renewals do not wait
// for each other's answers, which come in the order of the questions.
func (k *etcdKey) renew(ctx context.Context, s *connect.EtcdSession, h *holding) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var receiving sync.WaitGroup
	defer receiving.Wait()
	defer cancel(nil)
	stream, err := etcdserverpb.NewLeaseClient(s.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return fmt.Errorf("renew lease %x: %w", k.lease, etcdError(err))
	}
	answered := make(chan struct{}, renewIn/renewEvery+1)
	receiving.Go(func() {
		for {
			answer, err := stream.Recv()
			if err == nil && answer.TTL <= 0 {
				err = h.lose("its lease is gone")
			}
			if err != nil {
				cancel(fmt.Errorf("renew lease %x: %w", k.lease, etcdError(err)))
				return
			}
			select {
			case answered <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	})
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	var asked []time.Time // of those without an answer
	for {
		now := time.Now()
		if len(asked) > 0 && now.Sub(asked[0]) > renewIn {
			return fmt.Errorf("renew lease %x: no answer in %v", k.lease, renewIn)
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
					k.alive = asked[0].Add(leaseTTL * time.Second)
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

func (k *etcdKey) await(ctx context.Context) {
	if err := k.standBy(ctx); err != nil && ctx.Err() == nil {
		k.fail(err)
		backoff.Wait(ctx, backoff.Pause(0))
	}
}

// standBy waits until the key may be free, or the session breaks.
func (k *etcdKey) standBy(ctx context.Context) error {
	s, err := k.open(ctx)
	if err != nil {
		return err
	}
	from := k.seen + 1
	err = together(clientv3.WithRequireLeader(ctx),
		func(ctx context.Context) error {
			return k.changes(s, from, func(e *mvccpb.Event) error {
				if e.Type == mvccpb.Event_DELETE || isResigned(e.Kv.Value) {
					return errFree
				}
				return nil
			}).follow(ctx)
		},
		func(ctx context.Context) error { return k.lookAgain(ctx, s) })
	if errors.Is(err, errFree) {
		return nil
	}
	return err
}

// lookAgain looks at the key of another program from time to time, beside the watch.
func (k *etcdKey) lookAgain(ctx context.Context, s *connect.EtcdSession) error {
	for backoff.Wait(ctx, lookAgain) {
		got, err := get(ctx, s, k.key, clientv3.WithKeysOnly())
		if err == nil {
			err = s.CheckCluster(got.Header)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", k.key, err)
		}
		if len(got.Kvs) == 0 || got.Kvs[0].ModRevision != k.rival { // it may be another program's now
			return errFree
		}
		k.seen = got.Header.Revision
	}
	return context.Cause(ctx)
}
