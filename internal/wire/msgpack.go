package wire

import (
	"errors"

	"dynamo-metrics/internal/fleet"

	"github.com/tinylib/msgp/msgp"
)

// Limits on msgpack from the network: Dynamo's largest map has seven fields, and
// what is skipped unread nests no deeper than a KV event.
const (
	maxFields = 256
	maxDepth  = 32
)

var (
	errMsgpackFields  = errors.New("too many fields")
	errMsgpackDepth   = errors.New("nested too deep")
	errMsgpackEnd     = errors.New("bytes behind its end")
	errMsgpackMissing = errors.New("a field is missing")
	errMsgpackRange   = errors.New("a value is out of range")
)

// unpack reads msgpack in order, without allocating. Its first error stays and
// everything read after it is zero, so a decoder asks only once, in done.
type msgpackReader struct {
	b   []byte
	err error
}

// read takes the next value off u with one of msgp's helpers.
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

// fields is how many fields the map has that comes next.
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

// count is a whole number, at most limit.
func (u *msgpackReader) boundedUint(limit uint64) uint64 {
	n := u.uint()
	if n > limit {
		u.fail(errMsgpackRange)
		return 0
	}
	return n
}

// isNil takes a nil, if that comes next.
func (u *msgpackReader) skipNil() bool {
	if u.err != nil || !msgp.IsNil(u.b) {
		return false
	}
	u.b = u.b[1:]
	return true
}

// optUint is a whole number, absent where it is nil.
func (u *msgpackReader) optUint() fleet.Opt[uint64] {
	if u.skipNil() {
		return fleet.Opt[uint64]{}
	}
	n := u.uint()
	return fleet.Opt[uint64]{V: n, OK: u.err == nil}
}

// rank is a data parallel rank; nil is that of a worker that has only one.
func (u *msgpackReader) rank() uint32 {
	if u.skipNil() {
		return 0
	}
	return read(u, msgp.ReadUint32Bytes)
}

// float is a number; Python writes one that is whole as it likes.
func (u *msgpackReader) float() float64 {
	if t := msgp.NextType(u.b); t == msgp.UintType || t == msgp.IntType {
		return float64(read(u, msgp.ReadInt64Bytes))
	}
	return read(u, msgp.ReadFloat64Bytes)
}

// skip passes over the next value, whatever it is.
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

// fail notes an error, unless there was one before.
func (u *msgpackReader) fail(err error) {
	if u.err == nil {
		u.err = err
	}
}

// require fails unless every field was there: got has a bit for each that was.
func (u *msgpackReader) require(got, want uint) {
	if got&want != want {
		u.fail(errMsgpackMissing)
	}
}

// done is what was wrong with the message, nil if it was read to its end.
func (u *msgpackReader) finish() error {
	if u.err == nil && len(u.b) > 0 {
		return errMsgpackEnd
	}
	return u.err
}
