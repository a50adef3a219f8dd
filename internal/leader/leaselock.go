package leader

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/group"
	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

// These annotations of the Lease hold the key as it would be in etcd, which is no valid name of a
// Kubernetes object, and the key's value.
const (
	keyAnnotation   = "dynamo-metrics/key"
	valueAnnotation = "dynamo-metrics/value"
)

// maxLeaseSeconds bounds how long to wait for a holder that does not renew its Lease.
const maxLeaseSeconds = 60

const (
	// standbyInterval is how often a standby reads the Lease.
	standbyInterval = 500 * time.Millisecond
	// leaseRenewInterval is how often the holder renews the Lease.
	leaseRenewInterval = 2 * time.Second
	// acquireTimeout bounds an attempt to acquire the Lease.
	acquireTimeout = 5 * time.Second
)

// Lease elects the leader of its namespaces with a Kubernetes Lease.
type Lease struct {
	Client     *kube.Client
	In         string // the Kubernetes namespace of the Lease
	Namespaces wire.Namespaces
	Stats      *stats.Stats
	Log        *slog.Logger
}

// Hold makes this program the leader of its namespaces until ctx ends, with value (a JSON object)
// in an annotation of the Lease. Then it releases the Lease. identity names the program's pod.
// Hold fails with ErrExists if another program holds the Lease and standby is false.
func (e *Lease) Hold(ctx context.Context, identity string, value []byte, standby bool) error {
	el := elector{lock: e.lock(identity, value), stats: e.Stats, log: e.Log, standby: standby}
	return el.run(ctx)
}

func (e *Lease) lock(identity string, value []byte) *leaseLock {
	key := wire.LeaderKey(string(e.Namespaces))
	return &leaseLock{
		client: e.Client, stats: e.Stats, log: e.Log,
		namespace: e.In, name: leaseName(key), key: key, value: value, identity: identity + "_" + strings.ToLower(rand.Text()[:8]),
	}
}

// leaseName returns the name of the Lease for a key. It uses SHA-256 because Helm can compute that,
// too: a Role can then name this one Lease.
func leaseName(key string) string {
	return fmt.Sprintf("dynamo-metrics-%x", sha256.Sum256([]byte(key)))[:len("dynamo-metrics-")+16]
}

// leaseLock is the lock as a Kubernetes Lease. The program holds the lock while the Lease is
// unchanged since the program last wrote it: an update of a Lease that has changed is a conflict.
type leaseLock struct {
	client          *kube.Client
	stats           *stats.Stats
	log             *slog.Logger
	namespace, name string
	key             string
	value           []byte
	identity        string

	last                *kube.Lease // as the API server last returned it; nil if it is not known
	updateUnknown       bool        // an update may have succeeded although its response was lost
	predecessorResigned bool        // the previous holder has resigned
	retry               kube.Backoff

	// Another holder is alive as long as it changes the Lease. The time since the last change is
	// measured with this program's clock, because the holder's clock may differ.
	observedVersion string
	observedAt      time.Time // when that version was first seen
	holderRenews    bool      // the version has changed since it was first read
}

func (l *leaseLock) String() string { return l.namespace + "/" + l.name + " (" + l.key + ")" }

// permanent always returns false: permissions may be granted while the program runs.
func (l *leaseLock) permanent(error) bool { return false }

func (l *leaseLock) awaitFree(ctx context.Context) { backoff.Wait(ctx, standbyInterval) }

func (l *leaseLock) backoff(_ int, err error) time.Duration { return leaseBackoff(&l.retry, err) }

// leaseBackoff returns how long to wait after a failed call about a Lease. The API server may ask
// for a pause that is longer than the Lease lasts. In that case leaseBackoff shortens it, so that a
// few attempts are made before the Lease expires: otherwise the leader would lose the Lease, and
// the next leader would have to wait as well.
func leaseBackoff(b *kube.Backoff, err error) time.Duration {
	pause := b.Next(err)
	if kube.IsStatus(err, http.StatusConflict) { // another client has changed the Lease first
		return backoff.Pause(0)
	}
	return min(pause, confirmTimeout)
}

