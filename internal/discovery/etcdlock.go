package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
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

// Hold makes this the unique instance of its namespaces, with value (a JSON object) in its
// key, until ctx ends; then the key goes. It fails with ErrExists where another program has
// the key, unless it may stand by, and where etcd refuses the credentials from the start.
func (r *Etcd) Hold(ctx context.Context, value []byte, standby bool, log *slog.Logger) error {
	k := r.place(value, log)
	defer k.close()
	u := unique{place: k, tally: &r.Fleet.Stats, log: log, standby: standby}
	return u.hold(ctx)
}

func (r *Etcd) place(value []byte, log *slog.Logger) *etcdKey {
	return &etcdKey{
		etcd:     r,
		log:      log,
		sessions: r.Endpoints.Sessions(),
		key:      wire.LeaderKey(string(r.Namespaces)),
		value:    value,
		lease:    clientv3.LeaseID(1 + rand.Int64N(1<<62)),
	}
}

// etcdKey is the place in etcd, where the original had it. What is held is the key as we have
// put it: a lease that lives says nothing of a key that was deleted, or put by another.
type etcdKey struct {
	etcd     *Etcd
	log      *slog.Logger
	sessions *connect.EtcdSessions
	session  *connect.EtcdSession // nil: none is open
	key      string
	value    []byte
	lease    clientv3.LeaseID // the same for as long as the program runs
	granted  bool             // it may be alive
	alive    time.Time        // until when it is for certain, unless it is revoked

	created int64 // the revision at which we put it; 0: it is not ours
	free    bool  // the program that had it before has resigned
	replay  bool  // what became of the key before that is to be looked at yet, which may say so, too
	seen    int64 // etcd's revision when another program was last seen to have the key; 0: none was
	rival   int64 // the revision at which that one had put it
}

func (k *etcdKey) String() string { return k.key }

func (k *etcdKey) permanent(error) bool { return k.sessions.PermanentError() != nil }

func (k *etcdKey) pause(n int, _ error) time.Duration { return backoff.Pause(n) }

// open opens a session, if none is.
func (k *etcdKey) open(ctx context.Context) (*connect.EtcdSession, error) {
	if k.session == nil {
		s, err := k.sessions.Open(ctx)
		if err != nil {
			return nil, err
		}
		k.session = s
	}
	return k.session, nil
}

func (k *etcdKey) close() {
	if k.session != nil {
		k.session.Close()
		k.session = nil
	}
}

// fail ends the session, and reports whether all endpoints have been tried.
func (k *etcdKey) fail(err error) (all bool) {
	k.close()
	k.etcd.Fleet.Stats.CountFailure(stats.PeerEtcd)
	return k.sessions.Failed(err)
}

func (k *etcdKey) take(ctx context.Context) error {
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
func (k *etcdKey) grant(ctx context.Context, s *connect.EtcdSession) error {
	if time.Until(k.alive) > callTimeout {
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

func (k *etcdKey) tryGrant(ctx context.Context, s *connect.EtcdSession) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	k.granted = true
	asked := time.Now()
	got, err := etcdserverpb.NewLeaseClient(s.ActiveConnection()).LeaseGrant(ctx, &etcdserverpb.LeaseGrantRequest{ID: int64(k.lease), TTL: leaseTTL})
	if err != nil {
		return etcdError(err)
	}
	k.alive = asked.Add(leaseTTL * time.Second)
	return s.CheckCluster(got.Header)
}

func (k *etcdKey) revoke(ctx context.Context, s *connect.EtcdSession) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	k.alive = time.Time{}
	_, err := s.Revoke(ctx, k.lease)
	if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		k.granted = false
		return nil
	}
	return fmt.Errorf("revoke lease %x: %w", k.lease, err)
}

// bounded is the context of one call.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(clientv3.WithRequireLeader(ctx), callTimeout)
}

