package glance

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"math"
	"sync"
)

// event is a cut as it is sent, made once for all who ask, however many they are.
type event struct {
	look  uint64
	taken int // samples of history when it was made
	frame []byte

	once   [2]sync.Once
	packed [2][]byte // the frame, and the JSON in it, compressed
}

const before, after = "data: ", "\n\n"

// noHistory is what has seen all samples that there will ever be.
const noHistory = math.MaxInt

// newest is the last cut, with the history unless who asks has seen as many samples,
// and what is closed when there is another.
func (g *Glance) newest(seen int) (*event, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refresh()
	history := either(seen >= g.clock.taken, 0, 1)
	if g.event[history] == nil {
		// The last one's length is about this one's.
		d := doc{b: append(make([]byte, 0, g.length[history]), before...)}
		g.writeSnapshot(&d, history == 1)
		d.b = append(d.b, after...)
		g.length[history] = len(d.b) + len(d.b)/16
		g.event[history] = &event{look: g.looks, taken: g.clock.taken, frame: d.b}
	}
	return g.event[history], g.news
}

// json is the snapshot alone.
func (e *event) json() []byte { return e.frame[len(before) : len(e.frame)-len(after)] }

func (e *event) packedFrame() []byte { return e.pack(0, e.frame) }
func (e *event) packedJSON() []byte  { return e.pack(1, e.json()) }

func (e *event) pack(which int, plain []byte) []byte {
	e.once[which].Do(func() { e.packed[which] = deflated(plain) })
	return e.packed[which]
}

// A gzip stream of ours is a header, pieces that were compressed each for itself, and
// an end with the checksum of them all: so a piece can be part of every client's stream.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

// gzipSum is what the end of a gzip stream says of it.
type gzipSum struct {
	crc  uint32
	size uint32
}

func (s *gzipSum) add(plain []byte) {
	s.crc = crc32.Update(s.crc, crc32.IEEETable, plain)
	s.size += uint32(len(plain))
}

// end is an empty last block, and the sum.
func (s *gzipSum) end() []byte {
	b := []byte{1, 0, 0, 0xff, 0xff}
	b = binary.LittleEndian.AppendUint32(b, s.crc)
	return binary.LittleEndian.AppendUint32(b, s.size)
}

var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // the level is valid
	return w
}}

// deflated is a piece of a stream: it refers to nothing before it, ends at a byte, and
// is not the last.
func deflated(plain []byte) []byte {
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	var b bytes.Buffer
	w.Reset(&b)
	_, _ = w.Write(plain) // a buffer takes all
	_ = w.Flush()
	return b.Bytes()
}

// gzipped is a whole gzip stream of one piece.
func gzipped(plain, piece []byte) []byte {
	var sum gzipSum
	sum.add(plain)
	return append(append(bytes.Clone(gzipHeader), piece...), sum.end()...)
}
