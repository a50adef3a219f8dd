package discovery

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dynamo-metrics/internal/stats"
)

func TestFilesBucketUnreadableKeepsWorkers(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		vanishes, dead, live := r.register(1), r.register(2), r.register(3)
		r.put(loads, etcdKeys(r.t, "1.6.1")[loads])
		all := workersOnly(1, 2, 3)
		all.Channels = channels(r.t, map[string]string{loads: etcdKeys(r.t, "1.6.1")[loads]})
		r.watch()
		r.wantKnown(all)

		bucket, renamed := filepath.Dir(r.path(dead)), filepath.Join(r.Root, "renamed")
		r.must(os.Rename(bucket, renamed))
		r.must(os.WriteFile(bucket, nil, 0o666)) // a file instead of a directory: not even root can list it
		r.remove(loads)
		r.wait(20 * time.Second)
		r.wantKnown(all)
		if r.State.Up() {
			r.t.Error("the registry is up, want down")
		}
		r.wantLogCount("cannot be read", 1)

		r.must(os.Remove(bucket))
		r.must(os.Rename(renamed, bucket))
		r.remove(vanishes)
		r.scan()
		r.wantKnown(workersOnly(2, 3)) // the workers have time to touch them
		if !r.State.Up() {
			r.t.Error("the registry is down, want up")
		}
		r.wantLogCount("can be read again", 1)
		r.wait(9750 * time.Millisecond)
		r.touch(live, 0)
		r.wait(2 * scanInterval)
		r.wantKnown(workersOnly(3))
	})
}

func TestFilesRootUnreadableAtFirst(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		r.must(os.WriteFile(r.Root, nil, 0o666))
		r.watch()
		if r.Fleet.IsSynced() || r.State.Up() {
			r.t.Error("the registry is known, want unknown")
		}
		r.must(os.Remove(r.Root))
		r.register(1)
		r.scan()
		r.wantKnown(workersOnly(1))
		if !r.Fleet.IsSynced() || !r.State.Up() {
			r.t.Error("the registry is not known")
		}
	})
}

// wantUnreadable fails the test unless the registry cannot be read, and was logged as such this
// often.
func (r *fileRegistry) wantUnreadable(times int) {
	r.t.Helper()
	if r.State.Up() {
		r.t.Error("the registry is up, want down")
	}
	r.wantLogCount("The registry cannot be read", times)
	if r.State.LastError() == "" {
		r.t.Error("no reason is given why the registry cannot be read")
	}
	if r.Fleet.Stats.Failures(stats.PeerFiles) == 0 {
		r.t.Error("no call has failed")
	}
}

func TestFilesRootMissing(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		r.watch()
		r.wait(time.Minute)
		r.wantUnreadable(1)
		r.wantLogCount("the directory "+r.Root+" does not exist", 1)
		if r.Fleet.IsSynced() {
			r.t.Error("the registry is known, want unknown")
		}
		r.must(os.Mkdir(r.Root, 0o777)) // it exists and is empty
		r.scan()
		r.wantKnown(nothingKnown())
		if !r.Fleet.IsSynced() || !r.State.Up() {
			r.t.Error("the empty registry is not known")
		}
		r.register(1)
		r.scan()
		r.wantKnown(workersOnly(1))
		r.wantLogCount("Watching the registry in "+r.Root, 1)
		r.wantLogCount("can be read again", 1)
	})
}

func TestFileRegistryRemovedKeepsWorkers(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		r.register(1)
		r.register(2)
		r.watch()
		r.must(os.Rename(r.Root, r.Root+" renamed"))
		r.wait(time.Minute)
		r.wantKnown(workersOnly(1, 2))
		r.wantUnreadable(1)
		if n := r.State.Disconnects(); n != 1 {
			r.t.Errorf("the connection was lost %d times, want once", n)
		}
		// Another directory replaces it.
		r.register(2)
		r.register(3)
		r.scan()
		r.wantKnown(workersOnly(2, 3))
		r.must(os.RemoveAll(r.Root))
		r.must(os.Rename(r.Root+" renamed", r.Root))
		r.scan()
		r.wantKnown(workersOnly(1, 2))
		r.wantLogCount("cannot be read;", 1)
	})
}

