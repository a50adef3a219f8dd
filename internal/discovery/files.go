package discovery

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/stats"
	"dynamo-metrics/internal/wire"
)

const (
	scanInterval = 250 * time.Millisecond
	fileTTL      = 10 * time.Second // Dynamo's own; owners touch their files every third of it
	maxFile      = 1 << 20          // bytes of a value; model cards have some thousands
	maxFiles     = 200_000          // in one directory; a worker has about five in the fullest
)

// Files is the registry of Dynamo namespaces in a directory: file discovery, for
// fleets without etcd (0.8 to 1.6).
type Files struct {
	Root       string // as the workers have it in DYN_FILE_KV
	Namespaces wire.Namespaces
	Fleet      *fleet.Fleet
	Link       *stats.ConnState // is up while the registry can be read
	Log        *slog.Logger
}

// Watch keeps what the Fleet knows of the registry equal to the files below Root until
// ctx ends. While they cannot be read, nothing is forgotten: so it is, too, while there is
// no directory. It returns no error but nil.
func (r *Files) Watch(ctx context.Context) error {
	r.Log.Info("Watching the registry in " + r.Root)
	d := directory{
		root:   r.Root,
		link:   r.Link,
		reader: reader{namespaces: r.Namespaces, fleet: r.Fleet, log: r.Log},
		seed:   maphash.MakeSeed(),
	}
	defer r.Link.SetConnected(false)
	for {
		began := time.Now()
		d.scan(began)
		// 50,000 files take 0.2 s, and longer on a network: no more than a fifth of the time goes by with it.
		if !backoff.Wait(ctx, max(scanInterval, 4*time.Since(began))) {
			return nil
		}
	}
}

// directory is what was seen of the files below root.
type directory struct {
	root string
	link *stats.ConnState
	reader
	seed  maphash.Seed
	files map[string]*file // those of keys that are read, by their paths below root

	synced  bool   // the Fleet knows it
	failure string // why it cannot be read; empty: it can
	warned  bool   // about a file that cannot be read
}

// file is one file, dead or alive.
type file struct {
	entry
	modified time.Time // by whatever clock
	size     int64
	changed  bool      // since it was read
	touched  time.Time // when its owner last showed life, by our clock
	content  uint64    // a hash of what was read; 0: nothing yet
	listed   bool      // the Fleet knows it
}

// scan looks through the directory once.
func (d *directory) scan(now time.Time) {
	seen, err := d.listFiles(now)
	if err != nil {
		d.link.SetConnected(false)
		d.link.SetError(err.Error())
		d.fleet.Stats.CountFailure(stats.PeerFiles)
		if d.failure != err.Error() {
			d.failure = err.Error()
			d.log.Warn("The registry cannot be read; the fleet stays as it is known, and trying goes on", "error", err)
		}
		return
	}
	if d.failure != "" {
		d.log.Info("The registry can be read again")
		d.failure = ""
		// What we could not reach their owners perhaps could not touch either.
		for _, f := range d.files {
			if f.listed {
				f.touched = now
			}
		}
	}
	d.apply(seen, now)
	d.link.SetConnected(true)
}

// look finds the files that are there, and notes which of them have changed.
func (d *directory) listFiles(now time.Time) (seen map[string]*file, err error) {
	root, err := statRoot(d.root)
	if err != nil {
		return nil, err
	}
	seen, all := make(map[string]*file, len(d.files)), true
	for _, bucket := range wire.FileBuckets {
		entries, err := readDir(filepath.Join(d.root, bucket))
		if errors.Is(err, fs.ErrNotExist) {
			all = false // no worker has registered there
			continue
		}
		if err != nil {
			return nil, err
		}
		whole, err := d.listBucket(bucket, entries, now, seen)
		if err != nil {
			return nil, err
		}
		all = all && whole
	}
	if all {
		return seen, nil
	}
	// What is not there is gone, unless the whole directory is.
	again, err := statRoot(d.root)
	if err == nil && !os.SameFile(root, again) {
		err = fmt.Errorf("the directory %s was replaced while it was read", d.root)
	}
	return seen, err
}

