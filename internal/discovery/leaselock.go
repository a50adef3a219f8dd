package discovery

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
const longestLease = 60

const (
	// lookAtLease is how often a standby looks at the Lease.
	lookAtLease = 500 * time.Millisecond
	// updateLease is how often its holder updates it.
	updateLease = 2 * time.Second
)

// Hold makes this the unique instance of its namespaces by a Lease in the Kubernetes
// namespace that it watches, with value (a JSON object) in an annotation, until ctx ends;
// then the Lease has no holder. Identity names the program's pod. It fails with ErrExists
// where another program holds the Lease, unless it may stand by.
func (k *Kubernetes) Hold(ctx context.Context, identity string, value []byte, standby bool) error {
	u := unique{place: k.lease(identity, value), tally: &k.Fleet.Stats, log: k.Log, standby: standby}
	return u.hold(ctx)
}

func (k *Kubernetes) lease(identity string, value []byte) *kubeLease {
	key := wire.LeaderKey(string(k.Namespaces))
	return &kubeLease{
		client: k.Client, tally: &k.Fleet.Stats, log: k.Log,
		namespace: k.In, name: leaseName(key), key: key, value: value, identity: identity + "_" + strings.ToLower(rand.Text()[:8]),
	}
}

// leaseName is the name of the Lease of a key. SHA-256 is a hash that others, Helm among
// them, can work out as well: a Role can then name the one Lease.
func leaseName(key string) string {
	return fmt.Sprintf("dynamo-metrics-%x", sha256.Sum256([]byte(key)))[:len("dynamo-metrics-")+16]
}

// kubeLease is the place as a Lease of Kubernetes. What is held is the Lease as this program
// has written it last: where it was changed since, an update is a conflict.
type kubeLease struct {
	client          *kube.Client
	tally           *stats.Stats
	log             *slog.Logger
	namespace, name string
	key             string
	value           []byte
	identity        string

	last    *kube.Lease // as the API server last had it; nil: not known
	unsure  bool        // an update may have been made whose answer was lost
	free    bool        // who held it before gave it back
	backoff kube.Backoff

	// Whether another holder lives shows by our clock alone: theirs may differ. It does as
	// long as the Lease changes.
	version string
	changed time.Time // when that was first seen
	renews  bool      // it has changed since the first look
}

func (l *kubeLease) String() string { return l.namespace + "/" + l.name + " (" + l.key + ")" }

// permanent is nothing: rights may be given while the program runs.
func (l *kubeLease) permanent(error) bool { return false }

func (l *kubeLease) await(ctx context.Context) { backoff.Wait(ctx, lookAtLease) }

func (l *kubeLease) pause(_ int, err error) time.Duration { return leasePause(&l.backoff, err) }

// leasePause is how long to wait after a call for a Lease that failed. The API server may
// ask for more time than the Lease has. Then it is asked again all the same, a few times
// before others may take the Lease: a leader that would wait as it is told loses it, and
// those who take it are told to wait, too.
func leasePause(b *kube.Backoff, err error) time.Duration {
	pause := b.Next(err)
	if kube.IsStatus(err, http.StatusConflict) { // another was faster
		return backoff.Pause(0)
	}
	return min(pause, confirmIn)
}

// take creates the Lease, or takes over one that has no holder or whose holder has not
// renewed it for as long as it said.
func (l *kubeLease) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := l.tryTake(ctx)
	if err == nil {
		l.backoff.Reset()
	} else if !errors.Is(err, ErrExists) && !errors.Is(err, errMayExist) && !errors.Is(ctx.Err(), context.Canceled) {
		l.tally.CountFailure(stats.PeerKubernetes)
	}
	return err
}

func (l *kubeLease) tryTake(ctx context.Context) error {
	found, err := l.client.GetLease(ctx, l.namespace, l.name)
	if kube.IsStatus(err, http.StatusNotFound) {
		created, err := l.client.CreateLease(ctx, l.ours(&kube.Lease{}))
		if err != nil {
			return fmt.Errorf("create lease %s: %w", l, err)
		}
		l.last, l.unsure, l.free = created, false, false
		return nil
	}
	if err != nil {
		return fmt.Errorf("read lease %s: %w", l, err)
	}
	if err := l.held(found); err != nil {
		return fmt.Errorf("lease %s: %w%s: its holder is %s", l, err, onHost([]byte(found.Metadata.Annotations[valueAnnotation])), oneLine([]byte(found.Spec.HolderIdentity)))
	}
	taken, err := l.client.UpdateLease(ctx, l.ours(found))
	if err != nil {
		return fmt.Errorf("take lease %s: %w", l, err)
	}
	// Without that word the holder's name may have been taken out by hand.
	l.free = found.Spec.HolderIdentity == "" && isResigned([]byte(found.Metadata.Annotations[valueAnnotation]))
	l.last, l.unsure = taken, false
	return nil
}

