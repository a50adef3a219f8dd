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

// errNoLease means that a key has no lease.
var errNoLease = errors.New("it has no lease, so nothing will ever delete it: it was put manually")

// EtcdKey elects the leader of its namespaces with a key in etcd.
type EtcdKey struct {
	Endpoints  *connect.EtcdEndpoints
	Namespaces wire.Namespaces
	Stats      *stats.Stats
	Log        *slog.Logger

	// Lost, if not nil, is called when this program's key in etcd was changed or deleted, because
	// etcd may have lost other data, too.
	Lost func()
}

// Hold makes this program the leader of its namespaces until ctx ends, with value (a JSON object)
// in the key. Then it deletes the key. It fails with ErrExists if another program has the key and
// standby is false, and if etcd refuses the credentials from the start.
func (e *EtcdKey) Hold(ctx context.Context, value []byte, standby bool) error {
	l := e.lock(value)
	defer l.close()
	el := elector{lock: l, stats: e.Stats, log: e.Log, standby: standby}
	return el.run(ctx)
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

// etcdLock is the lock in etcd, at the key that the original used. The program holds the lock
// while the key is unchanged since the program put it. A live lease does not prove that: the key
// may have been deleted or replaced.
type etcdLock struct {
	stats      *stats.Stats
	log        *slog.Logger
	lost       func() // EtcdKey.Lost
	sessions   *connect.EtcdSessions
	session    *connect.EtcdSession // nil if none is open
	key        string
	value      []byte
	lease      clientv3.LeaseID // the same for as long as the program runs
	granted    bool             // the lease may be alive
	aliveUntil time.Time        // until when the lease is certainly alive, unless it is revoked

	createdRevision     int64 // the revision at which this program put the key; 0: it does not hold it
	predecessorResigned bool  // the previous holder has resigned
	replayHistory       bool  // the watch has yet to read the key's history before createdRevision, which may also show a resignation
	seenRevision        int64 // etcd's revision when another program was last seen to hold the key; 0: never
	rivalRevision       int64 // the revision at which that program put the key
}

func (l *etcdLock) String() string { return l.key }

func (l *etcdLock) permanent(error) bool { return l.sessions.PermanentError() != nil }

func (l *etcdLock) backoff(n int, _ error) time.Duration { return backoff.Pause(n) }

// open returns the session, and opens one if there is none.
func (l *etcdLock) open(ctx context.Context) (*connect.EtcdSession, error) {
	if l.session == nil {
		s, err := l.sessions.Open(ctx)
		if err != nil {
			return nil, err
		}
		l.session = s
	}
	return l.session, nil
}

func (l *etcdLock) close() {
	if l.session != nil {
		l.session.Close()
		l.session = nil
	}
}

// fail ends the session, and reports whether all endpoints have been tried.
func (l *etcdLock) fail(err error) (all bool) {
	l.close()
	l.stats.CountFailure(stats.PeerEtcd)
	return l.sessions.Failed(err)
}

func (l *etcdLock) tryAcquire(ctx context.Context) error {
	s, err := l.open(ctx)
	if err == nil {
		err = l.grant(ctx, s)
	}
	if err == nil {
		err = l.create(ctx, s)
	}
	switch {
	case err == nil:
		l.sessions.Succeeded()
	case errors.Is(err, ErrExists):
		l.sessions.Succeeded()
		_ = l.revoke(ctx, s) // a standby needs no lease; if this fails, the lease expires
	case ctx.Err() == nil:
		l.fail(err)
		if refusal := l.sessions.PermanentError(); refusal != nil {
			err = refusal
		}
	}
	return err
}

// grant gets the lease, unless the present one lives long enough. A lease that exists already
// is left from an attempt whose response was lost, and is replaced.
func (l *etcdLock) grant(ctx context.Context, s *connect.EtcdSession) error {
	if time.Until(l.aliveUntil) > connect.EtcdCallTimeout {
		return nil
	}
	err := l.tryGrant(ctx, s)
	if errors.Is(err, rpctypes.ErrLeaseExist) {
		if err = l.revoke(ctx, s); err == nil {
			err = l.tryGrant(ctx, s)
		}
	}
	if err != nil {
		return fmt.Errorf("get a lease: %w", err)
	}
	return nil
}

func (l *etcdLock) tryGrant(ctx context.Context, s *connect.EtcdSession) error {
	ctx, cancel := callContext(ctx)
	defer cancel()
	l.granted = true
	requested := time.Now()
	got, err := etcdserverpb.NewLeaseClient(s.ActiveConnection()).LeaseGrant(ctx, &etcdserverpb.LeaseGrantRequest{ID: int64(l.lease), TTL: leaseTTL})
	if err != nil {
		return connect.EtcdError(err)
	}
	l.aliveUntil = requested.Add(leaseTTL * time.Second)
	return s.CheckCluster(got.Header)
}

func (l *etcdLock) revoke(ctx context.Context, s *connect.EtcdSession) error {
	ctx, cancel := callContext(ctx)
	defer cancel()
	l.aliveUntil = time.Time{}
	_, err := s.Revoke(ctx, l.lease)
	if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		l.granted = false
		return nil
	}
	return fmt.Errorf("revoke lease %x: %w", l.lease, err)
}

