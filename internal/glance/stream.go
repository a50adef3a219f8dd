package glance

import (
	"context"
	"net/http"
	"slices"
	"time"

	"dynamo-metrics/internal/expose"
)

const (
	// mostStreams is how many pages may be open at once.
	mostStreams = 100

	// patience is how long a client may take for one event. It bounds our memory: so many
	// cuts at most are held by those who read slowly, however many they are.
	patience = 10 * time.Second

	// farewell is how long a client may take for the end of its stream.
	farewell = 500 * time.Millisecond

	// sendBuffer bounds, in bytes, what the kernel keeps for a client that does not read. It
	// would be megabytes, in which small cuts of many minutes have room.
	sendBuffer = 64 << 10

	pieceSize = 64 << 10
)

// stream sends the newest cut once a second: the first with the history, later ones
// with it when a step has closed. A client that is slow misses cuts, never the newest;
// one that does not read is cut off.
func (g *Glance) stream(w http.ResponseWriter, r *http.Request) {
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
	if !g.open() {
		h.Del("Content-Encoding")
		h.Set("Retry-After", "10")
		refuse(w, http.StatusServiceUnavailable, "there are "+thousands(mostStreams)+" open pages already, or the program is ending: close some, or ask /api/v1/fleet")
		return
	}
	defer g.close()
	expose.LimitSendBuffer(r, sendBuffer)
	s := sender{w: w, connection: http.NewResponseController(w), packed: packed}
	// Else the time for reading the request would end the stream.
	_ = s.connection.SetReadDeadline(time.Time{})
	switch there := g.follow(r.Context(), &s); {
	case s.slowest() >= patience, r.ProtoMajor == 2 && r.Context().Err() != nil && s.slowest() >= expose.Stalled:
		g.tally().StreamsCutOff.Add(1)
	case there:
		s.finish()
	}
}

// follow sends cut after cut until the client is gone or we end. It reports whether the
// client may still be there.
func (g *Glance) follow(ctx context.Context, s *sender) bool {
	last, seen := uint64(0), -1
	for {
		e, news := g.newest(seen)
		if last != 0 && e.look > last+1 {
			g.tally().SnapshotsSkipped.Add(e.look - last - 1)
		}
		if !s.send(e) {
			return false
		}
		last, seen = e.look, e.taken
		select {
		case <-news:
		case <-ctx.Done():
			return true
		case <-g.ended:
			return true
		}
	}
}

// open takes one of the streams that there may be.
func (g *Glance) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.ended:
		return false
	default:
	}
	if g.streams == mostStreams {
		g.tally().StreamsRefused.Add(1)
		return false
	}
	g.streams++
	g.tally().Streams.Store(int64(g.streams))
	return true
}

func (g *Glance) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.streams--
	g.tally().Streams.Store(int64(g.streams))
}

// sender writes a stream to one client.
type sender struct {
	w          http.ResponseWriter
	connection *http.ResponseController
	packed     bool
	begun      bool
	took       [2]time.Duration // the last event, and the one before
	sum        gzipSum
}

// send writes one event and reports whether the client took it in time.
func (s *sender) send(e *event) bool {
	start := time.Now()
	defer func() { s.took = [2]time.Duration{time.Since(start), s.took[0]} }()
	_ = s.connection.SetWriteDeadline(start.Add(patience))
	if !s.packed {
		return s.write(e.frame) && s.connection.Flush() == nil
	}
	if !s.begun {
		s.begun = true
		if !s.write(gzipHeader) {
			return false
		}
	}
	s.sum.add(e.frame)
	return s.write(e.packedFrame()) && s.connection.Flush() == nil
}

// slowest is how long the client took for one of the last two events: the connection of one
// that does not read may end while what it has sent last counts as taken.
func (s *sender) slowest() time.Duration { return max(s.took[0], s.took[1]) }

func (s *sender) write(b []byte) bool {
	for piece := range slices.Chunk(b, pieceSize) {
		if _, err := s.w.Write(piece); err != nil {
			return false
		}
	}
	return true
}

// finish ends the stream for a client that may still be there.
func (s *sender) finish() {
	_ = s.connection.SetWriteDeadline(time.Now().Add(farewell))
	if s.packed {
		s.write(s.sum.end())
	}
}
