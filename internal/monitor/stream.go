package monitor

import (
	"context"
	"net/http"
	"slices"
	"time"

	"dynamo-metrics/internal/expose"
)

const (
	// mostStreams is how many pages may be open at once.
	maxStreams = 100

	// patience is how long a client may take for one event. It bounds our memory: so many
	// cuts at most are held by those who read slowly, however many they are.
	sendTimeout = 10 * time.Second

	// farewell is how long a client may take for the end of its stream.
	closeTimeout = 500 * time.Millisecond

	// sendBuffer bounds, in bytes, what the kernel keeps for a client that does not read. It
	// would be megabytes, in which small cuts of many minutes have room.
	socketSendBuffer = 64 << 10

	chunkSize = 64 << 10
)

// stream sends the newest cut once a second: the first with the history, later ones
// with it when a step has closed. A client that is slow misses cuts, never the newest;
// one that does not read is cut off.
func (g *Monitor) serveEvents(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // for nginx in between
	packed := expose.AcceptsGzip(r.Header)
	if packed {
		h.Set("Content-Encoding", "gzip")
	}
	if r.Method == http.MethodHead {
		return
	}
	if !g.acquireStream() {
		h.Del("Content-Encoding")
		h.Set("Retry-After", "10")
		writeJSONError(w, http.StatusServiceUnavailable, "there are "+formatCount(maxStreams)+" open pages already, or the program is ending: close some, or ask /api/v1/fleet")
		return
	}
	defer g.releaseStream()
	expose.LimitSendBuffer(r, socketSendBuffer)
	s := sender{w: w, controller: http.NewResponseController(w), gzip: packed}
	// Else the time for reading the request would end the stream.
	_ = s.controller.SetReadDeadline(time.Time{})
	switch there := g.sendEvents(r.Context(), &s); {
	case s.slowest() >= sendTimeout, r.ProtoMajor == 2 && r.Context().Err() != nil && s.slowest() >= expose.StallTimeout:
		g.stats().StreamsCutOff.Add(1)
	case there:
		s.finish()
	}
}

// follow sends cut after cut until the client is gone or we end. It reports whether the
// client may still be there.
func (g *Monitor) sendEvents(ctx context.Context, s *sender) bool {
	last, seen := uint64(0), -1
	for {
		e, news := g.latestEvent(seen)
		if last != 0 && e.sample > last+1 {
			g.stats().SnapshotsSkipped.Add(e.sample - last - 1)
		}
		if !s.send(e) {
			return false
		}
		last, seen = e.sample, e.historyTotal
		select {
		case <-news:
		case <-ctx.Done():
			return true
		case <-g.done:
			return true
		}
	}
}

// open takes one of the streams that there may be.
func (g *Monitor) acquireStream() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.done:
		return false
	default:
	}
	if g.openStreams == maxStreams {
		g.stats().StreamsRefused.Add(1)
		return false
	}
	g.openStreams++
	g.stats().Streams.Store(int64(g.openStreams))
	return true
}

func (g *Monitor) releaseStream() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.openStreams--
	g.stats().Streams.Store(int64(g.openStreams))
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
func (s *sender) send(e *snapshotEvent) bool {
	start := time.Now()
	defer func() { s.sendTook = [2]time.Duration{time.Since(start), s.sendTook[0]} }()
	_ = s.controller.SetWriteDeadline(start.Add(sendTimeout))
	if !s.gzip {
		return s.write(e.frame) && s.controller.Flush() == nil
	}
	if !s.headerSent {
		s.headerSent = true
		if !s.write(gzipHeader) {
			return false
		}
	}
	s.trailer.update(e.frame)
	return s.write(e.compressedFrame()) && s.controller.Flush() == nil
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
