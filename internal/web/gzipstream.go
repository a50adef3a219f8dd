package web

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"sync"
)

// gzipHeader begins a gzip stream. Independently compressed chunks follow it, and then a trailer
// with the checksum of all chunks. So one chunk can be part of every client's stream.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

// gzipTrailer holds the checksum and the size that end a gzip stream.
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

// bytes returns an empty final block and the trailer.
func (s *gzipTrailer) bytes() []byte {
	b := []byte{1, 0, 0, 0xff, 0xff}
	b = binary.LittleEndian.AppendUint32(b, s.crc)
	return binary.LittleEndian.AppendUint32(b, s.size)
}

var flateWriters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // the level is valid
	return w
}}

// deflateChunk compresses a chunk of a stream. The chunk refers to no earlier data, ends on a
// byte boundary, and is not the final block.
func deflateChunk(plain ...[]byte) []byte {
	w := flateWriters.Get().(*flate.Writer)
	defer flateWriters.Put(w)
	var b bytes.Buffer
	w.Reset(&b)
	for _, p := range plain {
		_, _ = w.Write(p) // a buffer never fails
	}
	_ = w.Flush()
	return b.Bytes()
}

// gzipStream returns a complete gzip stream of one chunk, which is plain compressed.
func gzipStream(plain, chunk []byte) []byte {
	var sum gzipTrailer
	sum.update(plain)
	return append(append(bytes.Clone(gzipHeader), chunk...), sum.bytes()...)
}
