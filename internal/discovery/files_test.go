package discovery

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/testutil"
	"dynamo-metrics/internal/wire"
)

// fileRegistry is a registry in files, in a synctest bubble. A written file has the time of the
// real clock, far ahead of the bubble's, unless touch changes it.
type fileRegistry struct {
	*Files
	t   *testing.T
	log testutil.Log
}

// withFileRegistry runs a test with a registry that is not watched yet.
func withFileRegistry(t *testing.T, limit int, test func(*fileRegistry)) {
	synctest.Test(t, func(t *testing.T) {
		r := &fileRegistry{t: t}
		r.Files = &Files{
			Root:       filepath.Join(t.TempDir(), "root"),
			Namespaces: "lab",
			Fleet:      fleet.New(fleet.Target{}, limit, true),
			State:      new(stats.ConnState),
			Log:        slog.New(slog.NewTextHandler(&r.log, nil)),
		}
		r.State.MarkUsed()
		test(r)
	})
}

func (r *fileRegistry) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// watch starts Watch, and returns after the first scan.
func (r *fileRegistry) watch() {
	testutil.Start(r.t, r.Watch)
	synctest.Wait()
}

// scan returns after the next scan.
func (r *fileRegistry) scan() { r.wait(scanInterval) }

// wait returns after d and its scans.
func (r *fileRegistry) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *fileRegistry) path(key string) string {
	bucket, name := wire.FileName(key)
	return filepath.Join(r.Root, bucket, name)
}

// put writes a file as Dynamo does.
func (r *fileRegistry) put(key, value string) {
	r.t.Helper()
	path := r.path(key)
	r.must(os.MkdirAll(filepath.Dir(path), 0o777))
	temporary := filepath.Join(filepath.Dir(path), ".tmp_0123456789abcdef")
	r.must(os.WriteFile(temporary, []byte(value), 0o666))
	r.must(os.Rename(temporary, path))
}

// touch sets the modification time of a file, ahead of the bubble's clock by the given time.
func (r *fileRegistry) touch(key string, ahead time.Duration) {
	r.t.Helper()
	now := time.Now().Add(ahead)
	r.must(os.Chtimes(r.path(key), now, now))
}

func (r *fileRegistry) remove(key string) {
	r.t.Helper()
	r.must(os.Remove(r.path(key)))
}

func (r *fileRegistry) wantKnown(want known) {
	r.t.Helper()
	if err := diffKnown(r.Fleet, want); err != nil {
		r.t.Error(err)
	}
}

// wantLogCount compares how often the log contains a text.
func (r *fileRegistry) wantLogCount(what string, want int) {
	r.t.Helper()
	if got := r.log.Count(what); got != want {
		r.t.Errorf("%q is logged %d times, want %d:\n%s", what, got, want, &r.log)
	}
}

// workersOnly returns registered workers without cards and channels.
func workersOnly(ids ...uint64) known {
	k := nothingKnown()
	for _, id := range ids {
		k.Workers[id] = ""
	}
	return k
}

// register writes the file of a worker and returns its key.
func (r *fileRegistry) register(id uint64) string {
	r.t.Helper()
	key := wire.LayoutV1.Key("lab", worker(id))
	r.put(key, string(wire.LayoutV1.Value("lab", worker(id), "192.0.2.2:1/a")))
	return key
}

func TestFilesOfEveryRelease(t *testing.T) {
	for release, workers := range map[string]map[uint64]string{
		"0.8.1": {0x5116d1151668a0e5: ""},
		"1.6.1": {0xad43e8e1d52b94ed: "tiny", 0xe0cd5081c8d73e9d: ""},
	} {
		for _, namespaces := range namespacePatterns {
			t.Run(release+" in "+string(namespaces), func(t *testing.T) {
				withFileRegistry(t, 10, func(r *fileRegistry) { testFilesOfRelease(r, release, workers, namespaces) })
			})
		}
	}
}

