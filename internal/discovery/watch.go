// Package discovery learns who exists: it watches a namespace's registry, in etcd or
// in files, and holds the key in etcd that makes this program the only one of its
// kind there.
package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/wire"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

const (
	callTimeout = 5 * time.Second // bounds one call to etcd
	pageSize    = 1000            // keys a page of the listing
)

// Etcd is the registry of Dynamo namespaces in etcd.
type Etcd struct {
	Client     *clientv3.Client
	Namespaces wire.Namespaces
	Fleet      *fleet.Fleet
	Log        *slog.Logger
	Standby    bool // Hold waits where another program holds the key

	Why func(context.Context) error // knows better why etcd is not connected, or says nil; may be nil
}

// Watch keeps what the Fleet knows of the registry equal to etcd's until ctx ends. After every
// loss of the connection, and after a compaction, it lists the registry anew and
// takes the difference, so that no deletion is missed; until then nothing is
// forgotten. It fails only where etcd refuses the credentials.
func (r *Etcd) Watch(ctx context.Context) error {
	link := &r.Fleet.Tally.Etcd
	announced := false // that etcd is away
	for attempt := 0; ; attempt++ {
		err := r.round(ctx, func() {
			link.Set(true)
			if announced {
				r.Log.Info("Connected to etcd")
			}
			announced, attempt = false, 0
		})
		if errors.Is(err, errRoom) && ctx.Err() == nil {
			continue
		}
		link.Set(false)
		if ctx.Err() != nil {
			return nil
		}
		if connect.EtcdRefused(err) {
			return fmt.Errorf("watch the registry of namespace %s: %w", r.Namespaces, err)
		}
		if !announced {
			if r.Why != nil {
				err = cmp.Or(r.Why(ctx), err)
			}
			r.Log.Warn("etcd is not connected; the fleet stays as it is known, and connecting goes on", "error", err)
		}
		announced = true
		connect.Wait(ctx, connect.Pause(attempt))
	}
}

// round lists the registry, then follows it until something breaks.
func (r *Etcd) round(ctx context.Context, connected func()) error {
	// Without a leader a member answers watches with silence.
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	defer cancel(nil)
	conn := r.Client.ActiveConnection()
	if err := reach(ctx, conn); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(r.Client.Endpoints(), ","), err)
	}
	all, revision, err := r.list(ctx)
	if err != nil {
		return err
	}
	r.Fleet.Sync(all)

	var following sync.WaitGroup
	defer following.Wait()
	defer cancel(nil)
	following.Go(func() {
		// The client would resume by itself, but not notice that it talks to a server
		// that has lost its data and whose revisions began anew.
		if conn.GetState() == connectivity.Ready {
			conn.WaitForStateChange(ctx, connectivity.Ready)
		}
		cancel(errors.New("connection lost"))
	})
	for _, prefix := range r.Namespaces.Prefixes() {
		changes := r.Client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
		following.Go(func() { cancel(r.follow(prefix, changes)) })
	}
	connected()
	following.Go(func() { r.awaitRoom(ctx, cancel) })
	<-ctx.Done()
	return context.Cause(ctx)
}

// errRoom ends a round because there is room for workers that were turned away.
var errRoom = errors.New("there is room for more workers")

// awaitRoom ends the round when workers that found no room in the Fleet have some.
func (r *Etcd) awaitRoom(ctx context.Context, cancel context.CancelCauseFunc) {
	for connect.Wait(ctx, time.Second) {
		if r.Fleet.WantsSync() {
			cancel(errRoom)
		}
	}
}

// reach waits until conn is connected, no longer than it has hope: calls to etcd
// would wait, and not say that nobody is there.
func reach(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.TransientFailure || !conn.WaitForStateChange(ctx, state) {
			return whyNot(ctx, conn)
		}
	}
	return nil
}

// whyNot is why conn is not connected: only a call that does not wait says so.
func whyNot(ctx context.Context, conn *grpc.ClientConn) error {
	err := conn.Invoke(ctx, "/etcdserverpb.Maintenance/Status", new(etcdserverpb.StatusRequest), new(etcdserverpb.StatusResponse),
		grpc.WaitForReady(false))
	if err == nil {
		return errors.New("connected too late")
	}
	return errors.New(status.Convert(err).Message())
}

// list reads the whole registry of the namespace at one revision.
func (r *Etcd) list(ctx context.Context) (all fleet.Listing, revision int64, err error) {
	all = newListing()
	reader := r.reader()
	for _, prefix := range r.Namespaces.Prefixes() {
		end := clientv3.GetPrefixRangeEnd(prefix)
		for from := prefix; from != ""; {
			page, err := r.page(ctx, from, end, revision)
			if err != nil {
				return all, 0, fmt.Errorf("list %s: %w", prefix, err)
			}
			if revision == 0 {
				revision = page.Header.Revision
			}
			from = ""
			for _, kv := range page.Kvs {
				if e, ok := reader.read(string(kv.Key), kv.Value); ok {
					e.list(all)
				}
				if page.More {
					from = string(kv.Key) + "\x00"
				}
			}
		}
	}
	return all, revision, nil
}

func (r *Etcd) page(ctx context.Context, from, end string, revision int64) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return r.Client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(revision))
}

// follow applies the changes below prefix until the watch ends, and says why it did.
func (r *Etcd) follow(prefix string, changes clientv3.WatchChan) error {
	reader := r.reader()
	for change := range changes {
		if err := change.Err(); err != nil {
			return fmt.Errorf("watch %s: %w", prefix, err)
		}
		for _, ev := range change.Events {
			if ev.Type == mvccpb.DELETE {
				reader.gone(string(ev.Kv.Key))
			} else {
				reader.put(string(ev.Kv.Key), ev.Kv.Value)
			}
		}
	}
	return fmt.Errorf("watch %s: ended", prefix)
}

func (r *Etcd) reader() *reader {
	return &reader{namespaces: r.Namespaces, fleet: r.Fleet, log: r.Log}
}
