package expose

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
	// maxPages is how many printed pages may be in use at once: so much of our memory can
	// clients take that ask and do not read, however many they are.
	maxBuffers = 4

	// Clients for which others wait may take so long for one piece of their page, and for
	// all of it: as long as Prometheus itself waits.
	maxPieceTime, maxPageTime = 2 * time.Second, 10 * time.Second
	pieceSize                 = 64 << 10

	// lookForRoom is how often those others look whether that time is over.
	evictInterval = 50 * time.Millisecond
)

// press prints the page for all who ask at once: those who come while one is being
// printed share the next. None gets a page that was begun before it asked, and two
// hundred scrapers cost the memory of a few pages, not of two hundred. Where all pages
// that there may be are in use, the next waits until one is free: until then whoever
// comes shares it, and readers that are too slow are cut off.
type pageCache struct {
	buffers sync.Pool     // of *sheet
	freed   chan struct{} // of one place: a page is not in use any more
	cutOff  *atomic.Uint64

	mu   sync.Mutex
	live []*rendering // whose memory is in use, oldest first
}

// form is a format that the page is printed in.
type outputFormat struct {
	write     func(*bytes.Buffer) error
	rendering chan struct{} // of one place, taken by who prints
	next      *rendering    // not begun yet; nil if nobody waits for one. Under press.mu
}

func newPageCache(cutOff *atomic.Uint64) *pageCache {
	return &pageCache{buffers: sync.Pool{New: func() any { return new(buffer) }}, freed: make(chan struct{}, 1), cutOff: cutOff}
}

func newOutputFormat(write func(*bytes.Buffer) error) *outputFormat {
	return &outputFormat{write: write, rendering: make(chan struct{}, 1)}
}

// sheet is the memory of a page.
type buffer struct{ body, gzipped bytes.Buffer }

// edition is one printed page. It is valid until its last reader has released it.
type rendering struct {
	*buffer
	err      error
	done     chan struct{} // closed when it is printed
	gzipOnce sync.Once

	// Under press.mu.
	readers    map[*reader]struct{}
	renderedAt time.Time // zero: not yet
}

// reader is a client that reads a page.
type reader struct {
	connection *http.ResponseController
	lastRead   atomic.Int64 // when it took its last piece, in nanoseconds since the page was printed
	evicted    bool         // under press.mu
}

// errUnfinished is what readers get of a page whose printing panicked.
var errUnfinished = errors.New("it was not finished")

// print is a page for a reader, who releases it.
func (p *pageCache) render(f *outputFormat, r *reader) *rendering {
	e, mine := p.join(f, r)
	if !mine {
		<-e.done
		return e
	}
	f.rendering <- struct{}{}
	defer func() { <-f.rendering }()
	for !p.start(f, e) {
		select {
		case <-p.freed:
		case <-time.After(evictInterval):
		}
	}
	defer p.finish(e, r)
	e.err = errUnfinished
	e.err = f.write(&e.body)
	return e
}

// join is the edition that is next, and whether the caller is to print it.
func (p *pageCache) join(f *outputFormat, r *reader) (e *rendering, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if mine = f.next == nil; mine {
		f.next = &rendering{buffer: p.buffers.Get().(*buffer), done: make(chan struct{}), readers: make(map[*reader]struct{})}
	}
	f.next.readers[r] = struct{}{}
	return f.next, mine
}

// begin takes one of the pages that there may be, if one is free. Else it cuts off the
// slow readers of the oldest that has some.
func (p *pageCache) start(f *outputFormat, e *rendering) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.live) < maxBuffers {
		p.live = append(p.live, e)
		f.next = nil // who comes from now on is to see what happens from now on
		return true
	}
	for _, old := range p.live {
		if p.evictSlowReaders(old) {
			break
		}
	}
	return false
}

// hurry has the writes of all readers fail that are too slow, those under way and those
// to come. It reports whether there are some.
func (p *pageCache) evictSlowReaders(e *rendering) (some bool) {
	if e.renderedAt.IsZero() {
		return false
	}
	age := time.Since(e.renderedAt)
	for r := range e.readers {
		if r.evicted || age < maxPageTime && age-time.Duration(r.lastRead.Load()) < maxPieceTime {
			continue
		}
		some, r.evicted = true, true
		if r.connection.SetWriteDeadline(time.Unix(1, 0)) == nil {
			p.cutOff.Add(1)
		}
	}
	return some
}

// finish lets the readers have the page. One whose printing panicked has no use for it.
func (p *pageCache) finish(e *rendering, r *reader) {
	p.mu.Lock()
	e.renderedAt = time.Now()
	p.mu.Unlock()
	close(e.done)
	if errors.Is(e.err, errUnfinished) {
		p.release(e, r)
	}
}

// release gives the memory of a page back when nobody reads it any more.
func (p *pageCache) release(e *rendering, r *reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if delete(e.readers, r); len(e.readers) > 0 {
		return
	}
	p.live = slices.DeleteFunc(p.live, func(l *rendering) bool { return l == e })
	e.body.Reset()
	e.gzipped.Reset()
	p.buffers.Put(e.buffer)
	select {
	case p.freed <- struct{}{}:
	default:
	}
}

// send writes a page, or its compressed form, to a reader. The only error is that of one
// who has gone, or was cut off.
func (e *rendering) send(w io.Writer, r *reader, body []byte) {
	for piece := range slices.Chunk(body, pieceSize) {
		if _, err := w.Write(piece); err != nil {
			return
		}
		r.lastRead.Store(int64(time.Since(e.renderedAt)))
	}
}

var gzipWriters = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	return z
}}

// zip is the page compressed, once for all readers.
func (e *rendering) gzip() []byte {
	e.gzipOnce.Do(func() {
		z := gzipWriters.Get().(*gzip.Writer)
		defer gzipWriters.Put(z)
		z.Reset(&e.gzipped)
		_, _ = z.Write(e.body.Bytes()) // a buffer takes all
		_ = z.Close()
	})
	return e.gzipped.Bytes()
}
