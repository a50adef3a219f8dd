package dynlog

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// What may wait to be written: both are far more than a reader needs that stands still for a
// moment.
const (
	maxQueuedLines = 4096
	maxQueuedBytes = 1 << 20
)

// Output keeps the log apart from those who log: a writer that is slow, stuck or gone never
// holds them up. Write takes a line, Run writes it. A line that there is no room for, or that
// cannot be written, is left out and counted; as soon as the log can be written again, one
// line says how many there were.
type Output struct {
	w       io.Writer
	dropped atomic.Uint64
	done    chan struct{} // closed when Run has ended

	mu          sync.Mutex
	wake        sync.Cond // there is something to do for Run
	queue       []entry
	queuedBytes int    // of their lines, and of the one that is being written
	full        bool   // every line is left out until half of it is free
	gap         uint64 // lines since it is full
	closed      bool
	notice      func(lines uint64) []byte // says how many lines are missing, in the log's form
}

// entry is a line, or the place where lines are missing.
type entry struct {
	line    []byte
	missing uint64
}

// NewOutput is an Output to w. Nothing is written before Run.
func NewOutput(w io.Writer) *Output {
	o := &Output{w: w, done: make(chan struct{}), notice: func(uint64) []byte { return nil }}
	o.wake.L = &o.mu
	return o
}

// Write takes one line. It waits for nothing, and its error is always nil.
func (o *Output) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.full = o.full || len(o.queue) >= maxQueuedLines || o.queuedBytes+len(line) > maxQueuedBytes
	if o.full {
		o.gap++
		o.dropped.Add(1)
	} else {
		o.queuedBytes += len(line)
		o.queue = append(o.queue, entry{line: append([]byte(nil), line...)}) // it is the caller's
	}
	o.wake.Signal()
	return len(line), nil
}

// LeftOut is the number of lines that were left out so far.
func (o *Output) Dropped() uint64 { return o.dropped.Load() }

// Run writes the lines, each in one Write, until Close is called and none waits. It ends no
// earlier where the writer is stuck, so that Close may not wait for it.
func (o *Output) Run() {
	defer close(o.done)
	missing, torn := uint64(0), false // what the log lacks, and whether it ends within a line
	write := func(line []byte) bool {
		if torn {
			line = append([]byte("\n"), line...)
		}
		n, err := o.w.Write(line)
		torn = err != nil && (torn && n == 0 || n > 0)
		return err == nil
	}
	for e, ok := o.dequeue(0); ok; e, ok = o.dequeue(len(e.line)) {
		missing += e.missing
		if missing > 0 && write(o.noticeLine(missing)) {
			missing = 0
		}
		if e.line != nil && !write(e.line) {
			missing++
			o.dropped.Add(1)
		}
	}
}

// next gives back the room of what was written, and is what is to be written next; false at
// the end. Where half of the room is free again, those that were left out until now are
// missing behind all that wait.
func (o *Output) dequeue(written int) (e entry, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queuedBytes -= written
	for {
		if o.full && len(o.queue) <= maxQueuedLines/2 && o.queuedBytes <= maxQueuedBytes/2 {
			o.queue = append(o.queue, entry{missing: o.gap})
			o.full, o.gap = false, 0
		}
		if len(o.queue) > 0 {
			e = o.queue[0]
			o.queue[0] = entry{} // its memory is not to wait for that of the others
			o.queue = o.queue[1:]
			return e, true
		}
		if o.closed {
			return entry{}, false
		}
		o.wake.Wait()
	}
}

func (o *Output) noticeLine(missing uint64) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.notice(missing)
}

// setNotice sets how the log says that lines are missing.
func (o *Output) setNotice(notice func(lines uint64) []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notice = notice
}

// Close has Run end when all that waits is written, and returns when it has, or after that
// long: whatever becomes of the log, the program can end.
func (o *Output) Close(atMost time.Duration) {
	o.mu.Lock()
	o.closed = true
	o.wake.Signal()
	o.mu.Unlock()
	late := time.NewTimer(atMost)
	defer late.Stop()
	select {
	case <-o.done:
	case <-late.C:
	}
}
