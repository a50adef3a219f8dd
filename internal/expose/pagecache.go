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
	maxPages = 4

	// Clients for which others wait may take so long for one piece of their page, and for
	// all of it: as long as Prometheus itself waits.
	slowPiece, slowPage = 2 * time.Second, 10 * time.Second
	pieceSize           = 64 << 10

	// lookForRoom is how often those others look whether that time is over.
	lookForRoom = 50 * time.Millisecond
)

// press prints the page for all who ask at once: those who come while one is being
// printed share the next. None gets a page that was begun before it asked, and two
// hundred scrapers cost the memory of a few pages, not of two hundred. Where all pages
// that there may be are in use, the next waits until one is free: until then whoever
// comes shares it, and readers that are too slow are cut off.
type press struct {
	memory sync.Pool     // of *sheet
	freed  chan struct{} // of one place: a page is not in use any more
	cutOff *atomic.Uint64

	mu   sync.Mutex
	live []*edition // whose memory is in use, oldest first
}

// form is a format that the page is printed in.
type form struct {
	write    func(*bytes.Buffer) error
	printing chan struct{} // of one place, taken by who prints
	next     *edition      // not begun yet; nil if nobody waits for one. Under press.mu
}

func newPress(cutOff *atomic.Uint64) *press {
	return &press{memory: sync.Pool{New: func() any { return new(sheet) }}, freed: make(chan struct{}, 1), cutOff: cutOff}
}

func newForm(write func(*bytes.Buffer) error) *form {
	return &form{write: write, printing: make(chan struct{}, 1)}
}

// sheet is the memory of a page.
type sheet struct{ body, zipped bytes.Buffer }

// edition is one printed page. It is valid until its last reader has released it.
type edition struct {
	*sheet
	err     error
	done    chan struct{} // closed when it is printed
	zipping sync.Once

	// Under press.mu.
	readers map[*reader]struct{}
	printed time.Time // zero: not yet
}

// reader is a client that reads a page.
type reader struct {
	connection *http.ResponseController
	moved      atomic.Int64 // when it took its last piece, in nanoseconds since the page was printed
	cut        bool         // under press.mu
}

// errUnfinished is what readers get of a page whose printing panicked.
var errUnfinished = errors.New("it was not finished")

// print is a page for a reader, who releases it.
func (p *press) print(f *form, r *reader) *edition {
	e, mine := p.join(f, r)
	if !mine {
		<-e.done
		return e
	}
	f.printing <- struct{}{}
	defer func() { <-f.printing }()
	for !p.begin(f, e) {
		select {
		case <-p.freed:
		case <-time.After(lookForRoom):
		}
	}
	defer p.finish(e, r)
	e.err = errUnfinished
	e.err = f.write(&e.body)
	return e
}

// join is the edition that is next, and whether the caller is to print it.
func (p *press) join(f *form, r *reader) (e *edition, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if mine = f.next == nil; mine {
		f.next = &edition{sheet: p.memory.Get().(*sheet), done: make(chan struct{}), readers: make(map[*reader]struct{})}
	}
	f.next.readers[r] = struct{}{}
	return f.next, mine
}

// begin takes one of the pages that there may be, if one is free. Else it cuts off the
// slow readers of the oldest that has some.
func (p *press) begin(f *form, e *edition) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.live) < maxPages {
		p.live = append(p.live, e)
		f.next = nil // who comes from now on is to see what happens from now on
		return true
	}
	for _, old := range p.live {
		if p.hurry(old) {
			break
		}
	}
	return false
}

// hurry has the writes of all readers fail that are too slow, those under way and those
// to come. It reports whether there are some.
func (p *press) hurry(e *edition) (some bool) {
	if e.printed.IsZero() {
		return false
	}
	age := time.Since(e.printed)
	for r := range e.readers {
		if r.cut || age < slowPage && age-time.Duration(r.moved.Load()) < slowPiece {
			continue
		}
		some, r.cut = true, true
		if r.connection.SetWriteDeadline(time.Unix(1, 0)) == nil {
			p.cutOff.Add(1)
		}
	}
	return some
}

// finish lets the readers have the page. One whose printing panicked has no use for it.
func (p *press) finish(e *edition, r *reader) {
	p.mu.Lock()
	e.printed = time.Now()
	p.mu.Unlock()
	close(e.done)
	if errors.Is(e.err, errUnfinished) {
		p.release(e, r)
	}
}

// release gives the memory of a page back when nobody reads it any more.
func (p *press) release(e *edition, r *reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if delete(e.readers, r); len(e.readers) > 0 {
		return
	}
	p.live = slices.DeleteFunc(p.live, func(l *edition) bool { return l == e })
	e.body.Reset()
	e.zipped.Reset()
	p.memory.Put(e.sheet)
	select {
	case p.freed <- struct{}{}:
	default:
	}
}

// send writes a page, or its compressed form, to a reader. The only error is that of one
// who has gone, or was cut off.
func (e *edition) send(w io.Writer, r *reader, body []byte) {
	for piece := range slices.Chunk(body, pieceSize) {
		if _, err := w.Write(piece); err != nil {
			return
		}
		r.moved.Store(int64(time.Since(e.printed)))
	}
}

var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	return z
}}

// zip is the page compressed, once for all readers.
func (e *edition) zip() []byte {
	e.zipping.Do(func() {
		z := zippers.Get().(*gzip.Writer)
		defer zippers.Put(z)
		z.Reset(&e.zipped)
		_, _ = z.Write(e.body.Bytes()) // a buffer takes all
		_ = z.Close()
	})
	return e.zipped.Bytes()
}
