package wire

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// HexID is how Dynamo writes a lease or instance id in subjects and keys:
// lower-case hexadecimal, not padded.
func HexID(id uint64) string { return strconv.FormatUint(id, 16) }

// lowerHex has the value of every digit that HexID writes, with the fifth bit set.
var lowerHex = [256]uint8{
	'0': 0x10, '1': 0x11, '2': 0x12, '3': 0x13, '4': 0x14, '5': 0x15, '6': 0x16, '7': 0x17,
	'8': 0x18, '9': 0x19, 'a': 0x1a, 'b': 0x1b, 'c': 0x1c, 'd': 0x1d, 'e': 0x1e, 'f': 0x1f,
}

// parseHexID is the inverse of HexID; it refuses what HexID would not have written.
// No branch hangs on a digit: they are random, and those of a fleet come by the thousand.
func parseHexID[S string | []byte](s S) (id uint64, ok bool) {
	if len(s) == 0 || len(s) > 16 || s[0] == '0' {
		return 0, false
	}
	all := uint8(0x10)
	for i := range len(s) {
		digit := lowerHex[s[i]]
		all &= digit
		id = id<<4 | uint64(digit&15)
	}
	return id, all != 0
}

// parseKeyID reads the id at the end of a key of the registry. Dynamo takes the id of the
// value, however the key writes it: padded and in capitals it is the same one.
func parseKeyID(s string) (id uint64, ok bool) {
	return parseHexID(strings.ToLower(strings.TrimLeft(s, "0")))
}

// valueID is the id in a value of the registry, as it is written there. Beyond 2^53 it may be
// rounded: decoders of Kubernetes hold a number inside a resource as a float64 where it does
// not fit into an int64, and write it back so (seen with 0.8.0 and 1.3.1).
type valueID string

func (v *valueID) UnmarshalJSON(b []byte) error {
	if !bytes.Equal(b, []byte("null")) && (len(b) == 0 || b[0] < '0' || b[0] > '9') {
		return fmt.Errorf("an id that is no number from 0 on: %.40q", b)
	}
	*v = valueID(b)
	return nil
}

// is reports whether the value says this id, which its key names: exactly, or as what rounding
// has left of it. The key is never rounded.
func (v valueID) matches(id uint64) bool {
	text := string(v)
	if text == strconv.FormatUint(id, 10) {
		return true
	}
	near := float64(id)
	if f, err := strconv.ParseFloat(text, 64); err != nil || f != near || id <= 1<<53 {
		return false
	}
	return strings.ContainsAny(text, ".eE") || text == strconv.FormatFloat(near, 'f', -1, 64) || text == strconv.FormatFloat(near, 'f', 0, 64)
}
