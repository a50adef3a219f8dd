// Package discovery learns who exists: it watches a namespace's registry, in etcd or
// in files, and holds the key in etcd that makes this program the only one of its
// kind there.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/group"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// checkInterval is how often etcd is asked for its revision, beside the watch.
	checkInterval = 2 * time.Second
	// listAgain is how soon the registry is listed anew where it cannot be followed.
	relistDelay = 500 * time.Millisecond
)

// Etcd is the registry of Dynamo namespaces in etcd.
type Etcd struct {
	Endpoints  *connect.EtcdEndpoints
	Namespaces wire.Namespaces
	Fleet      *fleet.Fleet
	Log        *slog.Logger
	MaxWorkers int // the Fleet's, which bounds a listing

	doubts atomic.Uint64 // how often Doubt was called
}

// These end a listing and what follows it, but not the session: the registry is listed anew.
var (
	errRoomFreed = errors.New("there is room for more workers")
	errDoubt     = errors.New("the unique instance's key is lost")
	errDataLost  = errors.New("etcd has lost data")
)

// Doubt has the registry listed anew, since etcd may have lost data: a key that it had is gone.
func (r *Etcd) Doubt() { r.doubts.Add(1) }

// Watch keeps what the Fleet knows of the registry equal to etcd's until ctx ends. After every
// loss of the connection, and after a compaction, it lists the registry anew and
// takes the difference, so that no deletion is missed; until then nothing is
// forgotten. It fails only where etcd refuses the credentials from the start.
func (r *Etcd) Watch(ctx context.Context) error {
	w := etcdWatcher{Etcd: r, sessions: r.Endpoints.Sessions(), pageSize: pageSize}
	link := &r.Fleet.Stats.Etcd
	defer link.SetConnected(false)
	for ctx.Err() == nil {
		err := w.runSession(ctx)
		if ctx.Err() != nil {
			break
		}
		link.SetConnected(false)
		w.markDown(ctx, err)
		w.sessions.Failed(err)
		if err := w.sessions.PermanentError(); err != nil {
			return fmt.Errorf("watch the registry of namespace %s: %w", r.Namespaces, err)
		}
		backoff.Wait(ctx, backoff.Pause(w.attempt))
		w.attempt++
	}
	return nil
}

// etcdWatch is what a Watch knows from session to session.
type etcdWatcher struct {
	*Etcd
	sessions *connect.EtcdSessions
	attempt  int // since etcd was last there
	pageSize int // keys of the next page of a listing

	loggedConnected, loggedDown, loggedRefused, loggedTooLarge bool
}

// away says, once, that etcd is not there, and once that it refuses us.
func (w *etcdWatcher) markDown(ctx context.Context, err error) {
	w.Fleet.Stats.CountFailure(stats.PeerEtcd)
	refused := connect.IsEtcdAuthError(err)
	if w.loggedDown && (!refused || w.loggedRefused) {
		w.Fleet.Stats.Etcd.SetError(err.Error())
		w.Log.Debug("etcd is still not connected", "error", err)
		return
	}
	why := w.sessions.Explain(ctx, err)
	w.Fleet.Stats.Etcd.SetError(why.Error())
	w.Log.Warn("etcd is not connected; the fleet stays as it is known, and connecting goes on", "error", why)
	w.loggedConnected, w.loggedDown, w.loggedRefused = false, true, refused
}

// back says that etcd is there, or again.
func (w *etcdWatcher) markConnected(endpoint string) {
	w.Fleet.Stats.Etcd.SetConnected(true)
	w.sessions.Succeeded()
	if !w.loggedConnected {
		w.Log.Info("Connected to etcd", "endpoint", endpoint)
	}
	w.attempt, w.loggedConnected, w.loggedDown, w.loggedRefused = 0, true, false, false
}

// session works with one endpoint until something breaks.
func (w *etcdWatcher) runSession(ctx context.Context) error {
	s, err := w.sessions.Open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx = clientv3.WithRequireLeader(ctx)
	for {
		err := w.listAndWatch(ctx, s)
		switch {
		case errors.Is(err, errRoomFreed), errors.Is(err, errDoubt):
			w.Log.Debug("The registry is listed anew", "endpoint", s.Endpoint, "reason", err)
		case errors.Is(err, errDataLost):
			w.Log.Warn("The registry is listed anew", "endpoint", s.Endpoint, "reason", err)
		case errors.Is(err, connect.ErrEtcdTooLarge):
			w.Fleet.Stats.CountFailure(stats.PeerEtcd)
			w.Log.Debug("The registry is listed anew", "endpoint", s.Endpoint, "reason", err)
			backoff.Wait(ctx, relistDelay)
		default:
			return fmt.Errorf("etcd at %s: %w", s.Endpoint, err)
		}
	}
}

