package discovery

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"

	"github.com/google/go-cmp/cmp"
)

// known is the Fleet's copy of the registry.
type known struct {
	Workers  map[uint64]string // models by id of the registered worker
	Channels map[string]fleet.Channel
}

func knownOf(f *fleet.Fleet) known {
	k := known{Workers: make(map[uint64]string)}
	for _, w := range f.Snapshot().Workers {
		k.Workers[w.ID.Lease] = w.Model
	}
	k.Channels, _ = f.Channels()
	return k
}

// diffKnown returns an error with the difference between the Fleet's copy and want.
func diffKnown(f *fleet.Fleet, want known) error {
	if diff := cmp.Diff(want, knownOf(f)); diff != "" {
		return fmt.Errorf("the Fleet's copy of the registry (-want +got):\n%s", diff)
	}
	return nil
}

func nothingKnown() known {
	return known{Workers: map[uint64]string{}, Channels: map[string]fleet.Channel{}}
}

// etcdKeys returns the captured keys and values of a release's workers.
func etcdKeys(t *testing.T, release string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, kv := range testutil.CapturedJSON[[]struct{ Key, Value string }](t, release, "etcd_keys.json") {
		all[kv.Key] = kv.Value
	}
	return all
}

// channels returns the event channels among captured keys. Package wire tests how they are parsed.
func channels(t *testing.T, keys map[string]string) map[string]fleet.Channel {
	t.Helper()
	all := make(map[string]fleet.Channel)
	for key, value := range keys {
		if !strings.HasPrefix(key, "v1/event_channels/") {
			continue
		}
		c, err := wire.ParseChannel("lab", key, []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		all[key] = c
	}
	return all
}

// etcdWorkers are the captured workers by release.
var etcdWorkers = map[string]map[uint64]string{
	"0.6.1": {0x1eeea2096f7e0080: "model", 0x1eeea2096f7e0082: "model"},
	"0.9.1": {0x1eeea2096f7dffaf: "known", 0x1eeea2096f7dffb3: "known"},
	"1.6.1": {0x1eeea2096f7e0a32: "tiny", 0x1eeea2096f7e0a3b: "tiny"},
}

func (r *registry) delete(key string) {
	r.t.Helper()
	if _, err := r.worker.Delete(r.t.Context(), key); err != nil {
		r.t.Fatal(err)
	}
}

// waitKnown waits until the Fleet's copy of the registry is exactly this.
func (r *registry) waitKnown(want known) {
	r.t.Helper()
	testutil.Until(r.t, func() error { return diffKnown(r.Fleet, want) })
}

// wantCounts compares the numbers of received and rejected messages of a kind.
func wantCounts(t *testing.T, st *stats.Stats, k stats.Kind, received uint64, rejected map[stats.Reason]uint64) {
	t.Helper()
	if got := st.Messages(k); got != received {
		t.Errorf("%d messages of kind %s, want %d", got, k, received)
	}
	for _, reason := range stats.Reasons() {
		if got := st.Rejected(k, reason); got != rejected[reason] {
			t.Errorf("%d of kind %s rejected for %s, want %d", got, k, reason, rejected[reason])
		}
	}
}

// namespacePatterns are a name, a prefix and a wildcard that match "lab".
var namespacePatterns = []wire.Namespaces{"lab", "la*", "*"}

// in returns what is known if these namespaces are watched. If there may be several, each endpoint
// has its namespace.
func (k known) in(namespaces wire.Namespaces) known {
	k.Channels = maps.Clone(k.Channels)
	for key, c := range k.Channels {
		c.Endpoint.Namespace = namespaces.Label("lab")
		k.Channels[key] = c
	}
	return k
}

// wantNamespace fails the test if an endpoint is registered in another namespace than "lab".
func wantNamespace(t *testing.T, f *fleet.Fleet, namespaces wire.Namespaces) {
	t.Helper()
	for _, e := range f.RegisteredEndpoints() {
		if e.Namespace != namespaces.Label("lab") {
			t.Errorf("%s is registered where %s is watched", e, namespaces)
		}
	}
}

// newPrograms returns programs on the same registry, one for each of the namespacePatterns.
func (r *registry) newPrograms() []*registry {
	var all []*registry
	for _, namespaces := range namespacePatterns {
		p := &registry{r.Stack, newEtcdAt(r.t, r.Stack.Etcd.Endpoint()), r.t, r.worker}
		p.Namespaces = namespaces
		all = append(all, p)
	}
	return all
}

func TestEtcdListsEveryRelease(t *testing.T) {
	for release, workers := range etcdWorkers {
		t.Run(release, func(t *testing.T) {
			r := newRegistry(t)
			keys := etcdKeys(t, release)
			for key, value := range keys {
				r.put(key, value)
			}
			want := known{workers, channels(t, keys)}
			for _, p := range r.newPrograms() {
				testutil.Start(t, p.Watch)
				p.waitKnown(want.in(p.Namespaces))
				wantNamespace(t, p.Fleet, p.Namespaces)
				st := &p.Fleet.Stats
				wantCounts(t, st, stats.InstanceKeys, 2, nil)
				wantCounts(t, st, stats.CardKeys, 2, nil)
				wantCounts(t, st, stats.ChannelKeys, uint64(len(want.Channels)), nil)
			}
		})
	}
}

func TestEtcdWatchesEveryRelease(t *testing.T) {
	for release, workers := range etcdWorkers {
		t.Run(release, func(t *testing.T) {
			r := newRegistry(t)
			programs := r.newPrograms()
			for _, p := range programs {
				testutil.Start(t, p.Watch)
				<-p.Fleet.Synced()
			}
			keys := etcdKeys(t, release)
			for key, value := range keys {
				r.put(key, value)
			}
			want := known{workers, channels(t, keys)}
			for _, p := range programs {
				p.waitKnown(want.in(p.Namespaces))
				wantNamespace(t, p.Fleet, p.Namespaces)
			}
			all := uint64(len(want.Channels))
			for _, gone := range []struct {
				prefix string
				left   known
			}{
				{"v1/mdc/", known{map[uint64]string{}, want.Channels}},
				{"v1/event_channels/", known{map[uint64]string{}, map[string]fleet.Channel{}}},
				{"v1/instances/", nothingKnown()},
			} {
				if gone.prefix != "v1/instances/" {
					for id := range workers {
						gone.left.Workers[id] = ""
					}
				}
				for key := range keys {
					if strings.HasPrefix(key, gone.prefix) {
						r.delete(key)
					}
				}
				for _, p := range programs {
					p.waitKnown(gone.left.in(p.Namespaces))
				}
			}
			for _, p := range programs {
				st := &p.Fleet.Stats
				wantCounts(t, st, stats.InstanceKeys, 4, nil)
				wantCounts(t, st, stats.CardKeys, 4, nil)
				wantCounts(t, st, stats.ChannelKeys, 2*all, nil)
			}
		})
	}
}

const (
	generate = "v1/instances/lab/backend/generate/1eeea2096f7e0a32"
	card     = "v1/mdc/lab/backend/generate/1eeea2096f7e0a32"
	loads    = "v1/event_channels/namespace/lab/component/backend/endpoint/generate/topic/kv_metrics/16b5795a010a6b"
	id       = 0x1eeea2096f7e0a32
)

func TestEtcdAdapterCardIsNotTheWorkers(t *testing.T) {
	r := newRegistry(t)
	r.Namespaces = "lab"
	testutil.Start(t, r.Watch)
	<-r.Fleet.Synced()
	keys := etcdKeys(t, "1.6.1")
	r.put(generate, keys[generate])
	r.put(card, keys[card])
	r.put(card+"/adapter", keys[card])
	r.waitKnown(known{map[uint64]string{id: "tiny"}, map[string]fleet.Channel{}})
	r.delete(card + "/adapter")
	r.put(card, strings.Replace(keys[card], `"display_name":"tiny"`, `"display_name":"small"`, 1)) // after the deletion
	r.waitKnown(known{map[uint64]string{id: "small"}, map[string]fleet.Channel{}})
	wantCounts(t, &r.Fleet.Stats, stats.CardKeys, 2, nil)
}

func TestEtcdCountsGarbageOfEveryKind(t *testing.T) {
	r := newRegistry(t)
	r.Namespaces = "lab"
	testutil.Start(t, r.Watch)
	<-r.Fleet.Synced()
	keys := etcdKeys(t, "1.6.1")
	for _, kv := range [][2]string{
		{"v1/instances/lab/backend", "{}"},
		{"v1/instances/lab/backend/generate/1", "{"},
		{"v1/instances/lab/backend/generate/2", keys[generate]},
		{generate, keys[generate]}, // each watch reports its last key after all others
		{"v1/mdc/lab/backend", "{}"},
		{"v1/mdc/lab/backend/generate/1", "{"},
		{"v1/mdc/lab/backend/generate/2", "{}"},
		{card, keys[card]},
		{"v1/event_channels/lab/backend", "{}"},
		{"v1/event_channels/lab/backend/topic/1", "{}"},
		{"v1/event_channels/namespace/lab/topic/kv_metrics/1", "["},
		{loads, keys[loads]},
	} {
		r.put(kv[0], kv[1])
	}
	r.waitKnown(known{map[uint64]string{id: "tiny"}, channels(t, map[string]string{loads: keys[loads]})})
	st := &r.Fleet.Stats
	testutil.Until(t, func() error { // one of the two watches may be behind
		if st.Messages(stats.ChannelKeys) < 4 {
			return errors.New("not all channels were received")
		}
		return nil
	})
	wantCounts(t, st, stats.InstanceKeys, 4, map[stats.Reason]uint64{stats.BadName: 1, stats.BadJSON: 1, stats.BadID: 1})
	wantCounts(t, st, stats.CardKeys, 4, map[stats.Reason]uint64{stats.BadName: 1, stats.BadJSON: 2})
	wantCounts(t, st, stats.ChannelKeys, 4, map[stats.Reason]uint64{stats.BadName: 1, stats.BadJSON: 1, stats.BadID: 1})

	r.delete("v1/instances/lab/backend") // names no worker
	r.delete(generate)
	r.waitKnown(known{map[uint64]string{}, channels(t, map[string]string{loads: keys[loads]})})
	wantCounts(t, st, stats.InstanceKeys, 5, map[stats.Reason]uint64{stats.BadName: 1, stats.BadJSON: 1, stats.BadID: 1})
}

func TestEtcdBadValueChangesNothing(t *testing.T) {
	r := newRegistry(t)
	r.Namespaces = "lab"
	testutil.Start(t, r.Watch)
	<-r.Fleet.Synced()
	keys := etcdKeys(t, "1.6.1")
	want := known{map[uint64]string{id: "tiny"}, channels(t, map[string]string{loads: keys[loads]})}
	for _, key := range []string{generate, card, loads} {
		r.put(key, keys[key])
	}
	r.waitKnown(want)
	for _, key := range []string{generate, card, loads} {
		r.put(key, "garbage")
	}
	testutil.Until(t, func() error {
		for _, k := range []stats.Kind{stats.InstanceKeys, stats.CardKeys, stats.ChannelKeys} {
			if r.Fleet.Stats.Rejected(k, stats.BadJSON) == 0 {
				return fmt.Errorf("no %s was rejected", k)
			}
		}
		return nil
	})
	r.waitKnown(want)
	for _, key := range []string{generate, card, loads} {
		r.delete(key)
	}
	r.waitKnown(nothingKnown())
}

func TestEtcdOutageHidesNoDeletion(t *testing.T) {
	r := newRegistry(t)
	r.Namespaces = "lab"
	r.Fleet.Stats.Etcd.MarkUsed()
	keys := etcdKeys(t, "1.6.1")
	for key, value := range keys {
		r.put(key, value)
	}
	testutil.Start(t, r.Watch)
	all := known{etcdWorkers["1.6.1"], channels(t, keys)}
	r.waitKnown(all)
	r.StopEtcd()
	testutil.Until(t, func() error {
		if r.Fleet.Stats.Etcd.Up() {
			return errors.New("etcd is connected")
		}
		if why := r.Fleet.Stats.Etcd.LastError(); !strings.Contains(why, "connection refused") {
			return fmt.Errorf("the last error of etcd is %q", why)
		}
		return nil
	})
	if err := diffKnown(r.Fleet, all); err != nil {
		t.Error(err)
	}
	r.StartEmptyEtcd(t) // so that no watch can report deletions
	for _, key := range []string{generate, card, loads} {
		testutil.Until(t, func() error { _, err := r.worker.Put(t.Context(), key, keys[key]); return err })
	}
	r.waitKnown(known{map[uint64]string{id: "tiny"}, channels(t, map[string]string{loads: keys[loads]})})
}

func TestEtcdNamespaceCalledNamespace(t *testing.T) {
	// The channels of other namespaces in the second layout are below this namespace's prefix
	// in the first layout.
	const ns = "namespace"
	r := newRegistry(t)
	r.Namespaces = wire.Namespaces(ns)
	old, scoped := "v1/event_channels/lab//kv_metrics/1eeea2096f7dffaf", loads
	watched := map[string]string{
		strings.Replace(old, "lab", ns, 1):    strings.ReplaceAll(etcdKeys(t, "0.9.1")[old], "lab", ns),
		strings.Replace(scoped, "lab", ns, 1): strings.ReplaceAll(etcdKeys(t, "1.6.1")[scoped], "lab", ns),
	}
	write := func() {
		for key, value := range etcdKeys(t, "1.6.1") {
			r.put(key, value)
		}
		for key, value := range watched {
			r.put(key, value)
		}
	}
	want := nothingKnown()
	for key, value := range watched {
		c, err := wire.ParseChannel(ns, key, []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		want.Channels[key] = c
	}
	write()
	testutil.Start(t, r.Watch)
	r.waitKnown(want) // listed
	wantCounts(t, &r.Fleet.Stats, stats.ChannelKeys, 2, nil)
	for key := range watched {
		r.delete(key)
	}
	r.waitKnown(nothingKnown())
	wantCounts(t, &r.Fleet.Stats, stats.ChannelKeys, 4, nil)
	write()
	r.waitKnown(want) // watched
	wantCounts(t, &r.Fleet.Stats, stats.ChannelKeys, 6, nil)
}