func testFilesOfRelease(r *fileRegistry, release string, workers map[uint64]string, namespaces wire.Namespaces) {
	r.Namespaces = namespaces
	keys := make(map[string]string)
	for path, value := range testutil.CapturedJSON[map[string]string](r.t, release, "file_kv.json") {
		slash := strings.LastIndexByte(path, '/')
		key, _ := wire.FileKey(path[:slash], path[slash+1:])
		keys[key] = value
		r.put(key, value)
	}
	want := known{workers, channels(r.t, keys)}.in(namespaces)
	r.watch()
	r.wantKnown(want) // listed
	wantNamespace(r.t, r.Fleet, namespaces)
	if !r.Fleet.IsSynced() || !r.State.Up() {
		r.t.Error("the registry is not known")
	}
	for key := range keys {
		r.remove(key)
	}
	r.scan()
	r.wantKnown(nothingKnown())
	for key, value := range keys {
		r.put(key, value)
	}
	r.scan()
	r.wantKnown(want) // watched
	st := &r.Fleet.Stats
	wantCounts(r.t, st, stats.InstanceKeys, 3*uint64(len(workers)), nil)
	wantCounts(r.t, st, stats.ChannelKeys, 3*uint64(len(want.Channels)), nil)
}

func TestFilesExpireUnlessTouched(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		dead, live := r.register(1), r.register(2)
		r.watch()
		for range 4 {
			r.wait(2500 * time.Millisecond)
			r.touch(live, 0) // seen by the next scan
		}
		r.wantKnown(workersOnly(1, 2)) // after ten seconds
		r.scan()
		r.wantKnown(workersOnly(2))
		r.wait(10 * time.Second)
		r.wantKnown(workersOnly(2))
		r.scan()
		r.wantKnown(nothingKnown())
		r.touch(dead, 0) // the worker was only slow
		r.scan()
		r.wantKnown(workersOnly(1))
		wantCounts(r.t, &r.Fleet.Stats, stats.InstanceKeys, 5, nil) // touches do not count as messages
	})
}

func TestFilesAgeCountsOnlyAtFirst(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		young, old, ahead, behind := r.register(1), r.register(2), r.register(3), r.register(4)
		r.touch(young, -9*time.Second)
		r.touch(old, -11*time.Second)
		r.touch(ahead, time.Hour)
		r.touch(behind, -time.Hour)
		r.watch()
		r.wantKnown(workersOnly(1, 3))
		r.touch(behind, -time.Hour+time.Second)
		r.wait(2 * time.Second)
		r.wantKnown(workersOnly(3, 4))
		r.wait(8 * time.Second)
		r.wantKnown(workersOnly(3, 4))
		r.wait(2 * time.Second)
		r.wantKnown(nothingKnown())
	})
}

func TestFilesUnrelatedAreIgnored(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		bucket := filepath.Join(r.Root, "v1/instances")
		r.must(os.MkdirAll(filepath.Join(bucket, "lab%2Fc%2Fe%2F1"), 0o777))
		r.must(os.MkdirAll(filepath.Join(r.Root, "v1/mdc/lab"), 0o777))
		key := wire.LayoutV1.Key("lab", worker(2))
		value := wire.LayoutV1.Value("lab", worker(2), "192.0.2.2:1/a")
		for _, name := range []string{".tmp_0123456789abcdef", "README", "lab/c/e/2", "lab%2fc%2fe%2f2"} {
			r.must(os.MkdirAll(filepath.Dir(filepath.Join(bucket, name)), 0o777))
			r.must(os.WriteFile(filepath.Join(bucket, name), value, 0o666))
		}
		r.must(os.Symlink(filepath.Join(bucket, "README"), r.path(key)))
		r.put(wire.LayoutV1.Key("other", worker(3)), string(wire.LayoutV1.Value("other", worker(3), "a")))
		r.put("v1/event_sources/lab/1", "{}")
		r.put("v1/instances/lab/c/worker_kv_query_source_1/2", "{}")
		r.watch()
		r.scan()
		r.wantKnown(nothingKnown())
		wantCounts(r.t, &r.Fleet.Stats, stats.InstanceKeys, 0, nil)
		wantCounts(r.t, &r.Fleet.Stats, stats.CardKeys, 0, nil)
	})
}