// callContext returns the context of one call to etcd.
func callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(clientv3.WithRequireLeader(ctx), connect.EtcdCallTimeout)
}

// create puts the key if there is none, or if its holder has resigned.
func (l *etcdLock) create(ctx context.Context, s *connect.EtcdSession) error {
	found, at, err := l.put(ctx, s, clientv3.Compare(clientv3.CreateRevision(l.key), "=", 0))
	if err == nil && found != nil && isResigned(found.Value) {
		found, at, err = l.put(ctx, s, clientv3.Compare(clientv3.ModRevision(l.key), "=", found.ModRevision))
		l.predecessorResigned = err == nil && found == nil
	}
	switch {
	case errors.Is(err, connect.ErrEtcdTooLarge):
		return l.checkLargeRival(ctx, s)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		l.aliveUntil = time.Time{}
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", l.key, err)
	}
	if found == nil {
		l.createdRevision, l.replayHistory = at, true
		return nil
	}
	if clientv3.LeaseID(found.Lease) == l.lease { // put by an attempt whose response was lost
		l.createdRevision, l.replayHistory = found.ModRevision, true
		return nil
	}
	l.seenRevision, l.rivalRevision = at, found.ModRevision
	exists := fmt.Errorf("%w%s, started for %s", ErrExists, hostSuffix(found.Value), connect.OneLine(found.Value))
	if found.Lease == 0 {
		return fmt.Errorf("create %s: %w: %w; if there is no such program: etcdctl del %s", l.key, exists, errNoLease, l.key)
	}
	return fmt.Errorf("create %s: %w (a program that was killed leaves its key for up to %d s)", l.key, exists, leaseTTL)
}

// put puts the key if a condition holds. Otherwise it returns the present key as found. at is
// etcd's revision.
func (l *etcdLock) put(ctx context.Context, s *connect.EtcdSession, condition clientv3.Cmp) (found *mvccpb.KeyValue, at int64, err error) {
	ctx, cancel := callContext(ctx)
	defer cancel()
	done, err := s.Txn(ctx).
		If(condition).
		Then(clientv3.OpPut(l.key, string(l.value), clientv3.WithLease(l.lease))).
		Else(clientv3.OpGet(l.key)).
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
			err = errors.New("the key was deleted meanwhile")
		}
	}
	return found, done.Header.Revision, err
}

// checkLargeRival handles another program's key whose value is too large to read.
func (l *etcdLock) checkLargeRival(ctx context.Context, s *connect.EtcdSession) error {
	got, err := connect.EtcdGet(clientv3.WithRequireLeader(ctx), s, l.key, clientv3.WithKeysOnly())
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", l.key, err)
	case len(got.Kvs) == 0:
		return fmt.Errorf("create %s: the key was deleted meanwhile", l.key)
	}
	l.seenRevision, l.rivalRevision = got.Header.Revision, got.Kvs[0].ModRevision
	return fmt.Errorf("create %s: %w, and its key has a value of more than %d bytes", l.key, ErrExists, connect.MaxEtcdMessage)
}

// release deletes the key by revoking the lease. Before that it marks the key as resigned, so
// that the next holder does not have to wait.
func (l *etcdLock) release(ctx context.Context) {
	if !l.granted {
		return
	}
	s, err := l.open(ctx)
	if err == nil && l.createdRevision != 0 {
		_ = l.resign(ctx, s) // if this fails, the next holder waits
	}
	if err == nil {
		err = l.revoke(ctx, s)
	}
	if err != nil && l.createdRevision != 0 {
		l.log.Warn(fmt.Sprintf("Failed to delete %s; its lease expires within %d s", l.key, leaseTTL))
	}
}

func (l *etcdLock) resign(ctx context.Context, s *connect.EtcdSession) error {
	_, err := s.Txn(clientv3.WithRequireLeader(ctx)).
		If(clientv3.Compare(clientv3.ModRevision(l.key), "=", l.createdRevision)).
		Then(clientv3.OpPut(l.key, markResigned(l.value), clientv3.WithLease(l.lease))).
		Commit()
	return err
}

// hostSuffix returns " on host " and the host of the program that put a value, or nothing if the
// value has no host, like the original's values.
func hostSuffix(value []byte) string {
	var v struct{ Host string }
	if json.Unmarshal(value, &v) != nil || v.Host == "" {
		return ""
	}
	return " on host " + connect.OneLine([]byte(v.Host))
}
