package wire

import (
	"errors"

	"dynamo-metrics/internal/fleet"

	"github.com/tinylib/msgp/msgp"
)

// Limits of msgpack from the network. Dynamo's largest map has seven fields. Of the values
// that are skipped, KV events are nested deepest.
const (
	maxFields = 256
	maxDepth  = 32
)

var (
	errMsgpackFields  = errors.New("too many fields")
	errMsgpackDepth   = errors.New("nested too deep")
	errMsgpackEnd     = errors.New("bytes after its end")
	errMsgpackMissing = errors.New("a field is missing")
	errMsgpackRange   = errors.New("a value is out of range")
)

// msgpackReader reads msgpack values in order, without allocating. It keeps its first
// error, and all values read after an error are zero. So a decoder needs to check for an
// error only once, with finish.
type msgpackReader struct {
	b   []byte
	err error
}

// read reads the next value of m with one of msgp's functions.
func read[T any](m *msgpackReader, from func([]byte) (T, []byte, error)) (v T) {
	if m.err != nil {
		return v
	}
	got, rest, err := from(m.b)
	if err != nil {
		m.err = err
		return v
	}
	m.b = rest
	return got
}

// mapLen reads the header of a map, and returns how many fields follow.
func (m *msgpackReader) mapLen() uint32 {
	n := read(m, msgp.ReadMapHeaderBytes)
	if n > maxFields {
		m.fail(errMsgpackFields)
		return 0
	}
	return n
}

func (m *msgpackReader) key() []byte  { return read(m, msgp.ReadMapKeyZC) }
func (m *msgpackReader) str() []byte  { return read(m, msgp.ReadStringZC) }
func (m *msgpackReader) bin() []byte  { return read(m, msgp.ReadBytesZC) }
func (m *msgpackReader) uint() uint64 { return read(m, msgp.ReadUint64Bytes) }

// boundedUint reads an unsigned integer, and fails if it is above limit.
func (m *msgpackReader) boundedUint(limit uint64) uint64 {
	n := m.uint()
	if n > limit {
		m.fail(errMsgpackRange)
		return 0
	}
	return n
}

// skipNil reports whether the next value is nil, and skips it if so.
func (m *msgpackReader) skipNil() bool {
	if m.err != nil || !msgp.IsNil(m.b) {
		return false
	}
	m.b = m.b[1:]
	return true
}

// optUint reads an unsigned integer. The result is absent if the value is nil.
func (m *msgpackReader) optUint() fleet.Opt[uint64] {
	if m.skipNil() {
		return fleet.Opt[uint64]{}
	}
	n := m.uint()
	return fleet.Opt[uint64]{V: n, OK: m.err == nil}
}

// rank reads a data parallel rank. Workers with one rank only may send nil.
func (m *msgpackReader) rank() uint32 {
	if m.skipNil() {
		return 0
	}
	return read(m, msgp.ReadUint32Bytes)
}

// float reads a number. Python may write a whole number as an integer.
func (m *msgpackReader) float() float64 {
	if t := msgp.NextType(m.b); t == msgp.UintType || t == msgp.IntType {
		return float64(read(m, msgp.ReadInt64Bytes))
	}
	return read(m, msgp.ReadFloat64Bytes)
}

// skipValue skips the next value, of any type.
func (m *msgpackReader) skipValue() { m.skipNested(maxDepth) }

func (m *msgpackReader) skipNested(depth int) {
	if m.err != nil {
		return
	}
	var values uint64
	switch msgp.NextType(m.b) {
	case msgp.MapType:
		values = 2 * uint64(read(m, msgp.ReadMapHeaderBytes))
	case msgp.ArrayType:
		values = uint64(read(m, msgp.ReadArrayHeaderBytes))
	default:
		rest, err := msgp.Skip(m.b)
		m.b, m.err = rest, err
		return
	}
	if depth == 0 {
		m.fail(errMsgpackDepth)
	}
	for ; values > 0 && m.err == nil; values-- {
		m.skipNested(depth - 1)
	}
}

// fail sets the error, unless there was one before.
func (m *msgpackReader) fail(err error) {
	if m.err == nil {
		m.err = err
	}
}

// require fails unless got has every bit of want. The bits stand for fields of a map.
func (m *msgpackReader) require(got, want uint) {
	if got&want != want {
		m.fail(errMsgpackMissing)
	}
}

// finish returns the first error, or an error if bytes are left.
func (m *msgpackReader) finish() error {
	if m.err == nil && len(m.b) > 0 {
		return errMsgpackEnd
	}
	return m.err
}
