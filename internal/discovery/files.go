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
	fileTTL      = 10 * time.Second // Dynamo's own TTL; workers touch their files three times in it
	maxFile      = 1 << 20          // bytes of a value; a model card has a few thousand
	maxFiles     = 200_000          // in one directory; a worker has about five files in the directory with the most
)

// Files is the registry of Dynamo namespaces in a directory: file discovery, for fleets without
// etcd (0.8 to 1.6).
type Files struct {
	Root       string // the workers' DYN_FILE_KV
	Namespaces wire.Namespaces
	Fleet      *fleet.Fleet
	State      *stats.ConnState // up while the registry can be read
	Log        *slog.Logger
}

// Watch keeps the Fleet's copy of the registry equal to the files below Root until ctx ends.
// While they cannot be read, or the directory does not exist, the Fleet forgets nothing. The
// error is always nil.
func (r *Files) Watch(ctx context.Context) error {
	r.Log.Info("Watching the registry in " + r.Root)
	d := directory{
		root:   r.Root,
		state:  r.State,
		reader: reader{namespaces: r.Namespaces, fleet: r.Fleet, log: r.Log},
		seed:   maphash.MakeSeed(),
	}
	defer r.State.SetConnected(false)
	for {
		began := time.Now()
		d.scan(began)
		// A scan of 50,000 files takes 0.2 s, and longer over a network. At most a fifth of the
		// time is spent on scans.
		if !backoff.Wait(ctx, max(scanInterval, 4*time.Since(began))) {
			return nil
		}
	}
}

// directory is the state of the files below root, as of the last scan.
type directory struct {
	root  string
	state *stats.ConnState
	reader
	seed  maphash.Seed
	files map[string]*file // the files of keys that the program reads, by path below root

	synced  bool   // the Fleet has a copy
	failure string // why the directory cannot be read; empty if it can be read
	warned  bool   // a file that cannot be read was logged
}

// file is one file, whether it has expired or not.
type file struct {
	entry
	modified time.Time // according to the file server's or the worker's clock
	size     int64
	changed  bool      // it has changed since it was read
	touched  time.Time // when its worker last touched it, according to this program's clock
	content  uint64    // a hash of the file's content; 0 if it was not read yet
	listed   bool      // the Fleet has a copy
}

// scan reads the directory once.
func (d *directory) scan(now time.Time) {
	seen, err := d.listFiles(now)
	if err != nil {
		d.state.SetConnected(false)
		d.state.SetError(err.Error())
		d.fleet.Stats.CountFailure(stats.PeerFiles)
		if d.failure != err.Error() {
			d.failure = err.Error()
			d.log.Warn("The registry cannot be read; keeping the last known fleet and retrying", "error", err)
		}
		return
	}
	if d.failure != "" {
		d.log.Info("The registry can be read again")
		d.failure = ""
		// The workers may not have been able to touch their files either.
		for _, f := range d.files {
			if f.listed {
				f.touched = now
			}
		}
	}
	d.apply(seen, now)
	d.state.SetConnected(true)
}

// listFiles finds the present files, and marks those that have changed.
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
	// A missing file was removed, unless the whole directory was.
	again, err := statRoot(d.root)
	if err == nil && !os.SameFile(root, again) {
		err = fmt.Errorf("the directory %s was replaced while it was read", d.root)
	}
	return seen, err
}

// listBucket adds the files of one bucket to seen. whole is false if a file was removed
// meanwhile.
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

// statRoot returns the registry's directory, which must exist.
func statRoot(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the directory %s does not exist", path)
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a directory", path)
	}
	return info, nil
}

// readDir lists a directory.
func readDir(dir string) ([]fs.DirEntry, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readEntries(f, dir)
}

// readEntries lists a directory. It fails if there are more than maxFiles files.
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

// fileAt returns the record of the file at path, or a new one if there was none. It returns nil if
// the file belongs to no key that the program reads.
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

// update compares a file with its state in the last scan.
func (f *file) update(info fs.FileInfo, now time.Time) {
	modified, size := info.ModTime(), info.Size()
	switch known := !f.touched.IsZero(); {
	case !known:
		// The modification time is from the worker's clock. It is used only for new files,
		// because a live worker soon touches its file again.
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

// apply updates the Fleet from the files of a scan.
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

// forget removes a file from the Fleet. If the file comes back, it is treated as new.
func (d *directory) forget(f *file) {
	f.content = 0
	if f.listed {
		f.listed = false
		d.remove(&f.entry)
	}
}

// read reads a file that is new or has changed. Most changed files were only touched. A file
// that cannot be read is counted once and tried again in every scan. Its last good value stays.
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
	return io.ReadAll(io.LimitReader(f, maxFile)) // the file may have grown since
}

// countUnreadable counts a file that cannot be read.
func (d *directory) countUnreadable(f *file, err error) {
	d.fleet.Stats.CountMessage(f.kind)
	d.reject(&f.entry, stats.BadJSON, err)
	if failed := new(fs.PathError); errors.As(err, &failed) {
		d.fleet.Stats.CountFailure(stats.PeerFiles)
	}
	if !d.warned {
		d.warned = true
		d.log.Warn("A file of the registry cannot be read; further unreadable files are not logged", "error", err)
	}
}