func TestFilesRootNotADirectory(t *testing.T) {
	for name, c := range map[string]struct {
		make func(r *fileRegistry) error
		want string
	}{
		"a file":                 {func(r *fileRegistry) error { return os.WriteFile(r.Root, nil, 0o666) }, " is not a directory"},
		"a link to a file":       {func(r *fileRegistry) error { return os.Symlink("/dev/null", r.Root) }, " is not a directory"},
		"a link to nothing":      {func(r *fileRegistry) error { return os.Symlink(r.Root+"/nothing", r.Root) }, "too many levels"},
		"a link to what is gone": {func(r *fileRegistry) error { return os.Symlink(r.Root+" gone", r.Root) }, " does not exist"},
		"below a file": {func(r *fileRegistry) error {
			r.Root = filepath.Join(r.Root, "below")
			return os.WriteFile(filepath.Dir(r.Root), nil, 0o666)
		}, "not a directory"},
		"one that may not be read": {func(r *fileRegistry) error {
			if os.Geteuid() == 0 {
				r.t.Skip("root may read everything")
			}
			return os.Mkdir(r.Root, 0)
		}, "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			withFileRegistry(t, 10, func(r *fileRegistry) {
				r.must(c.make(r))
				r.watch()
				r.wait(time.Minute)
				r.wantUnreadable(1)
				r.wantLogCount(c.want, 1)
				if r.Fleet.IsSynced() {
					r.t.Error("the registry is known, want unknown")
				}
			})
		})
	}
}

func TestFilesLogEachReason(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		r.watch()
		r.must(os.WriteFile(r.Root, nil, 0o666))
		r.wait(time.Second)
		r.wantLogCount("does not exist", 1)
		r.wantLogCount("is not a directory", 1)
		r.must(os.Remove(r.Root))
		r.wait(time.Second)
		r.wantLogCount("does not exist", 2)
	})
}

func TestFilesRootSymlinkMayChange(t *testing.T) {
	withFileRegistry(t, 10, func(r *fileRegistry) {
		root := r.Root
		for id, dir := range map[uint64]string{1: root + " one", 2: root + " two"} {
			r.Root = dir
			r.register(id)
		}
		r.Root = root
		r.must(os.Symlink(root+" one", root))
		r.watch()
		r.wantKnown(workersOnly(1))
		r.must(os.Symlink(root+" two", root+" new"))
		r.must(os.Rename(root+" new", root))
		r.scan()
		r.wantKnown(workersOnly(2))
		if n := r.State.Disconnects(); n != 0 {
			r.t.Errorf("the connection was lost %d times, want never", n)
		}
	})
}

// largeDir is a directory with this many files.
type largeDir struct {
	fs.ReadDirFile
	files int
}

func (d largeDir) ReadDir(n int) ([]fs.DirEntry, error) {
	return make([]fs.DirEntry, min(n, d.files)), nil
}

func TestFilesTooManyAreNotListed(t *testing.T) {
	if got, err := readEntries(largeDir{files: 200_000}, "bucket"); len(got) != 200_000 || err != nil {
		t.Errorf("got %d, %v, want 200,000", len(got), err)
	}
	if got, err := readEntries(largeDir{files: 200_001}, "bucket"); got != nil || err == nil || err.Error() != "list bucket: it has more than 200000 files" {
		t.Errorf("got %d, %v, want an error", len(got), err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "a")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if got, err := readDir(dir); len(got) != 1 || err != nil {
		t.Errorf("list of one file: %v, %v", got, err)
	}
	if _, err := readDir(filepath.Join(dir, "c")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list of a directory that does not exist: %v", err)
	}
	if _, err := readDir(file); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list of a file: %v, want an error", err)
	}
}
