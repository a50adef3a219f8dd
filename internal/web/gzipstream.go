package web

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"sync"
)

// A gzip stream of ours is a header, pieces that were compressed each for itself, and
// an end with the checksum of them all: so a piece can be part of every client's stream.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

// gzipSum is what the end of a gzip stream says of it.
type gzipTrailer struct {
	crc  uint32
	size uint32
}

func (s *gzipTrailer) update(plain ...[]byte) {
	for _, p := range plain {
		s.crc = crc32.Update(s.crc, crc32.IEEETable, p)
		s.size += uint32(len(p))
	}
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
func deflateChunk(plain ...[]byte) []byte {
	w := flateWriters.Get().(*flate.Writer)
	defer flateWriters.Put(w)
	var b bytes.Buffer
	w.Reset(&b)
	for _, p := range plain {
		_, _ = w.Write(p) // a buffer takes all
	}
	_ = w.Flush()
	return b.Bytes()
}

// gzipped is a whole gzip stream of one piece.
func gzipStream(plain, piece []byte) []byte {
	var sum gzipTrailer
	sum.update(plain)
	return append(append(bytes.Clone(gzipHeader), piece...), sum.bytes()...)
}
