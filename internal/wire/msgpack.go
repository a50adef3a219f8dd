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

// read reads the next value of u with one of msgp's functions.
func read[T any](u *msgpackReader, from func([]byte) (T, []byte, error)) (v T) {
	if u.err != nil {
		return v
	}
	got, rest, err := from(u.b)
	if err != nil {
		u.err = err
		return v
	}
	u.b = rest
	return got
}

// mapLen reads the header of a map, and returns how many fields follow.
func (u *msgpackReader) mapLen() uint32 {
	n := read(u, msgp.ReadMapHeaderBytes)
	if n > maxFields {
		u.fail(errMsgpackFields)
		return 0
	}
	return n
}

func (u *msgpackReader) key() []byte  { return read(u, msgp.ReadMapKeyZC) }
func (u *msgpackReader) str() []byte  { return read(u, msgp.ReadStringZC) }
func (u *msgpackReader) bin() []byte  { return read(u, msgp.ReadBytesZC) }
func (u *msgpackReader) uint() uint64 { return read(u, msgp.ReadUint64Bytes) }

// boundedUint reads an unsigned integer, and fails if it is above limit.
func (u *msgpackReader) boundedUint(limit uint64) uint64 {
	n := u.uint()
	if n > limit {
		u.fail(errMsgpackRange)
		return 0
	}
	return n
}

// skipNil reports whether the next value is nil, and skips it if so.
func (u *msgpackReader) skipNil() bool {
	if u.err != nil || !msgp.IsNil(u.b) {
		return false
	}
	u.b = u.b[1:]
	return true
}

// optUint reads an unsigned integer. The result is absent if the value is nil.
func (u *msgpackReader) optUint() fleet.Opt[uint64] {
	if u.skipNil() {
		return fleet.Opt[uint64]{}
	}
	n := u.uint()
	return fleet.Opt[uint64]{V: n, OK: u.err == nil}
}

// rank reads a data parallel rank. Workers with one rank only may send nil.
func (u *msgpackReader) rank() uint32 {
	if u.skipNil() {
		return 0
	}
	return read(u, msgp.ReadUint32Bytes)
}

// float reads a number. Python may write a whole number as an integer.
func (u *msgpackReader) float() float64 {
	if t := msgp.NextType(u.b); t == msgp.UintType || t == msgp.IntType {
		return float64(read(u, msgp.ReadInt64Bytes))
	}
	return read(u, msgp.ReadFloat64Bytes)
}

// skipValue skips the next value, of any type.
func (u *msgpackReader) skipValue() { u.skipNested(maxDepth) }

func (u *msgpackReader) skipNested(depth int) {
	if u.err != nil {
		return
	}
	var values uint64
	switch msgp.NextType(u.b) {
	case msgp.MapType:
		values = 2 * uint64(read(u, msgp.ReadMapHeaderBytes))
	case msgp.ArrayType:
		values = uint64(read(u, msgp.ReadArrayHeaderBytes))
	default:
		rest, err := msgp.Skip(u.b)
		u.b, u.err = rest, err
		return
	}
	if depth == 0 {
		u.fail(errMsgpackDepth)
	}
	for ; values > 0 && u.err == nil; values-- {
		u.skipNested(depth - 1)
	}
}

// fail sets the error, unless there was one before.
func (u *msgpackReader) fail(err error) {
	if u.err == nil {
		u.err = err
	}
}

// require fails unless got has every bit of want. The bits stand for fields of a map.
func (u *msgpackReader) require(got, want uint) {
	if got&want != want {
		u.fail(errMsgpackMissing)
	}
}

// finish returns the first error, or an error if bytes are left.
func (u *msgpackReader) finish() error {
	if u.err == nil && len(u.b) > 0 {
		return errMsgpackEnd
	}
	return u.err
}