// create makes the key, if there is none or the program that has it has resigned.
func (k *etcdKey) create(ctx context.Context, s *connect.EtcdSession) error {
	found, at, err := k.put(ctx, s, clientv3.Compare(clientv3.CreateRevision(k.key), "=", 0))
	if err == nil && found != nil && isResigned(found.Value) {
		found, at, err = k.put(ctx, s, clientv3.Compare(clientv3.ModRevision(k.key), "=", found.ModRevision))
		k.free = err == nil && found == nil
	}
	switch {
	case errors.Is(err, errTooLarge):
		return k.rivalUnread(ctx, s)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		k.alive = time.Time{}
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", k.key, err)
	}
	if found == nil {
		k.created, k.replay = at, true
		return nil
	}
	if clientv3.LeaseID(found.Lease) == k.lease { // by an attempt whose answer was lost
		k.created, k.replay = found.ModRevision, true
		return nil
	}
	k.seen, k.rival = at, found.ModRevision
	exists := fmt.Errorf("%w%s, started for %s", ErrExists, onHost(found.Value), oneLine(found.Value))
	if found.Lease == 0 {
		return fmt.Errorf("create %s: %w: %w; if there is no such program: etcdctl del %s", k.key, exists, errNoLease, k.key)
	}
	return fmt.Errorf("create %s: %w (a program that was killed leaves its key for up to %d s)", k.key, exists, leaseTTL)
}

// put puts the key on a condition. Found is what is there if that does not hold; at is etcd's
// revision.
func (k *etcdKey) put(ctx context.Context, s *connect.EtcdSession, condition clientv3.Cmp) (found *mvccpb.KeyValue, at int64, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	done, err := s.Txn(ctx).
		If(condition).
		Then(clientv3.OpPut(k.key, string(k.value), clientv3.WithLease(k.lease))).
		Else(clientv3.OpGet(k.key)).
		Commit()
	if err = etcdError(err); err == nil {
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
func (k *etcdKey) rivalUnread(ctx context.Context, s *connect.EtcdSession) error {
	got, err := get(clientv3.WithRequireLeader(ctx), s, k.key, clientv3.WithKeysOnly())
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", k.key, err)
	case len(got.Kvs) == 0:
		return fmt.Errorf("create %s: it is gone again", k.key)
	}
	k.seen, k.rival = got.Header.Revision, got.Kvs[0].ModRevision
	return fmt.Errorf("create %s: %w, and its key has a value of more than %d bytes", k.key, ErrExists, connect.MaxEtcdMessage)
}

// release gives the key back, and the lease. Before, it says in the key that no
// program need wait for this one.
func (k *etcdKey) release(ctx context.Context) {
	if !k.granted {
		return
	}
	s, err := k.open(ctx)
	if err == nil && k.created != 0 {
		_ = k.resign(ctx, s) // else the next one waits
	}
	if err == nil {
		err = k.revoke(ctx, s)
	}
	if err != nil && k.created != 0 {
		k.log.Warn(fmt.Sprintf("Failed to delete %s; it goes with its lease within %d s", k.key, leaseTTL))
	}
}

func (k *etcdKey) resign(ctx context.Context, s *connect.EtcdSession) error {
	_, err := s.Txn(clientv3.WithRequireLeader(ctx)).
		If(clientv3.Compare(clientv3.ModRevision(k.key), "=", k.created)).
		Then(clientv3.OpPut(k.key, resigned(k.value), clientv3.WithLease(k.lease))).
		Commit()
	return err
}

// onHost is where the program runs that put a value, as far as it says so: the original does not.
func onHost(value []byte) string {
	var v struct{ Host string }
	if json.Unmarshal(value, &v) != nil || v.Host == "" {
		return ""
	}
	return " on host " + oneLine([]byte(v.Host))
}

// oneLine is what a key's value says, fit for an error message.
func oneLine(value []byte) string {
	s := flat(value)
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

func flat(value []byte) string { return strings.Join(strings.Fields(string(value)), " ") }
