// Package discovery finds the workers: it watches the registry of Dynamo namespaces, which is in
// etcd, in files or in Kubernetes.
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
	// checkInterval is how often etcd's revision is read, in addition to the watch.
	checkInterval = 2 * time.Second
	// relistDelay is the pause before the registry is listed again if it cannot be watched.
	relistDelay = 500 * time.Millisecond
)

// Etcd is the registry of Dynamo namespaces in etcd.
type Etcd struct {
	Endpoints  *connect.EtcdEndpoints
	Namespaces wire.Namespaces
	Fleet      *fleet.Fleet
	Log        *slog.Logger
	MaxWorkers int // the Fleet's limit, which bounds a listing

	relistRequests atomic.Uint64 // how often RequestRelist was called
}

// These errors end a list and watch, but not the session: the registry is listed again.
var (
	errRoomFreed       = errors.New("there is room for more workers")
	errRelistRequested = errors.New("the unique instance's key is lost")
	errDataLost        = errors.New("etcd has lost data")
)

// RequestRelist makes Watch list the registry again. It is called when the unique instance's key is
// lost although the session works, because etcd may have lost its data.
func (r *Etcd) RequestRelist() { r.relistRequests.Add(1) }

// Watch keeps the Fleet's copy of the registry equal to etcd's until ctx ends. After each lost
// connection, and after a compaction, it lists the registry again and applies the difference, so
// that no deletion is missed. Until then the Fleet forgets nothing. Watch fails only if etcd
// refuses the credentials from the start.
func (r *Etcd) Watch(ctx context.Context) error {
	w := etcdWatcher{Etcd: r, sessions: r.Endpoints.Sessions(), pageSize: pageSize}
	state := &r.Fleet.Stats.Etcd
	defer state.SetConnected(false)
	for ctx.Err() == nil {
		err := w.runSession(ctx)
		if ctx.Err() != nil {
			break
		}
		state.SetConnected(false)
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

// etcdWatcher is the state of a Watch that its sessions share.
type etcdWatcher struct {
	*Etcd
	sessions *connect.EtcdSessions
	attempt  int // failed attempts since etcd was last connected
	pageSize int // keys of the next page of a listing

	loggedConnected, loggedDown, loggedRefused, loggedTooLarge bool
}

// markDown logs once that etcd is not connected, and once that it refuses the credentials.
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
	w.Log.Warn("etcd is not connected; keeping the last known fleet and reconnecting", "error", why)
	w.loggedConnected, w.loggedDown, w.loggedRefused = false, true, refused
}

// markConnected logs that etcd is connected, if it was not before.
func (w *etcdWatcher) markConnected(endpoint string) {
	w.Fleet.Stats.Etcd.SetConnected(true)
	w.sessions.Succeeded()
	if !w.loggedConnected {
		w.Log.Info("Connected to etcd", "endpoint", endpoint)
	}
	w.attempt, w.loggedConnected, w.loggedDown, w.loggedRefused = 0, true, false, false
}

// runSession works with one endpoint until an error ends the session.
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
		case errors.Is(err, errRoomFreed), errors.Is(err, errRelistRequested):
			w.Log.Debug("Listing the registry again", "endpoint", s.Endpoint, "reason", err)
		case errors.Is(err, errDataLost):
			w.Log.Warn("Listing the registry again", "endpoint", s.Endpoint, "reason", err)
		case errors.Is(err, connect.ErrEtcdTooLarge):
			w.Fleet.Stats.CountFailure(stats.PeerEtcd)
			w.Log.Debug("Listing the registry again", "endpoint", s.Endpoint, "reason", err)
			backoff.Wait(ctx, relistDelay)
		default:
			return fmt.Errorf("etcd at %s: %w", s.Endpoint, err)
		}
	}
}

// listAndWatch lists the registry, then watches it until it must be listed again or the session
// fails.
func (w *etcdWatcher) listAndWatch(ctx context.Context, s *connect.EtcdSession) error {
	all, header, err := w.list(ctx, s)
	if err != nil {
		return err
	}
	w.Fleet.Sync(all)

	latest := &progress{revision: header.GetRevision(), term: header.GetRaftTerm()}
	return group.UntilFirst(ctx,
		func(ctx context.Context) error { return w.watch(ctx, s, header.GetRevision()+1, latest) },
		func(ctx context.Context) error { return w.checkRevision(ctx, s, latest) },
		func(ctx context.Context) error { return w.waitForRelist(ctx, w.relistRequests.Load()) })
}

// waitForRelist waits for a reason to list the registry again: the Fleet has room for workers
// that it turned away, or RequestRelist was called.
func (w *etcdWatcher) waitForRelist(ctx context.Context, requests uint64) error {
	for backoff.Wait(ctx, time.Second) {
		switch {
		case w.Fleet.NeedsSync():
			return errRoomFreed
		case w.relistRequests.Load() != requests:
			return errRelistRequested
		}
	}
	return context.Cause(ctx)
}

// watch applies the changes from a revision on.
func (w *etcdWatcher) watch(ctx context.Context, s *connect.EtcdSession, from int64, latest *progress) error {
	c := connect.EtcdWatch{Session: s, OnCreated: func() { w.markConnected(s.Endpoint) }}
	for _, prefix := range w.Namespaces.KeyPrefixes() {
		c.Ranges = append(c.Ranges, &etcdserverpb.WatchCreateRequest{
			Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), StartRevision: from, Fragment: true,
		})
	}
	reader := w.reader()
	c.OnEvent = func(e *mvccpb.Event) error {
		latest.advance(e.Kv.ModRevision)
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

// progress is the latest revision and term that a session has seen. The server behind a proxy or an
// address may be replaced by another etcd, or may lose its data. Then etcd's revision is lower, and
// a watch from a later revision would wait without an error.
type progress struct {
	mu       sync.Mutex
	revision int64
	term     uint64 // the Raft term
}

// advance records a revision of etcd and returns the latest one before it.
func (p *progress) advance(revision int64) (before int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, p.revision = p.revision, max(revision, p.revision)
	return before
}

// checkRevision reads etcd's revision at intervals. It fails if the revision has gone back.
func (w *etcdWatcher) checkRevision(ctx context.Context, s *connect.EtcdSession, latest *progress) error {
	key := w.Namespaces.KeyPrefixes()[0]
	for backoff.Wait(ctx, checkInterval) {
		before := latest.advance(0)
		h, err := confirmedHeader(ctx, s, key)
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		if h.GetRevision() < before || h.GetRaftTerm() < latest.term {
			return fmt.Errorf("%w: it is at revision %d of term %d, and was at %d of %d", errDataLost, h.GetRevision(), h.GetRaftTerm(), before, latest.term)
		}
		latest.advance(h.GetRevision())
		latest.term = h.GetRaftTerm()
	}
	return context.Cause(ctx)
}

// confirmedHeader returns the header of a linearizable read. A serializable read would not be
// enough: a member that lags behind would answer it with a lower revision.
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
