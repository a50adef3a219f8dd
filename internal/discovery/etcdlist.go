package discovery

import (
	"context"
	"errors"
	"fmt"

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

const (
	pageSize = 1000    // keys in one page of a listing; fewer if their values are large
	maxValue = maxFile // bytes of a value, as for files
	longKey  = 4 << 10 // bytes; longer keys are skipped, because no name has more than 256

	// A listing holds at most listedPerWorker keys of each kind for each worker of the Fleet's
	// limit, and as many as for minListedWorkers workers if the limit is lower. A small fleet may
	// need that: a worker with eight ranks has more than twenty channels.
	listedPerWorker  = 16
	minListedWorkers = 1024

	maxKey = 32 << 20 // bytes of a key that is skipped
)

// list reads the whole registry of the namespaces at one revision.
func (w *etcdWatcher) list(ctx context.Context, s *connect.EtcdSession) (all fleet.Listing, header *etcdserverpb.ResponseHeader, err error) {
	all = newListing()
	reader := w.reader()
	for _, prefix := range w.Namespaces.KeyPrefixes() {
		end := clientv3.GetPrefixRangeEnd(prefix)
		for from := prefix; from != ""; {
			page, err := w.page(ctx, s, from, end, header.GetRevision())
			if err == nil {
				err = s.CheckCluster(page.Header)
			}
			if err != nil {
				return all, nil, fmt.Errorf("list %s: %w", prefix, err)
			}
			if header == nil {
				header = page.Header
			}
			from = ""
			for _, kv := range page.Kvs {
				key := string(kv.Key)
				if page.tooLarge || len(kv.Value) > maxValue {
					w.tooLarge(reader, key)
					w.keepKnown(reader, key, all)
				} else if e, ok := reader.parse(key, kv.Value); !ok {
					w.keepKnown(reader, key, all)
				} else if w.hasRoom(&e, all) {
					e.appendTo(all)
				}
				if page.More {
					from = nextKey(key)
				}
			}
		}
	}
	return all, header, nil
}

// hasRoom reports whether a listing may hold one more entry of this kind. If not, it counts the
// entry as turned away. The Fleet would turn it away, too.
func (w *etcdWatcher) hasRoom(e *entry, all fleet.Listing) bool {
	n := len(all.Channels)
	switch e.kind {
	case stats.InstanceKeys:
		n = len(all.Instances)
	case stats.CardKeys:
		n = len(all.Cards)
	}
	if n >= maxListed(w.MaxWorkers) {
		w.Fleet.Stats.CountRefused(limitOf(e.kind))
		return false
	}
	return true
}

// limitOf returns the limit that an entry of this kind counts against.
func limitOf(kind stats.Kind) stats.Limit {
	if kind == stats.ChannelKeys {
		return stats.ChannelLimit
	}
	return stats.AttachmentLimit
}

// maxListed bounds the entries of one kind that are read from a registry. A Fleet with this limit
// of workers takes fewer.
func maxListed(maxWorkers int) int { return listedPerWorker * max(minListedWorkers, maxWorkers) }

// keepKnown adds the last known value of a key to a listing if the present value is not usable.
// The key proves that its owner is alive, and there is no newer value. A watch keeps the last
// value, too.
func (w *etcdWatcher) keepKnown(r *reader, key string, all fleet.Listing) {
	e, ok := r.parseKey(key)
	if !ok || !e.keyValid {
		return
	}
	switch e.kind {
	case stats.InstanceKeys:
		e.registration, ok = w.Fleet.RegistrationOf(e.registryKey(), e.instance)
	case stats.CardKeys:
		e.card, ok = w.Fleet.CardOf(e.registryKey(), e.instance)
	case stats.ChannelKeys:
		e.channel, ok = w.Fleet.ChannelAt(e.registryKey())
	}
	if ok {
		e.appendTo(all)
	}
}

// nextKey returns the key at which a listing continues after a key. It skips all keys that share
// a prefix of longKey bytes: no worker's key is that long, and such a key might not fit into a
// request.
func nextKey(key string) string {
	if len(key) > longKey {
		return clientv3.GetPrefixRangeEnd(key[:longKey])
	}
	return key + "\x00"
}

// page is one page of a listing.
type page struct {
	*clientv3.GetResponse
	tooLarge bool // it has one key without its value, which is too large to read
}

// page reads the next keys, as many as fit into one message.
func (w *etcdWatcher) page(ctx context.Context, s *connect.EtcdSession, from, end string, revision int64) (page, error) {
	for {
		got, err := connect.EtcdGet(ctx, s, from, clientv3.WithRange(end), clientv3.WithLimit(int64(w.pageSize)), clientv3.WithRev(revision))
		switch {
		case err == nil:
			w.growPage(got)
			return page{GetResponse: got}, nil
		case !errors.Is(err, connect.ErrEtcdTooLarge):
			if errors.Is(err, context.DeadlineExceeded) {
				w.pageSize = max(1, w.pageSize/2) // for the next session
			}
			return page{}, err
		case w.pageSize == 1:
			got, err := keyOnly(ctx, s, from, end, revision)
			return page{got, true}, err
		}
		w.pageSize /= 2
	}
}

// growPage lets the next page hold more keys again if they will certainly fit.
func (w *etcdWatcher) growPage(got *clientv3.GetResponse) {
	bytes := 0
	for _, kv := range got.Kvs {
		bytes += len(kv.Key) + len(kv.Value)
	}
	if bytes < connect.MaxEtcdMessage/4 {
		w.pageSize = min(2*w.pageSize, pageSize)
	}
}

// keyOnly reads the next key without its value. The key may have up to maxKey bytes.
func keyOnly(ctx context.Context, s *connect.EtcdSession, from, end string, revision int64) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, connect.EtcdCallTimeout)
	defer cancel()
	request := &etcdserverpb.RangeRequest{Key: []byte(from), RangeEnd: []byte(end), Limit: 1, Revision: revision, KeysOnly: true}
	got, err := etcdserverpb.NewKVClient(s.ActiveConnection()).Range(ctx, request, grpc.MaxCallRecvMsgSize(maxKey))
	return (*clientv3.GetResponse)(got), connect.EtcdError(err)
}

// tooLarge counts a value that is too large to read, and logs the first one.
func (w *etcdWatcher) tooLarge(r *reader, key string) {
	e, ok := r.parseKey(key)
	if !ok {
		return
	}
	w.Fleet.Stats.CountMessage(e.kind)
	err := fmt.Errorf("the value has more than %d bytes", maxValue)
	r.reject(&e, stats.TooLarge, err)
	if !w.loggedTooLarge {
		w.loggedTooLarge = true
		w.Log.Warn("A key of the registry is not read; further keys like it are not logged", "key", connect.OneLine([]byte(key)), "error", err)
	}
}
