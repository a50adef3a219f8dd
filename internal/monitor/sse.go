package monitor

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"math"
	"sync"
)

// event is a cut as it is sent, made once for all who ask, however many they are.
type snapshotEvent struct {
	sample       uint64
	historyTotal int // samples of history when it was made
	frame        []byte

	compressOnce [2]sync.Once
	compressed   [2][]byte // the frame, and the JSON in it, compressed
}

const framePrefix, frameSuffix = "data: ", "\n\n"

// noHistory is what has seen all samples that there will ever be.
const noHistory = math.MaxInt

// newest is the last cut, with the history unless who asks has seen as many samples,
// and what is closed when there is another.
func (g *Monitor) latestEvent(seen int) (*snapshotEvent, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refresh()
	history := ifElse(seen >= g.historyClock.total, 0, 1)
	if g.cachedEvents[history] == nil {
		// The last one's length is about this one's.
		d := jsonWriter{b: append(make([]byte, 0, g.eventSize[history]), framePrefix...)}
		g.writeSnapshot(&d, history == 1)
		d.b = append(d.b, frameSuffix...)
		g.eventSize[history] = len(d.b) + len(d.b)/16
		g.cachedEvents[history] = &snapshotEvent{sample: g.sampleCount, historyTotal: g.historyClock.total, frame: d.b}
	}
	return g.cachedEvents[history], g.updated
}

// json is the snapshot alone.
func (e *snapshotEvent) json() []byte {
	return e.frame[len(framePrefix) : len(e.frame)-len(frameSuffix)]
}

func (e *snapshotEvent) compressedFrame() []byte { return e.compress(0, e.frame) }
func (e *snapshotEvent) compressedJSON() []byte  { return e.compress(1, e.json()) }

func (e *snapshotEvent) compress(which int, plain []byte) []byte {
	e.compressOnce[which].Do(func() { e.compressed[which] = deflateChunk(plain) })
	return e.compressed[which]
}

// A gzip stream of ours is a header, pieces that were compressed each for itself, and
// an end with the checksum of them all: so a piece can be part of every client's stream.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

// gzipSum is what the end of a gzip stream says of it.
type gzipTrailer struct {
	crc  uint32
	size uint32
}

func (s *gzipTrailer) update(plain []byte) {
	s.crc = crc32.Update(s.crc, crc32.IEEETable, plain)
	s.size += uint32(len(plain))
}

// end is an empty last block, and the sum.
func (s *gzipTrailer) bytes() []byte {
	b := []byte{1, 0, 0, 0xff, 0xff}
	b = binary.LittleEndian.AppendUint32(b, s.crc)
	return binary.LittleEndian.AppendUint32(b, s.size)
}

var flateWriters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // the level is valid
	return w
}}

// deflated is a piece of a stream: it refers to nothing before it, ends at a byte, and
// is not the last.
func deflateChunk(plain []byte) []byte {
	w := flateWriters.Get().(*flate.Writer)
	defer flateWriters.Put(w)
	var b bytes.Buffer
	w.Reset(&b)
	_, _ = w.Write(plain) // a buffer takes all
	_ = w.Flush()
	return b.Bytes()
}

// gzipped is a whole gzip stream of one piece.
func gzipStream(plain, piece []byte) []byte {
	var sum gzipTrailer
	sum.update(plain)
	return append(append(bytes.Clone(gzipHeader), piece...), sum.bytes()...)
}