// tryAcquire creates the Lease, or takes over one that has no holder or has expired.
func (l *leaseLock) tryAcquire(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, acquireTimeout)
	defer cancel()
	err := l.acquireOrTakeOver(ctx)
	if err == nil {
		l.retry.Reset()
	} else if !errors.Is(err, ErrExists) && !errors.Is(err, errMayExist) && !errors.Is(ctx.Err(), context.Canceled) {
		l.stats.CountFailure(stats.PeerKubernetes)
	}
	return err
}

func (l *leaseLock) acquireOrTakeOver(ctx context.Context) error {
	found, err := l.client.GetLease(ctx, l.namespace, l.name)
	if kube.IsStatus(err, http.StatusNotFound) {
		created, err := l.client.CreateLease(ctx, l.desired(&kube.Lease{}))
		if err != nil {
			return fmt.Errorf("create lease %s: %w", l, err)
		}
		l.last, l.updateUnknown, l.predecessorResigned = created, false, false
		return nil
	}
	if err != nil {
		return fmt.Errorf("read lease %s: %w", l, err)
	}
	if err := l.checkHolder(found); err != nil {
		return fmt.Errorf("lease %s: %w%s: its holder is %s", l, err, hostSuffix([]byte(found.Metadata.Annotations[valueAnnotation])), connect.OneLine([]byte(found.Spec.HolderIdentity)))
	}
	taken, err := l.client.UpdateLease(ctx, l.desired(found))
	if err != nil {
		return fmt.Errorf("take over lease %s: %w", l, err)
	}
	// If the value is not marked as resigned, the holder's name may have been removed manually.
	l.predecessorResigned = found.Spec.HolderIdentity == "" && isResigned([]byte(found.Metadata.Annotations[valueAnnotation]))
	l.last, l.updateUnknown = taken, false
	return nil
}

// checkHolder returns why the Lease cannot be acquired. The error is ErrExists if another program
// renews it, and errMayExist if it has not expired yet: unlike a key in etcd, a Lease stays when
// its holder is killed.
func (l *leaseLock) checkHolder(found *kube.Lease) error {
	if found.Spec.HolderIdentity == "" || found.Spec.HolderIdentity == l.identity {
		return nil
	}
	now := time.Now()
	if found.Metadata.ResourceVersion != l.observedVersion {
		l.holderRenews = l.observedVersion != ""
		l.observedVersion, l.observedAt = found.Metadata.ResourceVersion, now
	}
	switch {
	case now.Sub(l.observedAt) >= time.Duration(min(max(found.Spec.LeaseDurationSeconds, leaseTTL), maxLeaseSeconds))*time.Second:
		return nil
	case l.holderRenews:
		return ErrExists
	}
	return errMayExist
}

// desired returns the Lease with this program as its holder.
func (l *leaseLock) desired(found *kube.Lease) *kube.Lease {
	lease, now := *found, &kube.MicroTime{Time: time.Now()}
	lease.Metadata.Name, lease.Metadata.Namespace = l.name, l.namespace
	lease.Metadata.Annotations = map[string]string{keyAnnotation: l.key, valueAnnotation: connect.JoinLines(l.value)}
	if lease.Spec.HolderIdentity != l.identity {
		if found.Metadata.ResourceVersion != "" {
			lease.Spec.LeaseTransitions++
		}
		lease.Spec.AcquireTime = now
	}
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = l.identity, leaseTTL, now
	return &lease
}

func (l *leaseLock) hold(ctx context.Context, h *leadership) error {
	if l.predecessorResigned {
		h.predecessorResigned()
	}
	err := group.UntilFirst(ctx,
		func(ctx context.Context) error { return l.renewLoop(ctx, h) },
		func(ctx context.Context) error { return l.verifyLoop(ctx, h) })
	if errors.Is(err, errLost) {
		l.last = nil
		return err
	}
	return nil
}

