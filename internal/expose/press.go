package expose

import (
	"compress/gzip"
	"errors"
	"io"
	"sync"
)

// press prints the page for all who ask at once: those who come while one is being
// printed share the next. None gets a page that was begun before it asked, and two
// hundred scrapers cost the memory of a few pages, not of two hundred.
type press struct {
	memory   sync.Pool     // of *text
	printing chan struct{} // of one place, taken by who prints

	mu   sync.Mutex
	next *edition // not begun yet; nil if nobody waits for one
}

// edition is one printed page. It is valid until its last reader has released it.
type edition struct {
	*text
	body    []byte
	err     error
	done    chan struct{} // closed when it is printed
	readers int           // under press.mu
	zipping sync.Once
}

// errUnfinished is what readers get of a page whose printing panicked.
var errUnfinished = errors.New("it was not finished")

// print is a page that the caller releases.
func (p *press) print() *edition {
	e, mine := p.join()
	if !mine {
		<-e.done
		return e
	}
	p.printing <- struct{}{}
	defer func() { <-p.printing }()
	defer close(e.done)
	p.mu.Lock()
	p.next = nil // who comes from now on is to see what happens from now on
	p.mu.Unlock()
	e.text, e.err = p.memory.Get().(*text), errUnfinished
	e.body, e.err = e.page()
	return e
}

// join is the edition that is next, and whether the caller is to print it.
func (p *press) join() (e *edition, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if mine = p.next == nil; mine {
		p.next = &edition{done: make(chan struct{})}
	}
	p.next.readers++
	return p.next, mine
}

// release gives the memory of a page back when nobody reads it any more.
func (p *press) release(e *edition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.readers--; e.readers == 0 && e.text != nil {
		p.memory.Put(e.text)
	}
}

var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	return z
}}

// zip is the page compressed, once for all readers.
func (e *edition) zip() []byte {
	e.zipping.Do(func() {
		e.zipped.Reset()
		z := zippers.Get().(*gzip.Writer)
		defer zippers.Put(z)
		z.Reset(&e.zipped)
		_, _ = z.Write(e.body) // a buffer takes all
		_ = z.Close()
	})
	return e.zipped.Bytes()
}