// held says why the Lease cannot be had: another program holds it, and renews it, or
// may do so, which shows when its time is over: unlike a key of etcd, a Lease stays
// when its holder is killed.
func (l *kubeLease) held(found *kube.Lease) error {
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
	lease.Metadata.Annotations = map[string]string{keyAnnotation: l.key, valueAnnotation: flat(l.value)}
	if lease.Spec.HolderIdentity != l.identity {
		if found.Metadata.ResourceVersion != "" {
			lease.Spec.LeaseTransitions++
		}
		lease.Spec.AcquireTime = now
	}
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = l.identity, leaseTTL, now
	return &lease
}

func (l *kubeLease) keep(ctx context.Context, h *holding) error {
	if l.free {
		h.resigned()
	}
	err := together(ctx,
		func(ctx context.Context) error { return l.renewAll(ctx, h) },
		func(ctx context.Context) error { return l.lookAll(ctx, h) })
	if errors.Is(err, errLost) {
		l.last = nil
		return err
	}
	return nil
}

// renewAll updates the Lease again and again.
func (l *kubeLease) renewAll(ctx context.Context, h *holding) error {
	said := false
	for pause := updateLease; backoff.Wait(ctx, pause); {
		asked := time.Now()
		err := l.renew(ctx, h)
		switch {
		case err == nil:
			h.confirmed(asked)
			l.backoff.Reset()
			said = false
			pause = updateLease - time.Since(asked)
			continue
		case errors.Is(err, errLost):
			return err
		case ctx.Err() != nil:
			continue
		}
		l.tally.CountFailure(stats.PeerKubernetes)
		h.away()
		if !said {
			said = true
			l.log.Warn("The lease of the unique instance cannot be updated; trying goes on, and others may take it when its time is over",
				"lease", l, "error", err)
		}
		pause = leasePause(&l.backoff, err)
	}
	return context.Cause(ctx)
}

// renew replaces the Lease as it was last written: another's change makes that fail.
func (l *kubeLease) renew(ctx context.Context, h *holding) error {
	ctx, cancel := context.WithTimeout(ctx, confirmIn)
	defer cancel()
	if l.unsure {
		found, err := l.look(ctx, h)
		if err != nil {
			return err
		}
		l.last, l.unsure = found, false
	}
	renewed, err := l.client.UpdateLease(ctx, l.ours(l.last))
	switch {
	case err == nil:
		l.last = renewed
	case kube.IsStatus(err, http.StatusNotFound):
		err = h.lose("the lease was deleted")
	case kube.IsStatus(err, http.StatusConflict):
		err = h.lose("the lease was changed by another program")
	default:
		l.unsure = true
	}
	return err
}

// lookAll reads the Lease between its updates, so that its loss is heard of soon.
func (l *kubeLease) lookAll(ctx context.Context, h *holding) error {
	var p patience
	return h.confirm(ctx, func(ctx context.Context) (ours bool, err error) {
		if !p.wait(ctx) {
			return false, nil
		}
		_, err = l.look(ctx, h)
		if err == nil || errors.Is(err, errLost) {
			p.succeeded()
			return err == nil, err
		}
		if !errors.Is(ctx.Err(), context.Canceled) {
			l.tally.CountFailure(stats.PeerKubernetes)
			p.failed(err)
		}
		return false, nil
	})
}

// look reads the Lease. The error is errLost where it is not ours.
func (l *kubeLease) look(ctx context.Context, h *holding) (*kube.Lease, error) {
	found, err := l.client.GetLease(ctx, l.namespace, l.name)
	switch {
	case kube.IsStatus(err, http.StatusNotFound):
		return nil, h.lose("the lease was deleted")
	case err != nil:
		return nil, err
	case found.Spec.HolderIdentity != l.identity:
		return nil, h.lose(fmt.Sprintf("the lease's holder is %q", oneLine([]byte(found.Spec.HolderIdentity))))
	}
	return found, nil
}

// patience is for how long the API server is not to be asked. Its methods may be called at
// once.
type patience struct {
	mu      sync.Mutex
	backoff kube.Backoff
	until   time.Time
}

// failed notes that a call has failed.
func (p *patience) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Now().Add(leasePause(&p.backoff, err))
}

// succeeded notes that one has not.
func (p *patience) succeeded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backoff.Reset()
}

// wait waits until the API server may be asked. It reports false where there will be another
// question before that, and where ctx ends.
func (p *patience) wait(ctx context.Context) bool {
	p.mu.Lock()
	left := time.Until(p.until)
	p.mu.Unlock()
	return left < confirmEvery && backoff.Wait(ctx, max(left, 0))
}

// release leaves the Lease without a holder, so that a standby need not wait.
func (l *kubeLease) release(ctx context.Context) {
	if l.last == nil {
		return
	}
	if l.unsure {
		found, err := l.client.GetLease(ctx, l.namespace, l.name)
		if err != nil || found.Spec.HolderIdentity != l.identity {
			return
		}
		l.last = found
	}
	free := *l.last
	free.Metadata.Annotations = map[string]string{keyAnnotation: l.key, valueAnnotation: flat([]byte(resigned(l.value)))}
	free.Spec = kube.LeaseSpec{LeaseDurationSeconds: 1, LeaseTransitions: l.last.Spec.LeaseTransitions, RenewTime: &kube.MicroTime{Time: time.Now()}}
	_, _ = l.client.UpdateLease(ctx, &free) // who holds it now, or will soon, need not hear of it
}
