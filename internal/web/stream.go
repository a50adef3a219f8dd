package web

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"dynamo-metrics/internal/exposition"
	"dynamo-metrics/internal/monitor"
)

const (
	// mostStreams is how many pages may be open at once.
	maxStreams = 100

	// patience is how long a client may take for one event. It bounds our memory: so many
	// cuts at most are held by those who read slowly, however many they are.
	sendTimeout = 10 * time.Second

	// closeTimeout is how long a client may take for the end of its stream.
	closeTimeout = 500 * time.Millisecond

	// sendBuffer bounds, in bytes, what the kernel keeps for a client that does not read. It
	// would be megabytes, in which small cuts of many minutes have room.
	socketSendBuffer = 64 << 10

	chunkSize = 64 << 10

	// stuckFor is how long an event at least has been waiting when a connection of HTTP/2 ends
	// because nothing can be written to it. The frame that is stuck need not be of the event: it
	// may have been written up to a second before, when there was none.
	stuckFor = StallTimeout - time.Second
)

// stream sends the newest cut once a second: the first with the history, later ones
// with it when a step has closed. A client that is slow misses cuts, never the newest;
// one that does not read is cut off.
func (s *server) serveEvents(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // for nginx in between
	packed := exposition.AcceptsGzip(r.Header)
	if packed {
		h.Set("Content-Encoding", "gzip")
	}
	if r.Method == http.MethodHead {
		return
	}
	if !s.acquireStream() {
		h.Del("Content-Encoding")
		h.Set("Retry-After", "10")
		writeJSONError(w, http.StatusServiceUnavailable, "there are "+strconv.Itoa(maxStreams)+" open pages already, or the program is ending: close some, or ask /api/v1/fleet")
		return
	}
	defer s.releaseStream()
	LimitSendBuffer(r, socketSendBuffer)
	to := sender{w: w, controller: http.NewResponseController(w), gzip: packed}
	// Else the time for reading the request would end the stream.
	_ = to.controller.SetReadDeadline(time.Time{})
	there := s.sendEvents(r.Context(), &to)
	// A write may fail before the context of its request is canceled.
	ended := !there || r.Context().Err() != nil
	switch {
	case to.slowest() >= sendTimeout, r.ProtoMajor == 2 && ended && to.slowest() >= stuckFor:
		s.o.Fleet.Stats.StreamsCutOff.Add(1)
	case there:
		to.finish()
	}
}

// sendEvents sends snapshot after snapshot until the client or the monitor has ended. It reports
// whether the client may still be there.
func (s *server) sendEvents(ctx context.Context, to *sender) bool {
	last, seen := uint64(0), -1
	for {
		rendering, newer := s.o.Monitor.Render(seen)
		if last != 0 && rendering.Sample > last+1 {
			s.o.Fleet.Stats.SnapshotsSkipped.Add(rendering.Sample - last - 1)
		}
		if !to.send(s.compressed(rendering)) {
			return false
		}
		last, seen = rendering.Sample, rendering.HistoryTotal
		select {
		case <-newer:
		case <-ctx.Done():
			return true
		case <-s.o.Monitor.Done():
			return true
		}
	}
}

// acquireStream takes one of the streams that may be open. It reports false if there is none, or
// the monitor has ended.
func (s *server) acquireStream() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.o.Monitor.Done():
		return false
	default:
	}
	if s.openStreams == maxStreams {
		s.o.Fleet.Stats.StreamsRefused.Add(1)
		return false
	}
	s.openStreams++
	s.o.Fleet.Stats.Streams.Store(int64(s.openStreams))
	return true
}

func (s *server) releaseStream() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openStreams--
	s.o.Fleet.Stats.Streams.Store(int64(s.openStreams))
}

// eventPrefix and eventSuffix make an event of a stream (text/event-stream) out of JSON.
var eventPrefix, eventSuffix = []byte("data: "), []byte("\n\n")

// compressedRendering is a rendering, and what it is compressed: once for all clients.
type compressedRendering struct {
	*monitor.Rendering
	eventOnce, jsonOnce sync.Once
	eventChunk, chunk   []byte
}

// compressed returns the rendering with what has been compressed of it.
func (s *server) compressed(r *monitor.Rendering) *compressedRendering {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := 0
	if r.History {
		slot = 1
	}
	if c := s.renderings[slot]; c == nil || c.Sample < r.Sample {
		s.renderings[slot] = &compressedRendering{Rendering: r}
	} else if c.Rendering != r { // a client that was slower than others has an older one
		return &compressedRendering{Rendering: r}
	}
	return s.renderings[slot]
}

// event returns the chunk of an event.
func (c *compressedRendering) event() []byte {
	c.eventOnce.Do(func() { c.eventChunk = deflateChunk(eventPrefix, c.JSON, eventSuffix) })
	return c.eventChunk
}

// json returns the chunk of the JSON alone.
func (c *compressedRendering) json() []byte {
	c.jsonOnce.Do(func() { c.chunk = deflateChunk(c.JSON) })
	return c.chunk
}

// sender writes a stream to one client.
type sender struct {
	w          http.ResponseWriter
	controller *http.ResponseController
	gzip       bool
	headerSent bool
	sendTook   [2]time.Duration // the last event, and the one before
	trailer    gzipTrailer
}

// send writes one event and reports whether the client took it in time.
func (s *sender) send(c *compressedRendering) bool {
	start := time.Now()
	defer func() { s.sendTook = [2]time.Duration{time.Since(start), s.sendTook[0]} }()
	_ = s.controller.SetWriteDeadline(start.Add(sendTimeout))
	if !s.gzip {
		return s.write(eventPrefix) && s.write(c.JSON) && s.write(eventSuffix) && s.controller.Flush() == nil
	}
	if !s.headerSent {
		s.headerSent = true
		if !s.write(gzipHeader) {
			return false
		}
	}
	s.trailer.update(eventPrefix, c.JSON, eventSuffix)
	return s.write(c.event()) && s.controller.Flush() == nil
}

// slowest is how long the client took for one of the last two events: the connection of one
// that does not read may end while what it has sent last counts as taken.
func (s *sender) slowest() time.Duration { return max(s.sendTook[0], s.sendTook[1]) }

func (s *sender) write(b []byte) bool {
	for piece := range slices.Chunk(b, chunkSize) {
		if _, err := s.w.Write(piece); err != nil {
			return false
		}
	}
	return true
}

// finish ends the stream for a client that may still be there.
func (s *sender) finish() {
	_ = s.controller.SetWriteDeadline(time.Now().Add(closeTimeout))
	if s.gzip {
		s.write(s.trailer.bytes())
	}
}
