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

// leaseTTL is that of Dynamo's own processes, in seconds.
const leaseTTL = 10

const (
	// lookAgain is how often a standby looks at the key, whose end it hears of at once, and
	// keeps its own lease alive.
	lookAgain = 2 * time.Second

	renewEvery = time.Second

	// unsure is how long after its last renewal a lease is still alive for certain:
	// beyond it a standby may hold the key before we hear of it.
	unsure = (leaseTTL - 2) * time.Second
)

// farewell bounds what is said to etcd when the program ends.
const farewell = 1500 * time.Millisecond

// ErrExists says that another program holds the unique-instance key.
var ErrExists = errors.New("another instance exists")

// Hold makes this the unique instance of the namespace, with value in its key, and
// keeps it so until ctx ends; then the key goes. Losing the lease is no end: it gets
// a new one and the key again. It fails with ErrExists where somebody else has the
// key, unless it may stand by, and where etcd refuses the credentials.
//
// Where programs stand by, at most one of them takes itself for the unique instance at
// any time: one that may have lost its lease unheard does not.
func (r *Etcd) Hold(ctx context.Context, value []byte) error {
	key := wire.UniqueInstanceKey(string(r.Namespaces))
	r.Log.Info("Creating unique instance of Metrics at " + key)
	h := holder{Etcd: r, key: key, value: string(value)}
	defer h.release(context.WithoutCancel(ctx))
	for again := false; ; again = true {
		if err := h.acquire(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		switch {
		case again:
			r.Log.Info("Holding the unique instance at " + key + " again")
		case h.stoodBy:
			r.Log.Info("Holding the unique instance at " + key)
		}
		h.stoodBy = false
		r.Fleet.Tally.Leader.Store(true)
		h.keep(ctx)
		r.Fleet.Tally.Leader.Store(false)
		if ctx.Err() != nil {
			return nil
		}
		r.Log.Warn("Lost the lease of the unique instance at " + key)
	}
}

type holder struct {
	*Etcd
	key, value string
	stoodBy    bool               // somebody else held it when last tried
	seen       int64              // etcd's revision then
	renewed    time.Time          // when that was last asked for, with success
	lease      clientv3.LeaseID   // the one the key hangs on, or hung on; 0: none yet
	leases     []clientv3.LeaseID // all that were granted and may be alive
}

// keep renews the lease until it is lost or ctx ends. Not by the client's own loop:
// its answers do not say when they were asked for, and one that waited while the
// process was stopped would seem to be new.
func (h *holder) keep(ctx context.Context) {
	for h.claim(); ctx.Err() == nil; {
		connect.Wait(ctx, renewEvery)
		err := h.renewOnce(ctx)
		switch {
		case err == nil:
			h.claim()
		case errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound), time.Since(h.renewed) > leaseTTL*time.Second:
			return
		}
	}
}

func (h *holder) renewOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewEvery)
	defer cancel()
	asked := time.Now()
	_, err := h.Client.KeepAliveOnce(ctx, h.lease)
	if err == nil {
		h.renewed = asked
	}
	return err
}

// claim says that the key was ours when the lease was last renewed.
func (h *holder) claim() {
	if h.Standby {
		h.Fleet.Tally.Unique.For(unsure, h.renewed)
	} else {
		h.Fleet.Tally.Unique.Store(true)
	}
}

// acquire gets the key, however long etcd takes to come.
func (h *holder) acquire(ctx context.Context) error {
	said := false
	for attempt := 0; ctx.Err() == nil; attempt++ {
		err := h.attempt(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrExists) && h.Standby {
			h.standBy(ctx, err)
			attempt = 0
			continue
		}
		if errors.Is(err, ErrExists) || connect.EtcdRefused(err) {
			h.Fleet.Tally.Unique.Store(false)
			return err
		}
		if h.Fleet.Tally.Etcd.Up() && !said { // else Watch speaks of the connection
			h.Log.Warn("Failed to create the unique instance; trying goes on", "error", err)
			said = true
		}
		connect.Wait(ctx, connect.Pause(attempt))
	}
	return nil
}

// standBy waits until the key that somebody else holds may be free.
func (h *holder) standBy(ctx context.Context, reason error) {
	h.Fleet.Tally.Unique.Store(false)
	if !h.stoodBy {
		h.Log.Info("Standing by: " + reason.Error())
	}
	h.stoodBy = true
	watching, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), lookAgain)
	defer cancel()
	for change := range h.Client.Watch(watching, h.key, clientv3.WithRev(h.seen+1), clientv3.WithFilterPut()) {
		if change.Err() == nil {
			return // it is gone
		}
	}
	if watching.Err() == nil { // the watch broke
		connect.Wait(ctx, connect.Pause(0))
	}
}

func (h *holder) attempt(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := h.renew(ctx); err != nil {
		return err
	}
	create, err := h.Client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(h.key), "=", 0)).
		Then(clientv3.OpPut(h.key, h.value, clientv3.WithLease(h.lease))).
		Else(clientv3.OpGet(h.key)).
		Commit()
	if err != nil {
		return fmt.Errorf("create %s: %w", h.key, err)
	}
	if create.Succeeded {
		return nil
	}
	found := create.Responses[0].GetResponseRange().Kvs[0]
	switch owner := clientv3.LeaseID(found.Lease); {
	case owner == h.lease:
		return nil // an earlier attempt whose answer was lost had created it
	case slices.Contains(h.leases, owner):
		h.revoke(ctx, owner)
		return fmt.Errorf("create %s: held by an earlier lease of ours", h.key)
	default:
		h.seen = create.Header.Revision
		return fmt.Errorf("create %s: %w, started for %s (a program that was killed leaves its key for up to %d s)",
			h.key, ErrExists, oneLine(found.Value), leaseTTL)
	}
}

// renew sees to it that h.lease is a lease that is alive.
func (h *holder) renew(ctx context.Context) error {
	if h.lease != 0 {
		err := h.renewOnce(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
			return fmt.Errorf("renew lease %x: %w", h.lease, err)
		}
		h.forget(h.lease)
		h.lease = 0
	}
	asked := time.Now()
	grant, err := h.Client.Grant(ctx, leaseTTL)
	if err != nil {
		return fmt.Errorf("get a lease: %w", err)
	}
	h.lease, h.renewed = grant.ID, asked
	h.leases = append(h.leases, grant.ID)
	return nil
}

// release gives back every lease, and with them the key.
func (h *holder) release(ctx context.Context) {
	h.Fleet.Tally.Leader.Store(false)
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	for _, id := range slices.Clone(h.leases) {
		h.revoke(ctx, id)
	}
	if len(h.leases) > 0 {
		h.Log.Warn(fmt.Sprintf("Failed to delete %s; it goes with its lease within %d s", h.key, leaseTTL))
	}
}

func (h *holder) revoke(ctx context.Context, id clientv3.LeaseID) {
	if _, err := h.Client.Revoke(ctx, id); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		h.Log.Debug("Failed to revoke a lease; it ends by itself", "lease", fmt.Sprintf("%x", id), "error", err)
		return
	}
	h.forget(id)
}

func (h *holder) forget(id clientv3.LeaseID) {
	h.leases = slices.DeleteFunc(h.leases, func(l clientv3.LeaseID) bool { return l == id })
}

// oneLine is what a key's value says, fit for an error message.
func oneLine(value []byte) string {
	s := strings.Join(strings.Fields(string(value)), " ")
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}