// lookAt adds what is in one bucket to what was seen. Whole is false where something has
// gone meanwhile.
func (d *directory) listBucket(bucket string, entries []fs.DirEntry, now time.Time, seen map[string]*file) (whole bool, err error) {
	whole = true
	for _, e := range entries {
		path := bucket + "/" + e.Name()
		f := d.fileAt(path)
		if f == nil || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			whole = false
			continue
		}
		if err != nil {
			return false, err
		}
		f.update(info, now)
		seen[path] = f
	}
	return whole, nil
}

// rootAt is the directory of the registry, which must be there.
func statRoot(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the directory %s does not exist", path)
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is no directory", path)
	}
	return info, nil
}

// list is what is in a directory.
func readDir(dir string) ([]fs.DirEntry, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readEntries(f, dir)
}

// entriesOf is what is in a directory, if it is not too much.
func readEntries(dir fs.ReadDirFile, name string) ([]fs.DirEntry, error) {
	entries, err := dir.ReadDir(maxFiles + 1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(entries) > maxFiles {
		return nil, fmt.Errorf("list %s: it has more than %d files", name, maxFiles)
	}
	return entries, nil
}

// file is the record of the file at path, a new one if it was not there before; nil if
// it is of no key that is read.
func (d *directory) fileAt(path string) *file {
	if f := d.files[path]; f != nil {
		return f
	}
	key, ok := wire.FileKey(filepath.Dir(path), filepath.Base(path))
	if !ok {
		return nil
	}
	entry, ok := d.parseKey(key)
	if !ok {
		return nil
	}
	return &file{entry: entry}
}

// note compares a file with what was seen of it before.
func (f *file) update(info fs.FileInfo, now time.Time) {
	modified, size := info.ModTime(), info.Size()
	switch known := !f.touched.IsZero(); {
	case !known:
		// The time of its last change is by its owner's clock. We have no better
		// measure only here: whoever is alive changes it soon.
		f.touched = now
		if modified.Before(now) {
			f.touched = modified
		}
		f.changed = true
	case !modified.Equal(f.modified):
		f.touched, f.changed = now, true
	case size != f.size:
		f.changed = true
	}
	f.modified, f.size = modified, size
}

// apply makes the Fleet's knowledge that of the files that were seen.
func (d *directory) apply(seen map[string]*file, now time.Time) {
	for path, f := range d.files {
		if seen[path] == nil || now.Sub(f.touched) > fileTTL {
			d.forget(f)
		}
	}
	d.files = seen
	for path, f := range seen {
		if f.changed && now.Sub(f.touched) <= fileTTL {
			d.read(path, f)
		}
	}
	if d.synced && !d.fleet.NeedsSync() {
		return
	}
	d.synced = true
	all := newListing()
	for _, f := range seen {
		if f.listed {
			f.appendTo(all)
		}
	}
	d.fleet.Sync(all)
}

// forget takes a file out of the Fleet. If it comes back it is as if it were new.
func (d *directory) forget(f *file) {
	f.content = 0
	if f.listed {
		f.listed = false
		d.remove(&f.entry)
	}
}

// read reads a file that is new or has changed. Most of the time it was only touched.
// One that cannot be read is tried again in every scan, and counted once; what it
// said before stays.
func (d *directory) read(path string, f *file) {
	value, err := d.readValue(path, f.size)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	f.changed = err != nil
	content := maphash.Bytes(d.seed, value)
	if err != nil {
		content = maphash.String(d.seed, err.Error())
	}
	if content == f.content {
		return
	}
	f.content = content
	if err != nil {
		d.countUnreadable(f, err)
		return
	}
	if !d.decode(&f.entry, value) {
		return
	}
	f.listed = true
	if d.synced {
		d.add(&f.entry)
	}
}

func (d *directory) readValue(path string, size int64) ([]byte, error) {
	if size > maxFile {
		return nil, fmt.Errorf("read %s: it has more than %d bytes", path, maxFile)
	}
	f, err := os.Open(filepath.Join(d.root, path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile)) // it may have grown since
}

// refuse counts a file that cannot be read.
func (d *directory) countUnreadable(f *file, err error) {
	d.fleet.Stats.CountMessage(f.kind)
	d.reject(&f.entry, stats.BadJSON, err)
	if failed := new(fs.PathError); errors.As(err, &failed) {
		d.fleet.Stats.CountFailure(stats.PeerFiles)
	}
	if !d.warned {
		d.warned = true
		d.log.Warn("A file of the registry cannot be read; of others that cannot, nothing more is said", "error", err)
	}
}
