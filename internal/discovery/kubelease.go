package discovery

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/wire"
)

// The Lease's annotations: the key as it would be in etcd, since that is no name of
// Kubernetes', and its value.
const (
	keyAnnotation   = "dynamo-metrics/key"
	valueAnnotation = "dynamo-metrics/value"
)

// longestLease bounds, in seconds, how long a holder of which nothing is heard is waited for.
const longestLease = 60

// lookAtLease is how often a standby looks at the Lease.
const lookAtLease = 500 * time.Millisecond

// Hold makes this the unique instance of its namespaces by a Lease in the Kubernetes
// namespace that it watches, with value in an annotation, until ctx ends; then the Lease
// has no holder. Identity names the program's pod. It fails with ErrExists where another
// program holds the Lease, unless it may stand by.
func (k *Kubernetes) Hold(ctx context.Context, identity string, value []byte, standby bool) error {
	u := unique{
		place:      k.lease(identity, value),
		renewEvery: 2 * time.Second,
		tally:      &k.Fleet.Tally,
		log:        k.Log,
		standby:    standby,
	}
	return u.hold(ctx)
}

func (k *Kubernetes) lease(identity string, value []byte) *kubeLease {
	key := wire.UniqueInstanceKey(string(k.Namespaces))
	return &kubeLease{client: k.Client, namespace: k.In, name: leaseName(key), key: key, value: oneLine(value), identity: identity + "_" + strings.ToLower(rand.Text()[:8])}
}

// leaseName is the name of the Lease of a key. SHA-256 is a hash that others, Helm among
// them, can work out as well: a Role can then name the one Lease.
func leaseName(key string) string {
	return fmt.Sprintf("dynamo-metrics-%x", sha256.Sum256([]byte(key)))[:len("dynamo-metrics-")+16]
}

// kubeLease is the place as a Lease of Kubernetes.
type kubeLease struct {
	client          *kube.Client
	namespace, name string
	key, value      string
	identity        string

	last *kube.Lease // as the API server last had it; nil: not known
	// Whether another holder lives shows by our clock alone: theirs may differ. It does as
	// long as the Lease changes.
	version string
	changed time.Time // when that was first seen
	renews  bool      // it has changed since the first look
}

func (l *kubeLease) String() string { return l.namespace + "/" + l.name + " (" + l.key + ")" }

// hopeless is nothing: rights may be given while the program runs.
func (l *kubeLease) hopeless(error) bool { return false }

func (l *kubeLease) await(ctx context.Context) { connect.Wait(ctx, lookAtLease) }

// take creates the Lease, or takes over one that has no holder or whose holder has not
// renewed it for as long as it said.
func (l *kubeLease) take(ctx context.Context) error {
	found, err := l.client.GetLease(ctx, l.namespace, l.name)
	if kube.IsRefused(err, http.StatusNotFound) {
		created, err := l.client.CreateLease(ctx, l.ours(&kube.Lease{}))
		if err != nil {
			return fmt.Errorf("create lease %s: %w", l, err)
		}
		l.last = created
		return nil
	}
	if err != nil {
		return fmt.Errorf("read lease %s: %w", l, err)
	}
	if err := l.free(found); err != nil {
		return fmt.Errorf("lease %s: %w: %s", l, err, found.Spec.HolderIdentity)
	}
	taken, err := l.client.UpdateLease(ctx, l.ours(found))
	if err != nil {
		return fmt.Errorf("take lease %s: %w", l, err)
	}
	l.last = taken
	return nil
}

// free says why the Lease cannot be had: another program holds it, and renews it, or
// may do so, which shows when its time is over: unlike a key of etcd, a Lease stays
// when its holder is killed.
func (l *kubeLease) free(found *kube.Lease) error {
	if found.Spec.HolderIdentity == "" || found.Spec.HolderIdentity == l.identity {
		return nil
	}
	now := time.Now()
	if found.Metadata.ResourceVersion != l.version {
		l.renews = l.version != ""
		l.version, l.changed = found.Metadata.ResourceVersion, now
	}
	switch {
	case now.Sub(l.changed) >= time.Duration(min(max(found.Spec.LeaseDurationSeconds, leaseTTL), longestLease))*time.Second:
		return nil
	case l.renews:
		return ErrExists
	}
	return errMayExist
}

// ours is the Lease as this program holds it.
func (l *kubeLease) ours(found *kube.Lease) *kube.Lease {
	lease, now := *found, &kube.MicroTime{Time: time.Now()}
	lease.Metadata.Name, lease.Metadata.Namespace = l.name, l.namespace
	lease.Metadata.Annotations = map[string]string{keyAnnotation: l.key, valueAnnotation: l.value}
	if lease.Spec.HolderIdentity != l.identity {
		if found.Metadata.ResourceVersion != "" {
			lease.Spec.LeaseTransitions++
		}
		lease.Spec.AcquireTime = now
	}
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = l.identity, leaseTTL, now
	return &lease
}

// renew replaces the Lease as it was last seen: another's change makes that fail.
func (l *kubeLease) renew(ctx context.Context) error {
	renewed, err := l.client.UpdateLease(ctx, l.ours(l.last))
	switch {
	case err == nil:
		l.last = renewed
		return nil
	case kube.IsRefused(err, http.StatusNotFound):
		return errLost
	case !kube.IsRefused(err, http.StatusConflict):
		return err
	}
	// Somebody changed it; or we did, and the answer was lost.
	found, err := l.client.GetLease(ctx, l.namespace, l.name)
	if err != nil {
		return err
	}
	if found.Spec.HolderIdentity != l.identity {
		return errLost
	}
	l.last = found
	return errors.New("the lease was changed meanwhile")
}

// release leaves the Lease without a holder, so that a standby need not wait.
func (l *kubeLease) release(ctx context.Context) {
	if l.last == nil {
		return
	}
	free := *l.last
	free.Spec = kube.LeaseSpec{LeaseDurationSeconds: 1, LeaseTransitions: l.last.Spec.LeaseTransitions, RenewTime: &kube.MicroTime{Time: time.Now()}}
	_, _ = l.client.UpdateLease(ctx, &free) // who holds it now, or will soon, need not hear of it
}
