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

// The Lease's annotations: the key as it would be in etcd, since that is no name of
// Kubernetes', and its value.
const (
	keyAnnotation   = "dynamo-metrics/key"
	valueAnnotation = "dynamo-metrics/value"
)

// longestLease bounds, in seconds, how long a holder of which nothing is heard is waited for.
const maxLeaseSeconds = 60

const (
	// lookAtLease is how often a standby looks at the Lease.
	standbyInterval = 500 * time.Millisecond
	// updateLease is how often its holder updates it.
	leaseRenewInterval = 2 * time.Second
)

// Lease elects the one leader of its namespaces by a Lease of Kubernetes.
type Lease struct {
	Client     *kube.Client
	In         string // the Kubernetes namespace of the Lease
	Namespaces wire.Namespaces
	Stats      *stats.Stats
	Log        *slog.Logger
}

// Hold makes this the leader of its namespaces, with value (a JSON object) in an annotation of
// the Lease, until ctx ends; then the Lease has no holder. Identity names the program's pod. It
// fails with ErrExists where another program holds the Lease, unless standby is set.
func (e *Lease) Hold(ctx context.Context, identity string, value []byte, standby bool) error {
	u := elector{lock: e.lock(identity, value), stats: e.Stats, log: e.Log, standby: standby}
	return u.run(ctx)
}

func (e *Lease) lock(identity string, value []byte) *leaseLock {
	key := wire.LeaderKey(string(e.Namespaces))
	return &leaseLock{
		client: e.Client, stats: e.Stats, log: e.Log,
		namespace: e.In, name: leaseName(key), key: key, value: value, identity: identity + "_" + strings.ToLower(rand.Text()[:8]),
	}
}

// leaseName is the name of the Lease of a key. SHA-256 is a hash that others, Helm among
// them, can work out as well: a Role can then name the one Lease.
func leaseName(key string) string {
	return fmt.Sprintf("dynamo-metrics-%x", sha256.Sum256([]byte(key)))[:len("dynamo-metrics-")+16]
}

// kubeLease is the place as a Lease of Kubernetes. What is held is the Lease as this program
// has written it last: where it was changed since, an update is a conflict.
type leaseLock struct {
	client          *kube.Client
	stats           *stats.Stats
	log             *slog.Logger
	namespace, name string
	key             string
	value           []byte
	identity        string

	last                *kube.Lease // as the API server last had it; nil: not known
	updateUnknown       bool        // an update may have been made whose answer was lost
	predecessorResigned bool        // who held it before gave it back
	retry               kube.Backoff

	// Whether another holder lives shows by our clock alone: theirs may differ. It does as
	// long as the Lease changes.
	observedVersion string
	observedAt      time.Time // when that was first seen
	holderRenews    bool      // it has changed since the first look
}

func (l *leaseLock) String() string { return l.namespace + "/" + l.name + " (" + l.key + ")" }

// permanent is nothing: rights may be given while the program runs.
func (l *leaseLock) permanent(error) bool { return false }

func (l *leaseLock) awaitFree(ctx context.Context) { backoff.Wait(ctx, standbyInterval) }

func (l *leaseLock) backoff(_ int, err error) time.Duration { return leaseBackoff(&l.retry, err) }

// leasePause is how long to wait after a call for a Lease that failed. The API server may
// ask for more time than the Lease has. Then it is asked again all the same, a few times
// before others may take the Lease: a leader that would wait as it is told loses it, and
// those who take it are told to wait, too.
func leaseBackoff(b *kube.Backoff, err error) time.Duration {
	pause := b.Next(err)
	if kube.IsStatus(err, http.StatusConflict) { // another was faster
		return backoff.Pause(0)
	}
	return min(pause, confirmTimeout)
}

// take creates the Lease, or takes over one that has no holder or whose holder has not
// renewed it for as long as it said.
func (l *leaseLock) tryAcquire(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connect.EtcdCallTimeout)
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
		return fmt.Errorf("take lease %s: %w", l, err)
	}
	// Without that word the holder's name may have been taken out by hand.
	l.predecessorResigned = found.Spec.HolderIdentity == "" && isResigned([]byte(found.Metadata.Annotations[valueAnnotation]))
	l.last, l.updateUnknown = taken, false
	return nil
}

// held says why the Lease cannot be had: another program holds it, and renews it, or
// may do so, which shows when its time is over: unlike a key of etcd, a Lease stays
// when its holder is killed.
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

// ours is the Lease as this program holds it.
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

// renewAll updates the Lease again and again.
func (l *leaseLock) renewLoop(ctx context.Context, h *leadership) error {
	said := false
	for pause := leaseRenewInterval; backoff.Wait(ctx, pause); {
		asked := time.Now()
		err := l.renew(ctx, h)
		switch {
		case err == nil:
			h.markConfirmed(asked)
			l.retry.Reset()
			said = false
			pause = leaseRenewInterval - time.Since(asked)
			continue
		case errors.Is(err, errLost):
			return err
		case ctx.Err() != nil:
			continue
		}
		l.stats.CountFailure(stats.PeerKubernetes)
		h.markUnreachable()
		if !said {
			said = true
			l.log.Warn("The lease of the unique instance cannot be updated; trying goes on, and others may take it when its time is over",
				"lease", l, "error", err)
		}
		pause = leaseBackoff(&l.retry, err)
	}
	return context.Cause(ctx)
}

// renew replaces the Lease as it was last written: another's change makes that fail.
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

// lookAll reads the Lease between its updates, so that its loss is heard of soon.
func (l *leaseLock) verifyLoop(ctx context.Context, h *leadership) error {
	var p apiBackoff
	return h.confirmLoop(ctx, func(ctx context.Context) (ours bool, err error) {
		if !p.wait(ctx) {
			return false, nil
		}
		_, err = l.verify(ctx, h)
		if err == nil || errors.Is(err, errLost) {
			p.succeeded()
			return err == nil, err
		}
		if !errors.Is(ctx.Err(), context.Canceled) {
			l.stats.CountFailure(stats.PeerKubernetes)
			p.failed(err)
		}
		return false, nil
	})
}

// look reads the Lease. The error is errLost where it is not ours.
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

// patience is for how long the API server is not to be asked. Its methods may be called at
// once.
type apiBackoff struct {
	mu      sync.Mutex
	backoff kube.Backoff
	until   time.Time
}

// failed notes that a call has failed.
func (p *apiBackoff) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Now().Add(leaseBackoff(&p.backoff, err))
}

// succeeded notes that one has not.
func (p *apiBackoff) succeeded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backoff.Reset()
}

// wait waits until the API server may be asked. It reports false where there will be another
// question before that, and where ctx ends.
func (p *apiBackoff) wait(ctx context.Context) bool {
	p.mu.Lock()
	left := time.Until(p.until)
	p.mu.Unlock()
	return left < confirmInterval && backoff.Wait(ctx, max(left, 0))
}

// release leaves the Lease without a holder, so that a standby need not wait.
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
	free := *l.last
	free.Metadata.Annotations = map[string]string{keyAnnotation: l.key, valueAnnotation: connect.JoinLines([]byte(markResigned(l.value)))}
	free.Spec = kube.LeaseSpec{LeaseDurationSeconds: 1, LeaseTransitions: l.last.Spec.LeaseTransitions, RenewTime: &kube.MicroTime{Time: time.Now()}}
	_, _ = l.client.UpdateLease(ctx, &free) // who holds it now, or will soon, need not hear of it
}
