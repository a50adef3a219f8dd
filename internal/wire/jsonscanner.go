package wire

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// jsonScanner is JSON that is read in one pass and without an allocation. Its methods take
// the position of a value and return the position after it. They accept the JSON that
// releases send, and other JSON only if encoding/json certainly reads it in the same way.
// Otherwise they fail: they return a position beyond the end, where all further methods fail,
// too. In that case the caller decodes the whole input with encoding/json.
type jsonScanner []byte

// fail returns the position beyond the end that stands for a failure.
func (s jsonScanner) fail() int { return len(s) + 1 }

// at reports whether the byte at i is c.
func (s jsonScanner) at(i int, c byte) bool { return uint(i) < uint(len(s)) && s[i] == c }

// skipSpace returns the first position from i on that is not white space.
func (s jsonScanner) skipSpace(i int) int {
	const white = 1<<' ' | 1<<'\t' | 1<<'\n' | 1<<'\r'
	for uint(i) < uint(len(s)) && s[i] <= ' ' && 1<<s[i]&white != 0 {
		i++
	}
	return i
}

// atEnd reports whether only white space follows.
func (s jsonScanner) atEnd(i int) bool { return s.skipSpace(i) == len(s) }

// open, nextElement and close iterate over an object or an array whose elements all start
// with the same byte, which is a quote in an object:
//
//	for i = s.open(i, '{'); s.at(i, '"'); i = s.nextElement(i, '"') { … }
//	i = s.close(i, '}')
func (s jsonScanner) open(i int, brace byte) int {
	if !s.at(i, brace) {
		return s.fail()
	}
	return s.skipSpace(i + 1)
}

func (s jsonScanner) nextElement(i int, first byte) int {
	i = s.skipSpace(i)
	comma := s.at(i, ',')
	if comma {
		i = s.skipSpace(i + 1)
	}
	if comma != s.at(i, first) {
		return s.fail()
	}
	return i
}

func (s jsonScanner) close(i int, brace byte) int {
	if !s.at(i, brace) {
		return s.fail()
	}
	return i + 1
}

// str returns the string at i. It fails at escapes and at bytes that are not ASCII.
func (s jsonScanner) str(i int) (text []byte, end int) {
	if !s.at(i, '"') {
		return nil, s.fail()
	}
	start := i + 1
	i = s.skipPlain(start)
	if !s.at(i, '"') {
		return nil, s.fail()
	}
	return s[start:i:i], i + 1
}

// strOnce reads the string at i into text. It fails if text is set already.
func (s jsonScanner) strOnce(i int, text *[]byte) int {
	if *text != nil {
		return s.fail()
	}
	*text, i = s.str(i)
	return i
}

// skipPlain returns the first position from i on of a byte that is special in a string: a
// quote, a backslash, a control character, or a byte that is not ASCII.
func (s jsonScanner) skipPlain(i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(s); i += 8 {
		// Check eight bytes at once. A subtraction sets the high bit of every byte below the
		// subtrahend, and perhaps of later bytes. Only the first one is needed.
		w := binary.LittleEndian.Uint64(s[i:])
		quote, slash := w^'"'*ones, w^'\\'*ones
		if stop := ((quote - ones) | (slash - ones) | (w - ' '*ones) | w) & highs; stop != 0 {
			return i + bits.TrailingZeros64(stop)/8
		}
	}
	for i < len(s) && s[i] >= ' ' && s[i] < 0x80 && s[i] != '"' && s[i] != '\\' {
		i++
	}
	return i
}

// key returns the key at i and the position of its value.
func (s jsonScanner) key(i int) (key []byte, value int) {
	key, i = s.str(i)
	if i = s.skipSpace(i); !s.at(i, ':') {
		return nil, s.fail()
	}
	return key, s.skipSpace(i + 1)
}

// keyList lists the keys of an object with their quotes and colon, in the order in which
// workers write them. Comparing each key with all of them would take most of the time of
// reading a reply, so matchKey compares it with the expected one first.
type keyList []string

// matchKey returns the index in keys of the key at i, or -1 for an unknown key, and the
// position of its value. Expected is the index to try first.
func (s jsonScanner) matchKey(i int, keys keyList, expected int) (which, value int) {
	if uint(expected) < uint(len(keys)) {
		if key := keys[expected]; i+len(key) <= len(s) && string(s[i:i+len(key)]) == key {
			return expected, s.skipSpace(i + len(key))
		}
	}
	key, i := s.key(i)
	for which, k := range keys {
		if len(k) == len(key)+len(`"":`) && k[1:len(k)-2] == string(key) {
			return which, i
		}
	}
	for _, c := range key {
		if c >= 'A' && c <= 'Z' {
			return -1, s.fail() // encoding/json would accept "Worker_ID" for worker_id
		}
	}
	return -1, i
}

