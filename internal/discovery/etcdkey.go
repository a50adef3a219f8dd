package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/wire"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// lookAgain is how often a standby looks at the key, whose end it hears of at once, and
// keeps its own lease alive.
const lookAgain = 2 * time.Second

// Hold makes this the unique instance of its namespaces, with value in its key, until
// ctx ends; then the key goes. It fails with ErrExists where another program has the
// key, unless it may stand by, and where etcd refuses the credentials.
func (r *Etcd) Hold(ctx context.Context, value []byte) error {
	u := unique{place: r.place(value), renewEvery: time.Second, tally: &r.Fleet.Tally, log: r.Log, standby: r.Standby}
	return u.hold(ctx)
}

func (r *Etcd) place(value []byte) *etcdKey {
	return &etcdKey{Etcd: r, key: wire.UniqueInstanceKey(string(r.Namespaces)), value: string(value)}
}

// etcdKey is the place in etcd, where the original had it.
type etcdKey struct {
	*Etcd
	key, value string
	seen       int64              // etcd's revision when somebody else held it
	lease      clientv3.LeaseID   // the one the key hangs on, or hung on; 0: none yet
	leases     []clientv3.LeaseID // all that were granted and may be alive
}

func (k *etcdKey) String() string { return k.key }

func (k *etcdKey) hopeless(err error) bool { return connect.EtcdRefused(err) }

func (k *etcdKey) renew(ctx context.Context) error {
	_, err := k.Client.KeepAliveOnce(ctx, k.lease)
	if errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return errLost
	}
	return err
}

func (k *etcdKey) await(ctx context.Context) {
	watching, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), lookAgain)
	defer cancel()
	for change := range k.Client.Watch(watching, k.key, clientv3.WithRev(k.seen+1), clientv3.WithFilterPut()) {
		if change.Err() == nil {
			return // it is gone
		}
	}
	if watching.Err() == nil { // the watch broke
		connect.Wait(ctx, connect.Pause(0))
	}
}

func (k *etcdKey) take(ctx context.Context) error {
	if err := k.keepLease(ctx); err != nil {
		return err
	}
	create, err := k.Client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(k.key), "=", 0)).
		Then(clientv3.OpPut(k.key, k.value, clientv3.WithLease(k.lease))).
		Else(clientv3.OpGet(k.key)).
		Commit()
	if err != nil {
		return fmt.Errorf("create %s: %w", k.key, err)
	}
	if create.Succeeded {
		return nil
	}
	found := create.Responses[0].GetResponseRange().Kvs[0]
	switch owner := clientv3.LeaseID(found.Lease); {
	case owner == k.lease:
		return nil // an earlier attempt whose answer was lost had created it
	case slices.Contains(k.leases, owner):
		k.revoke(ctx, owner)
		return fmt.Errorf("create %s: held by an earlier lease of ours", k.key)
	default:
		k.seen = create.Header.Revision
		return fmt.Errorf("create %s: %w, started for %s (a program that was killed leaves its key for up to %d s)",
			k.key, ErrExists, oneLine(found.Value), leaseTTL)
	}
}

// keepLease sees to it that k.lease is a lease that is alive.
func (k *etcdKey) keepLease(ctx context.Context) error {
	if k.lease != 0 {
		err := k.renew(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errLost) {
			return fmt.Errorf("renew lease %x: %w", k.lease, err)
		}
		k.forget(k.lease)
		k.lease = 0
	}
	grant, err := k.Client.Grant(ctx, leaseTTL)
	if err != nil {
		return fmt.Errorf("get a lease: %w", err)
	}
	k.lease = grant.ID
	k.leases = append(k.leases, grant.ID)
	return nil
}

// release gives back every lease, and with them the key.
func (k *etcdKey) release(ctx context.Context) {
	for _, id := range slices.Clone(k.leases) {
		k.revoke(ctx, id)
	}
	if len(k.leases) > 0 {
		k.Log.Warn(fmt.Sprintf("Failed to delete %s; it goes with its lease within %d s", k.key, leaseTTL))
	}
}

func (k *etcdKey) revoke(ctx context.Context, id clientv3.LeaseID) {
	if _, err := k.Client.Revoke(ctx, id); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		k.Log.Debug("Failed to revoke a lease; it ends by itself", "lease", fmt.Sprintf("%x", id), "error", err)
		return
	}
	k.forget(id)
}

func (k *etcdKey) forget(id clientv3.LeaseID) {
	k.leases = slices.DeleteFunc(k.leases, func(l clientv3.LeaseID) bool { return l == id })
}

// oneLine is what a key's value says, fit for an error message.
func oneLine(value []byte) string {
	s := strings.Join(strings.Fields(string(value)), " ")
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}
