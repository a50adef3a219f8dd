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
	// maxStreams is how many event streams may be open at once.
	maxStreams = 100

	// sendTimeout is how long a client may take for one event. It bounds memory, because it
	// limits how many events slow clients keep alive, however many clients there are.
	sendTimeout = 10 * time.Second

	// closeTimeout is how long a client may take for the end of its stream.
	closeTimeout = 500 * time.Millisecond

	// socketSendBuffer bounds, in bytes, what the kernel buffers for a client that does not read.
	// The default is megabytes, which would hold many minutes of small events.
	socketSendBuffer = 64 << 10

	chunkSize = 64 << 10

	// stuckFor is the least time that an event has waited when an HTTP/2 connection ends because
	// nothing can be written to it. It is a second shorter than StallTimeout, because the frame
	// that is stuck may be up to a second older than the event.
	stuckFor = StallTimeout - time.Second
)

// serveEvents sends the latest snapshot once a second. The first one has the history, and later
// ones have it when a step of it has ended. A slow client misses snapshots, but never the latest.
// A client that does not read is disconnected.
func (s *server) serveEvents(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx must not buffer the stream
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
		writeJSONError(w, http.StatusServiceUnavailable, "there are "+strconv.Itoa(maxStreams)+" open streams already, or the program is shutting down: close some, or poll /api/v1/fleet")
		return
	}
	defer s.releaseStream()
	LimitSendBuffer(r, socketSendBuffer)
	to := sender{w: w, controller: http.NewResponseController(w), gzip: packed}
	// Without this the read deadline of the request would end the stream.
	_ = to.controller.SetReadDeadline(time.Time{})
	connected := s.sendEvents(r.Context(), &to)
	// A write may fail before the context of its request is canceled.
	ended := !connected || r.Context().Err() != nil
	switch {
	case to.slowest() >= sendTimeout, r.ProtoMajor == 2 && ended && to.slowest() >= stuckFor:
		s.o.Fleet.Stats.StreamsCutOff.Add(1)
	case connected:
		to.finish()
	}
}

// sendEvents sends every snapshot until the client disconnects or the monitor ends. It reports
// whether the client may still be connected.
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

// acquireStream counts a new stream. It reports false if maxStreams are open already, or the
// monitor has ended.
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

// eventPrefix and eventSuffix enclose the JSON of an event in a text/event-stream.
var eventPrefix, eventSuffix = []byte("data: "), []byte("\n\n")

// compressedRendering is a rendering with its compressed chunks. Each chunk is made once for all
// clients.
type compressedRendering struct {
	*monitor.Rendering
	eventOnce, jsonOnce sync.Once
	eventChunk          []byte
	jsonChunk           []byte
}

// compressed returns the rendering with its chunks, which clients of the same rendering share.
func (s *server) compressed(r *monitor.Rendering) *compressedRendering {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := 0
	if r.History {
		slot = 1
	}
	if c := s.renderings[slot]; c == nil || c.Sample < r.Sample {
		s.renderings[slot] = &compressedRendering{Rendering: r}
	} else if c.Rendering != r { // a client that is slower than others has an older one
		return &compressedRendering{Rendering: r}
	}
	return s.renderings[slot]
}

// event returns the rendering as a compressed event.
func (c *compressedRendering) event() []byte {
	c.eventOnce.Do(func() { c.eventChunk = deflateChunk(eventPrefix, c.JSON, eventSuffix) })
	return c.eventChunk
}

// json returns the rendering as compressed JSON.
func (c *compressedRendering) json() []byte {
	c.jsonOnce.Do(func() { c.jsonChunk = deflateChunk(c.JSON) })
	return c.jsonChunk
}

// sender writes a stream to one client.
type sender struct {
	w          http.ResponseWriter
	controller *http.ResponseController
	gzip       bool
	headerSent bool
	sendTook   [2]time.Duration // for the last event and the one before
	trailer    gzipTrailer
}

// send writes one event and reports whether the client read it in time.
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

// slowest returns the longer of the times for the last two events. Two are needed because the
// connection of a client that does not read may fail while the last event counts as sent.
func (s *sender) slowest() time.Duration { return max(s.sendTook[0], s.sendTook[1]) }

func (s *sender) write(b []byte) bool {
	for piece := range slices.Chunk(b, chunkSize) {
		if _, err := s.w.Write(piece); err != nil {
			return false
		}
	}
	return true
}

// finish ends the stream for a client that may still be connected.
func (s *sender) finish() {
	_ = s.controller.SetWriteDeadline(time.Now().Add(closeTimeout))
	if s.gzip {
		s.write(s.trailer.bytes())
	}
}
