package leader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// errNoLease says that a key hangs on no lease.
var errNoLease = errors.New("it hangs on no lease, so that nothing will ever delete it: it was put by hand")

// EtcdKey elects the one leader of its namespaces by a key in etcd.
type EtcdKey struct {
	Endpoints  *connect.EtcdEndpoints
	Namespaces wire.Namespaces
	Stats      *stats.Stats
	Log        *slog.Logger

	// Lost, if not nil, is called when etcd no longer has the key as this program put it: etcd
	// may have lost other data, too.
	Lost func()
}

// Hold makes this the leader of its namespaces, with value (a JSON object) in the key, until
// ctx ends; then it deletes the key. It fails with ErrExists where another program has the key,
// unless standby is set, and where etcd refuses the credentials from the start.
func (e *EtcdKey) Hold(ctx context.Context, value []byte, standby bool) error {
	k := e.lock(value)
	defer k.close()
	u := elector{lock: k, stats: e.Stats, log: e.Log, standby: standby}
	return u.run(ctx)
}

func (e *EtcdKey) lock(value []byte) *etcdLock {
	return &etcdLock{
		stats:    e.Stats,
		log:      e.Log,
		lost:     e.Lost,
		sessions: e.Endpoints.Sessions(),
		key:      wire.LeaderKey(string(e.Namespaces)),
		value:    value,
		lease:    clientv3.LeaseID(1 + rand.Int64N(1<<62)),
	}
}

// etcdKey is the place in etcd, where the original had it. What is held is the key as we have
// put it: a lease that lives says nothing of a key that was deleted, or put by another.
type etcdLock struct {
	stats      *stats.Stats
	log        *slog.Logger
	lost       func() // as EtcdKey.Lost
	sessions   *connect.EtcdSessions
	session    *connect.EtcdSession // nil: none is open
	key        string
	value      []byte
	lease      clientv3.LeaseID // the same for as long as the program runs
	granted    bool             // it may be alive
	aliveUntil time.Time        // until when it is for certain, unless it is revoked

	createdRevision     int64 // the revision at which we put it; 0: it is not ours
	predecessorResigned bool  // the program that had it before has resigned
	replayHistory       bool  // what became of the key before that is to be looked at yet, which may say so, too
	seenRevision        int64 // etcd's revision when another program was last seen to have the key; 0: none was
	rivalRevision       int64 // the revision at which that one had put it
}

func (k *etcdLock) String() string { return k.key }

func (k *etcdLock) permanent(error) bool { return k.sessions.PermanentError() != nil }

func (k *etcdLock) backoff(n int, _ error) time.Duration { return backoff.Pause(n) }

// open opens a session, if none is.
func (k *etcdLock) open(ctx context.Context) (*connect.EtcdSession, error) {
	if k.session == nil {
		s, err := k.sessions.Open(ctx)
		if err != nil {
			return nil, err
		}
		k.session = s
	}
	return k.session, nil
}

func (k *etcdLock) close() {
	if k.session != nil {
		k.session.Close()
		k.session = nil
	}
}

// fail ends the session, and reports whether all endpoints have been tried.
func (k *etcdLock) fail(err error) (all bool) {
	k.close()
	k.stats.CountFailure(stats.PeerEtcd)
	return k.sessions.Failed(err)
}

func (k *etcdLock) tryAcquire(ctx context.Context) error {
	s, err := k.open(ctx)
	if err == nil {
		err = k.grant(ctx, s)
	}
	if err == nil {
		err = k.create(ctx, s)
	}
	switch {
	case err == nil:
		k.sessions.Succeeded()
	case errors.Is(err, ErrExists):
		k.sessions.Succeeded()
		_ = k.revoke(ctx, s) // a program that stands by needs no lease; it ends by itself
	case ctx.Err() == nil:
		k.fail(err)
		if refusal := k.sessions.PermanentError(); refusal != nil {
			err = refusal
		}
	}
	return err
}

// grant gets the lease, unless it lives long enough. One of which that is not known is left
// from an attempt whose answer was lost.
func (k *etcdLock) grant(ctx context.Context, s *connect.EtcdSession) error {
	if time.Until(k.aliveUntil) > connect.EtcdCallTimeout {
		return nil
	}
	err := k.tryGrant(ctx, s)
	if errors.Is(err, rpctypes.ErrLeaseExist) {
		if err = k.revoke(ctx, s); err == nil {
			err = k.tryGrant(ctx, s)
		}
	}
	if err != nil {
		return fmt.Errorf("get a lease: %w", err)
	}
	return nil
}

func (k *etcdLock) tryGrant(ctx context.Context, s *connect.EtcdSession) error {
	ctx, cancel := callContext(ctx)
	defer cancel()
	k.granted = true
	asked := time.Now()
	got, err := etcdserverpb.NewLeaseClient(s.ActiveConnection()).LeaseGrant(ctx, &etcdserverpb.LeaseGrantRequest{ID: int64(k.lease), TTL: leaseTTL})
	if err != nil {
		return connect.EtcdError(err)
	}
	k.aliveUntil = asked.Add(leaseTTL * time.Second)
	return s.CheckCluster(got.Header)
}

