package exposition

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxBuffers is how many renderings may be in use at once. It bounds the memory for clients
	// that send requests and do not read, however many they are.
	maxBuffers = 4

	// While other clients wait for a buffer, a client may take maxPieceTime to read one piece of
	// its response, and MaxPageTime to read all of it. Prometheus itself gives up after ten
	// seconds.
	maxPieceTime, MaxPageTime = 2 * time.Second, 10 * time.Second
	pieceSize                 = 64 << 10

	// evictInterval is how often a rendering that waits for a buffer checks those times.
	evictInterval = 50 * time.Millisecond
)

// pageCache renders the metrics for concurrent scrapes. Scrapes that arrive during a rendering
// share the next one, and no scrape gets a rendering that began before its request. So 200
// clients cost the memory of a few renderings. If all buffers are in use, the next rendering waits
// for one. Until then all new scrapes share it, and readers that are too slow are cut off.
type pageCache struct {
	buffers sync.Pool     // of *buffer
	freed   chan struct{} // capacity 1: signals that a buffer is free
	cutOff  *atomic.Uint64

	mu   sync.Mutex
	live []*rendering // with a buffer in use, oldest first
}

// outputFormat is a format in which the metrics are rendered.
type outputFormat struct {
	write     func(*bytes.Buffer) error
	rendering chan struct{} // capacity 1: a lock that is held while rendering
	next      *rendering    // not begun yet; nil if no client waits for one. Guarded by pageCache.mu
}

func newPageCache(cutOff *atomic.Uint64) *pageCache {
	return &pageCache{buffers: sync.Pool{New: func() any { return new(buffer) }}, freed: make(chan struct{}, 1), cutOff: cutOff}
}

func newOutputFormat(write func(*bytes.Buffer) error) *outputFormat {
	return &outputFormat{write: write, rendering: make(chan struct{}, 1)}
}

// buffer is the memory of a rendering.
type buffer struct{ body, gzipped bytes.Buffer }

// rendering is the metrics in one format at one time. It is valid until its last reader releases
// it.
type rendering struct {
	*buffer
	err      error
	done     chan struct{} // closed when it is complete
	gzipOnce sync.Once

	// Guarded by pageCache.mu.
	readers    map[*reader]struct{}
	renderedAt time.Time // zero until it is complete
}

// reader is a client that reads a rendering.
type reader struct {
	connection *http.ResponseController
	lastRead   atomic.Int64 // when it read its last piece, in nanoseconds since the rendering was complete
	evicted    bool         // guarded by pageCache.mu
}

// errUnfinished is what readers get if the rendering panicked.
var errUnfinished = errors.New("the rendering was not finished")

// render returns a rendering for a reader, which must release it.
func (c *pageCache) render(f *outputFormat, rd *reader) *rendering {
	r, mine := c.join(f, rd)
	if !mine {
		<-r.done
		return r
	}
	f.rendering <- struct{}{}
	defer func() { <-f.rendering }()
	for !c.start(f, r) {
		select {
		case <-c.freed:
		case <-time.After(evictInterval):
		}
	}
	defer c.finish(r, rd)
	r.err = errUnfinished
	r.err = f.write(&r.body)
	return r
}

// join adds a reader to the next rendering, and reports whether the caller must render it.
func (c *pageCache) join(f *outputFormat, rd *reader) (r *rendering, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if mine = f.next == nil; mine {
		f.next = &rendering{buffer: c.buffers.Get().(*buffer), done: make(chan struct{}), readers: make(map[*reader]struct{})}
	}
	f.next.readers[rd] = struct{}{}
	return f.next, mine
}

// start takes a buffer if one is free. Otherwise it evicts the slow readers of the oldest
// rendering that has some.
func (c *pageCache) start(f *outputFormat, r *rendering) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.live) < maxBuffers {
		c.live = append(c.live, r)
		f.next = nil // later requests need a later rendering
		return true
	}
	for _, old := range c.live {
		if c.evictSlowReaders(old) {
			break
		}
	}
	return false
}

// evictSlowReaders makes the present and later writes to slow readers fail. It reports whether
// there were any.
func (c *pageCache) evictSlowReaders(r *rendering) (some bool) {
	if r.renderedAt.IsZero() {
		return false
	}
	age := time.Since(r.renderedAt)
	for rd := range r.readers {
		if rd.evicted || age < MaxPageTime && age-time.Duration(rd.lastRead.Load()) < maxPieceTime {
			continue
		}
		some, rd.evicted = true, true
		if rd.connection.SetWriteDeadline(time.Unix(1, 0)) == nil {
			c.cutOff.Add(1)
		}
	}
	return some
}

// finish gives the rendering to its readers. If it panicked, finish releases the caller's own
// reader.
func (c *pageCache) finish(r *rendering, rd *reader) {
	c.mu.Lock()
	r.renderedAt = time.Now()
	c.mu.Unlock()
	close(r.done)
	if errors.Is(r.err, errUnfinished) {
		c.release(r, rd)
	}
}

// release removes a reader, and frees the buffer after the last one.
func (c *pageCache) release(r *rendering, rd *reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if delete(r.readers, rd); len(r.readers) > 0 {
		return
	}
	c.live = slices.DeleteFunc(c.live, func(l *rendering) bool { return l == r })
	r.body.Reset()
	r.gzipped.Reset()
	c.buffers.Put(r.buffer)
	select {
	case c.freed <- struct{}{}:
	default:
	}
}

// send writes a rendering, plain or compressed, to a reader. A write fails only if the client has
// disconnected or was cut off.
func (r *rendering) send(w io.Writer, rd *reader, body []byte) {
	for piece := range slices.Chunk(body, pieceSize) {
		if _, err := w.Write(piece); err != nil {
			return
		}
		rd.lastRead.Store(int64(time.Since(r.renderedAt)))
	}
}

var gzipWriters = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	return z
}}

// gzip returns the compressed rendering. It is compressed once for all readers.
func (r *rendering) gzip() []byte {
	r.gzipOnce.Do(func() {
		z := gzipWriters.Get().(*gzip.Writer)
		defer gzipWriters.Put(z)
		z.Reset(&r.gzipped)
		_, _ = z.Write(r.body.Bytes()) // a buffer never fails
		_ = z.Close()
	})
	return r.gzipped.Bytes()
}