// renewLoop renews the Lease at intervals.
func (l *leaseLock) renewLoop(ctx context.Context, h *leadership) error {
	logged := false
	for pause := leaseRenewInterval; backoff.Wait(ctx, pause); {
		requested := time.Now()
		err := l.renew(ctx, h)
		switch {
		case err == nil:
			h.markConfirmed(requested)
			l.retry.Reset()
			logged = false
			pause = leaseRenewInterval - time.Since(requested)
			continue
		case errors.Is(err, errLost):
			return err
		case ctx.Err() != nil:
			continue
		}
		l.stats.CountFailure(stats.PeerKubernetes)
		h.markUnreachable()
		if !logged {
			logged = true
			l.log.Warn("The lease of the unique instance cannot be updated; retrying, and another instance may take it when it expires",
				"lease", l, "error", err)
		}
		pause = leaseBackoff(&l.retry, err)
	}
	return context.Cause(ctx)
}

// renew updates the Lease as it was last written. The update fails if another client has changed
// the Lease.
func (l *leaseLock) renew(ctx context.Context, h *leadership) error {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	if l.updateUnknown {
		found, err := l.verify(ctx, h)
		if err != nil {
			return err
		}
		l.last, l.updateUnknown = found, false
	}
	renewed, err := l.client.UpdateLease(ctx, l.desired(l.last))
	switch {
	case err == nil:
		l.last = renewed
	case kube.IsStatus(err, http.StatusNotFound):
		err = h.markLost("the lease was deleted")
	case kube.IsStatus(err, http.StatusConflict):
		err = h.markLost("the lease was changed by another program")
	default:
		l.updateUnknown = true
	}
	return err
}

// verifyLoop reads the Lease between its updates, so that a loss is noticed soon.
func (l *leaseLock) verifyLoop(ctx context.Context, h *leadership) error {
	var b apiBackoff
	return h.confirmLoop(ctx, func(ctx context.Context) (ours bool, err error) {
		if !b.wait(ctx) {
			return false, nil
		}
		_, err = l.verify(ctx, h)
		if err == nil || errors.Is(err, errLost) {
			b.succeeded()
			return err == nil, err
		}
		if !errors.Is(ctx.Err(), context.Canceled) {
			l.stats.CountFailure(stats.PeerKubernetes)
			b.failed(err)
		}
		return false, nil
	})
}

// verify reads the Lease. The error is errLost if this program does not hold it.
func (l *leaseLock) verify(ctx context.Context, h *leadership) (*kube.Lease, error) {
	found, err := l.client.GetLease(ctx, l.namespace, l.name)
	switch {
	case kube.IsStatus(err, http.StatusNotFound):
		return nil, h.markLost("the lease was deleted")
	case err != nil:
		return nil, err
	case found.Spec.HolderIdentity != l.identity:
		return nil, h.markLost(fmt.Sprintf("the lease's holder is %q", connect.OneLine([]byte(found.Spec.HolderIdentity))))
	}
	return found, nil
}

// apiBackoff delays requests to the API server after failures. Its methods may be called
// concurrently.
type apiBackoff struct {
	mu      sync.Mutex
	backoff kube.Backoff
	until   time.Time
}

// failed records a call that failed.
func (b *apiBackoff) failed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until = time.Now().Add(leaseBackoff(&b.backoff, err))
}

// succeeded records a call that succeeded.
func (b *apiBackoff) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backoff.Reset()
}

// wait waits until a request may be sent. It returns false if the next request is due before
// that, or if ctx ends.
func (b *apiBackoff) wait(ctx context.Context) bool {
	b.mu.Lock()
	left := time.Until(b.until)
	b.mu.Unlock()
	return left < confirmInterval && backoff.Wait(ctx, max(left, 0))
}

// release removes the holder from the Lease, so that a standby does not have to wait.
func (l *leaseLock) release(ctx context.Context) {
	if l.last == nil {
		return
	}
	if l.updateUnknown {
		found, err := l.client.GetLease(ctx, l.namespace, l.name)
		if err != nil || found.Spec.HolderIdentity != l.identity {
			return
		}
		l.last = found
	}
	released := *l.last
	released.Metadata.Annotations = map[string]string{keyAnnotation: l.key, valueAnnotation: connect.JoinLines([]byte(markResigned(l.value)))}
	released.Spec = kube.LeaseSpec{LeaseDurationSeconds: 1, LeaseTransitions: l.last.Spec.LeaseTransitions, RenewTime: &kube.MicroTime{Time: time.Now()}}
	_, _ = l.client.UpdateLease(ctx, &released) // if this fails, the Lease expires or has another holder
}
