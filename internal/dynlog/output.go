package dynlog

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the queue. Both are far more than a short pause of the reader needs.
const (
	maxQueuedLines = 4096
	maxQueuedBytes = 1 << 20
)

// Output decouples logging from writing: a slow, stuck or closed writer never blocks the
// goroutines that log. Write queues a line, and Run writes it. A line that does not fit into the
// queue, or cannot be written, is dropped and counted. As soon as the log can be written again,
// one line reports how many were dropped.
type Output struct {
	w       io.Writer
	dropped atomic.Uint64
	done    chan struct{} // closed when Run has ended

	mu          sync.Mutex
	wake        sync.Cond // signals Run
	queue       []entry
	queuedBytes int    // bytes of the queued lines and of the one being written
	full        bool   // every line is dropped until half of the queue is free
	gap         uint64 // lines dropped since the queue was full
	closed      bool
	notice      func(lines uint64) []byte // formats the line that reports missing lines
}

// entry is a line, or marks where lines are missing.
type entry struct {
	line    []byte
	missing uint64
}

// NewOutput returns an Output that writes to w. Nothing is written before Run is called.
func NewOutput(w io.Writer) *Output {
	o := &Output{w: w, done: make(chan struct{}), notice: func(uint64) []byte { return nil }}
	o.wake.L = &o.mu
	return o
}

// Write queues one line. It never blocks, and its error is always nil.
func (o *Output) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.full = o.full || len(o.queue) >= maxQueuedLines || o.queuedBytes+len(line) > maxQueuedBytes
	if o.full {
		o.gap++
		o.dropped.Add(1)
	} else {
		o.queuedBytes += len(line)
		o.queue = append(o.queue, entry{line: append([]byte(nil), line...)}) // the caller may reuse line
	}
	o.wake.Signal()
	return len(line), nil
}

// Dropped returns the number of lines that were dropped so far.
func (o *Output) Dropped() uint64 { return o.dropped.Load() }

// Run writes the queued lines, each in one Write, until Close is called and the queue is empty.
// It does not return while the writer is stuck. Close does not wait for ever for that.
func (o *Output) Run() {
	defer close(o.done)
	missing, torn := uint64(0), false // lines missing so far; whether the last line is incomplete
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

// dequeue frees the space of the line that was written, and returns the next entry, or false at
// the end. When half of the queue is free again, it appends an entry for the dropped lines.
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
			o.queue[0] = entry{} // so that its memory can be freed
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

// setNotice sets the function that formats the line about missing lines.
func (o *Output) setNotice(notice func(lines uint64) []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notice = notice
}

// Close makes Run return once the queue is written. It waits for that, but at most this long, so
// that the program can end even if the writer is stuck.
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