func (k *etcdLock) revoke(ctx context.Context, s *connect.EtcdSession) error {
	ctx, cancel := callContext(ctx)
	defer cancel()
	k.aliveUntil = time.Time{}
	_, err := s.Revoke(ctx, k.lease)
	if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		k.granted = false
		return nil
	}
	return fmt.Errorf("revoke lease %x: %w", k.lease, err)
}

// bounded is the context of one call.
func callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(clientv3.WithRequireLeader(ctx), connect.EtcdCallTimeout)
}

// create makes the key, if there is none or the program that has it has resigned.
func (k *etcdLock) create(ctx context.Context, s *connect.EtcdSession) error {
	found, at, err := k.put(ctx, s, clientv3.Compare(clientv3.CreateRevision(k.key), "=", 0))
	if err == nil && found != nil && isResigned(found.Value) {
		found, at, err = k.put(ctx, s, clientv3.Compare(clientv3.ModRevision(k.key), "=", found.ModRevision))
		k.predecessorResigned = err == nil && found == nil
	}
	switch {
	case errors.Is(err, connect.ErrEtcdTooLarge):
		return k.checkLargeRival(ctx, s)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		k.aliveUntil = time.Time{}
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", k.key, err)
	}
	if found == nil {
		k.createdRevision, k.replayHistory = at, true
		return nil
	}
	if clientv3.LeaseID(found.Lease) == k.lease { // by an attempt whose answer was lost
		k.createdRevision, k.replayHistory = found.ModRevision, true
		return nil
	}
	k.seenRevision, k.rivalRevision = at, found.ModRevision
	exists := fmt.Errorf("%w%s, started for %s", ErrExists, hostSuffix(found.Value), connect.OneLine(found.Value))
	if found.Lease == 0 {
		return fmt.Errorf("create %s: %w: %w; if there is no such program: etcdctl del %s", k.key, exists, errNoLease, k.key)
	}
	return fmt.Errorf("create %s: %w (a program that was killed leaves its key for up to %d s)", k.key, exists, leaseTTL)
}

// put puts the key on a condition. Found is what is there if that does not hold; at is etcd's
// revision.
func (k *etcdLock) put(ctx context.Context, s *connect.EtcdSession, condition clientv3.Cmp) (found *mvccpb.KeyValue, at int64, err error) {
	ctx, cancel := callContext(ctx)
	defer cancel()
	done, err := s.Txn(ctx).
		If(condition).
		Then(clientv3.OpPut(k.key, string(k.value), clientv3.WithLease(k.lease))).
		Else(clientv3.OpGet(k.key)).
		Commit()
	if err = connect.EtcdError(err); err == nil {
		err = s.CheckCluster(done.Header)
	}
	if err != nil {
		return nil, 0, err
	}
	if !done.Succeeded {
		if kvs := done.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			found = kvs[0]
		} else {
			err = errors.New("it is gone again")
		}
	}
	return found, done.Header.Revision, err
}

// rivalUnread looks at a key whose value is larger than is read.
func (k *etcdLock) checkLargeRival(ctx context.Context, s *connect.EtcdSession) error {
	got, err := connect.EtcdGet(clientv3.WithRequireLeader(ctx), s, k.key, clientv3.WithKeysOnly())
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", k.key, err)
	case len(got.Kvs) == 0:
		return fmt.Errorf("create %s: it is gone again", k.key)
	}
	k.seenRevision, k.rivalRevision = got.Header.Revision, got.Kvs[0].ModRevision
	return fmt.Errorf("create %s: %w, and its key has a value of more than %d bytes", k.key, ErrExists, connect.MaxEtcdMessage)
}

// release gives the key back, and the lease. Before, it says in the key that no
// program need wait for this one.
func (k *etcdLock) release(ctx context.Context) {
	if !k.granted {
		return
	}
	s, err := k.open(ctx)
	if err == nil && k.createdRevision != 0 {
		_ = k.resign(ctx, s) // else the next one waits
	}
	if err == nil {
		err = k.revoke(ctx, s)
	}
	if err != nil && k.createdRevision != 0 {
		k.log.Warn(fmt.Sprintf("Failed to delete %s; it goes with its lease within %d s", k.key, leaseTTL))
	}
}

func (k *etcdLock) resign(ctx context.Context, s *connect.EtcdSession) error {
	_, err := s.Txn(clientv3.WithRequireLeader(ctx)).
		If(clientv3.Compare(clientv3.ModRevision(k.key), "=", k.createdRevision)).
		Then(clientv3.OpPut(k.key, markResigned(k.value), clientv3.WithLease(k.lease))).
		Commit()
	return err
}

// onHost is where the program runs that put a value, as far as it says so: the original does not.
func hostSuffix(value []byte) string {
	var v struct{ Host string }
	if json.Unmarshal(value, &v) != nil || v.Host == "" {
		return ""
	}
	return " on host " + connect.OneLine([]byte(v.Host))
}