// round lists the registry, then follows it until it must be listed anew, or the session
// is of no use any more.
func (w *etcdWatcher) listAndWatch(ctx context.Context, s *connect.EtcdSession) error {
	all, header, err := w.list(ctx, s)
	if err != nil {
		return err
	}
	w.Fleet.Sync(all)

	at := &progress{revision: header.GetRevision(), term: header.GetRaftTerm()}
	return group.UntilFirst(ctx,
		func(ctx context.Context) error { return w.watch(ctx, s, header.GetRevision()+1, at) },
		func(ctx context.Context) error { return w.checkRevision(ctx, s, at) },
		func(ctx context.Context) error { return w.waitForRelist(ctx, w.doubts.Load()) })
}

// awaitReason waits for a reason to list the registry anew: workers that found no room in the
// Fleet have some, or there are doubts.
func (w *etcdWatcher) waitForRelist(ctx context.Context, doubts uint64) error {
	for backoff.Wait(ctx, time.Second) {
		switch {
		case w.Fleet.NeedsSync():
			return errRoomFreed
		case w.doubts.Load() != doubts:
			return errDoubt
		}
	}
	return context.Cause(ctx)
}

// follow applies the changes from a revision on.
func (w *etcdWatcher) watch(ctx context.Context, s *connect.EtcdSession, from int64, at *progress) error {
	c := connect.EtcdWatch{Session: s, OnCreated: func() { w.markConnected(s.Endpoint) }}
	for _, prefix := range w.Namespaces.KeyPrefixes() {
		c.Ranges = append(c.Ranges, &etcdserverpb.WatchCreateRequest{
			Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), StartRevision: from, Fragment: true,
		})
	}
	reader := w.reader()
	c.OnEvent = func(e *mvccpb.Event) error {
		at.advance(e.Kv.ModRevision)
		switch key := string(e.Kv.Key); {
		case e.Type == mvccpb.Event_DELETE:
			reader.delete(key)
		case len(e.Kv.Value) > maxValue:
			w.tooLarge(reader, key)
		default:
			reader.upsert(key, e.Kv.Value)
		}
		return nil
	}
	return c.Run(ctx)
}

// position is how far a session knows etcd to have come. What answers behind a proxy, or at
// the same address, may be another etcd, or one that has lost its data: it has not come so
// far, and a watch of what comes next waits in silence.
type progress struct {
	mu       sync.Mutex
	revision int64
	term     uint64 // of the cluster's leader
}

// reached says that etcd has come to a revision, and reports how far it had before.
func (p *progress) advance(revision int64) (before int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, p.revision = p.revision, max(revision, p.revision)
	return before
}

// check asks etcd again and again where it has come to.
func (w *etcdWatcher) checkRevision(ctx context.Context, s *connect.EtcdSession, at *progress) error {
	key := w.Namespaces.KeyPrefixes()[0]
	for backoff.Wait(ctx, checkInterval) {
		before := at.advance(0)
		h, err := confirmedHeader(ctx, s, key)
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		if h.GetRevision() < before || h.GetRaftTerm() < at.term {
			return fmt.Errorf("%w: it is at revision %d of term %d, and was at %d of %d", errDataLost, h.GetRevision(), h.GetRaftTerm(), before, at.term)
		}
		at.advance(h.GetRevision())
		at.term = h.GetRaftTerm()
	}
	return context.Cause(ctx)
}

// confirmedHeader is that of a read that etcd has confirmed with the whole cluster. A
// member that lags behind may have come less far, and a read that it answers alone shows it.
func confirmedHeader(ctx context.Context, s *connect.EtcdSession, key string) (*etcdserverpb.ResponseHeader, error) {
	got, err := connect.EtcdGet(ctx, s, key, clientv3.WithCountOnly())
	if err != nil {
		return nil, err
	}
	return got.Header, s.CheckCluster(got.Header)
}

func (r *Etcd) reader() *reader {
	return &reader{namespaces: r.Namespaces, fleet: r.Fleet, log: r.Log}
}
