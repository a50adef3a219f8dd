package wire

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// HexID returns a lease or instance id as Dynamo writes it in subjects and keys: in
// lower-case hexadecimal without padding.
func HexID(id uint64) string { return strconv.FormatUint(id, 16) }

// lowerHex has the value of every digit that HexID writes, with the fifth bit set.
var lowerHex = [256]uint8{
	'0': 0x10, '1': 0x11, '2': 0x12, '3': 0x13, '4': 0x14, '5': 0x15, '6': 0x16, '7': 0x17,
	'8': 0x18, '9': 0x19, 'a': 0x1a, 'b': 0x1b, 'c': 0x1c, 'd': 0x1d, 'e': 0x1e, 'f': 0x1f,
}

// parseHexID is the inverse of HexID. It rejects text that HexID would not have written.
// No branch depends on a digit: digits are random, and a poll of a large fleet parses
// thousands of ids.
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

// parseKeyID parses the id at the end of a key of the registry. Dynamo itself reads the id
// from the value, so keys may write it padded or in capitals.
func parseKeyID(s string) (id uint64, ok bool) {
	return parseHexID(strings.ToLower(strings.TrimLeft(s, "0")))
}

// valueID is the text of the id in a value of the registry. An id above 2^53 may be
// rounded: Kubernetes' decoders hold a number that does not fit into an int64 as a float64,
// and write that back (seen with 0.8.0 and 1.3.1).
type valueID string

func (v *valueID) UnmarshalJSON(b []byte) error {
	if !bytes.Equal(b, []byte("null")) && (len(b) == 0 || b[0] < '0' || b[0] > '9') {
		return fmt.Errorf("an id that is not a number of 0 or more: %.40q", b)
	}
	*v = valueID(b)
	return nil
}

// matches reports whether the value has the id that its key names, either exactly or
// rounded to a float64. The id in a key is never rounded.
func (v valueID) matches(id uint64) bool {
	text := string(v)
	if text == strconv.FormatUint(id, 10) {
		return true
	}
	rounded := float64(id)
	if f, err := strconv.ParseFloat(text, 64); err != nil || f != rounded || id <= 1<<53 {
		return false
	}
	return strings.ContainsAny(text, ".eE") || text == strconv.FormatFloat(rounded, 'f', -1, 64) || text == strconv.FormatFloat(rounded, 'f', 0, 64)
}