func TestFilesCountGarbageOnce(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		st := &r.Fleet.Stats
		key := r.register(1)
		whole, err := os.ReadFile(r.path(key))
		r.must(err)
		r.must(os.WriteFile(r.path(key), nil, 0o666)) // by a writer that does not rename
		r.put("v1/instances/lab/c", "{}")
		r.put("v1/mdc/lab/c/e/1", strings.Repeat(" ", 1<<20+1))
		r.watch()
		r.wait(4 * scanInterval)
		r.touch(key, 0)
		r.scan()
		r.wantKnown(nothingKnown())
		wantCounts(r.t, st, stats.InstanceKeys, 2, map[stats.Reason]uint64{stats.BadJSON: 1, stats.BadName: 1})
		wantCounts(r.t, st, stats.CardKeys, 1, map[stats.Reason]uint64{stats.BadJSON: 1})
		r.wantLogCount("more than 1048576 bytes", 1)

		r.must(os.WriteFile(r.path(key), whole[:len(whole)/2], 0o666))
		r.scan()
		r.must(os.WriteFile(r.path(key), whole, 0o666))
		r.scan()
		r.wantKnown(workersOnly(1))
		wantCounts(r.t, st, stats.InstanceKeys, 4, map[stats.Reason]uint64{stats.BadJSON: 2, stats.BadName: 1})
	})
}

func TestFilesReplaced(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		keys := etcdKeys(r.t, "1.6.1")
		for _, key := range []string{generate, card, loads} {
			r.put(key, keys[key])
		}
		r.watch()
		want := known{map[uint64]string{id: "tiny"}, channels(r.t, map[string]string{loads: keys[loads]})}
		r.wantKnown(want)
		before, err := os.Stat(r.path(card))
		r.must(err)
		r.put(card, strings.Replace(keys[card], `"display_name":"tiny"`, `"display_name":"small"`, 1))
		r.must(os.Chtimes(r.path(card), before.ModTime(), before.ModTime())) // as with a coarse clock
		r.put(loads, strings.Replace(keys[loads], "tcp://192.0.2.2:", "tcp://198.51.100.2:", 1))
		r.scan()
		want.Workers[id] = "small"
		c := want.Channels[loads]
		c.Address = strings.Replace(c.Address, "192.0.2.2", "198.51.100.2", 1)
		want.Channels[loads] = c
		r.wantKnown(want)
		for _, key := range []string{generate, card, loads} {
			r.put(key, "garbage") // the last good value stays
		}
		r.scan()
		r.wantKnown(want)
		for _, key := range []string{generate, card, loads} {
			r.remove(key)
		}
		r.scan()
		r.wantKnown(nothingKnown())
	})
}

func TestFilesRetryUnreadableFile(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	withFileRegistry(t, 10, func(r *fileRegistry) {
		key := r.register(1)
		r.register(2)
		r.must(os.Chmod(r.path(key), 0))
		r.watch()
		r.wait(4 * scanInterval)
		r.wantKnown(workersOnly(2))
		wantCounts(r.t, &r.Fleet.Stats, stats.InstanceKeys, 2, map[stats.Reason]uint64{stats.BadJSON: 1})
		r.wantLogCount("permission denied", 1)
		r.must(os.Chmod(r.path(key), 0o666))
		r.scan()
		r.wantKnown(workersOnly(1, 2))
	})
}

func TestFilesFillFreedRoom(t *testing.T) {
	withFileRegistry(t, 1, func(r *fileRegistry) {
		first := r.register(1)
		r.watch()
		r.register(2)
		r.scan()
		r.wantKnown(workersOnly(1))
		r.remove(first)
		r.scan()
		r.wantKnown(workersOnly(2))
	})
}

func TestFilesUpToOneMebibyte(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		pad := func(id uint64, size int) {
			key := r.register(id)
			value, err := os.ReadFile(r.path(key))
			r.must(err)
			r.put(key, string(value)+strings.Repeat(" ", size-len(value)))
		}
		pad(1, 1<<20)
		pad(2, 1<<20+1)
		r.watch()
		r.wantKnown(workersOnly(1))
		r.wantLogCount("it has more than 1048576 bytes", 1)
		r.touch(r.register(2), 0)
		r.scan()
		r.wantKnown(workersOnly(1, 2))
	})
}