// maxSkip is the limit of the nesting of values that are skipped.
const maxSkip = 8

// skipValue skips any value that is not nested deeper than depth.
func (s jsonScanner) skipValue(i, depth int) int {
	if i >= len(s) || depth == 0 {
		return s.fail()
	}
	switch s[i] {
	case '"':
		return s.skipString(i + 1)
	case '{':
		for i = s.open(i, '{'); s.at(i, '"'); i = s.nextElement(i, '"') {
			_, i = s.key(i)
			i = s.skipValue(i, depth-1)
		}
		return s.close(i, '}')
	case '[':
		if i = s.open(i, '['); s.at(i, ']') {
			return i + 1
		}
		for i = s.skipSpace(s.skipValue(i, depth-1)); s.at(i, ','); {
			i = s.skipSpace(s.skipValue(s.skipSpace(i+1), depth-1))
		}
		return s.close(i, ']')
	case 'n':
		return s.literal(i, "null")
	case 't':
		return s.literal(i, "true")
	case 'f':
		return s.literal(i, "false")
	}
	return s.skipNumber(i)
}

// skipString skips the rest of a string, which may be an error message.
func (s jsonScanner) skipString(i int) int {
	for {
		i = s.skipPlain(i)
		switch {
		case s.at(i, '"'):
			return i + 1
		case s.at(i, '\\') && i+1 < len(s) && strings.IndexByte(`"\/bfnrt`, s[i+1]) >= 0:
			i += 2
		case i < len(s) && s[i] >= 0x80:
			i++ // encoding/json accepts bytes that are not UTF-8, too
		default:
			return s.fail()
		}
	}
}

// literal skips exactly this text.
func (s jsonScanner) literal(i int, text string) int {
	if end := i + len(text); end <= len(s) && string(s[i:end]) == text {
		return end
	}
	return s.fail()
}

// skipNumber skips a number.
func (s jsonScanner) skipNumber(i int) int {
	if s.at(i, '-') {
		i++
	}
	if s.at(i, '0') {
		i++ // and no digit may follow
	} else {
		i = s.skipDigits(i)
	}
	if s.at(i, '.') {
		i = s.skipDigits(i + 1)
	}
	if s.at(i, 'e') || s.at(i, 'E') {
		if i++; s.at(i, '+') || s.at(i, '-') {
			i++
		}
		i = s.skipDigits(i)
	}
	return i
}

func (s jsonScanner) skipDigits(i int) int {
	start := i
	for uint(i) < uint(len(s)) && s[i]-'0' <= 9 {
		i++
	}
	if i == start {
		return s.fail()
	}
	return i
}

// uint reads an unsigned integer.
func (s jsonScanner) uint(i int) (n uint64, end int) {
	start := i
	for uint(i) < uint(len(s)) && s[i]-'0' <= 9 {
		n = n*10 + uint64(s[i]-'0')
		i++
	}
	digits := i - start
	overflow := digits > 20 || digits == 20 && (s[start] > '1' || n < 1e19) // 2^64 or more
	if digits == 0 || overflow || digits > 1 && s[start] == '0' {
		return 0, s.fail()
	}
	return n, i
}

// optUint and optFloat read values that a worker may omit or send as null. They fail if o
// is set already: encoding/json decides which of two values counts.
func (s jsonScanner) optUint(i int, o *fleet.Opt[uint64]) int {
	if o.OK {
		return s.fail()
	}
	if s.at(i, 'n') {
		return s.literal(i, "null")
	}
	o.V, i = s.uint(i)
	o.OK = true
	return i
}

func (s jsonScanner) optFloat(i int, o *fleet.Opt[float64]) int {
	if o.OK {
		return s.fail()
	}
	if s.at(i, 'n') {
		return s.literal(i, "null")
	}
	end := s.skipNumber(i)
	if end > len(s) {
		return end
	}
	v, err := strconv.ParseFloat(string(s[i:end]), 64)
	if err != nil {
		return s.fail()
	}
	o.V, o.OK = v, true
	return end
}
