package wire

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"strings"

	"dynamo-metrics/internal/fleet"
)

// scan is JSON that is read in one pass, without an allocation: its methods take the
// position of what they read and give that behind it. They take what releases send,
// and of other JSON only what encoding/json reads in the same way beyond doubt. At
// anything else the scan is lost: the position is then behind the end, where nothing
// is found any more, and the whole is for encoding/json to read, or to refuse.
type jsonScanner []byte

func (s jsonScanner) fail() int { return len(s) + 1 }

func (s jsonScanner) at(i int, c byte) bool { return uint(i) < uint(len(s)) && s[i] == c }

// space is the first position from i on that is no white space.
func (s jsonScanner) skipSpace(i int) int {
	const white = 1<<' ' | 1<<'\t' | 1<<'\n' | 1<<'\r'
	for uint(i) < uint(len(s)) && s[i] <= ' ' && 1<<s[i]&white != 0 {
		i++
	}
	return i
}

// done reports whether nothing but white space is left.
func (s jsonScanner) atEnd(i int) bool { return s.skipSpace(i) == len(s) }

// open, next and shut walk over an object or an array whose elements all start with
// the same byte, a quote in an object:
//
//	for i = s.open(i, '{'); s.at(i, '"'); i = s.next(i, '"') { … }
//	i = s.shut(i, '}')
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

// text is the string at i. It has neither escapes nor anything that is not ASCII.
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

// textOnce is the string at i, which was not there before.
func (s jsonScanner) strOnce(i int, text *[]byte) int {
	if *text != nil {
		return s.fail()
	}
	*text, i = s.str(i)
	return i
}

// plain is the first position from i on of a byte that is not simply part of a string.
func (s jsonScanner) skipPlain(i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(s); i += 8 {
		// Eight bytes at once. A subtraction sets the high bit of a byte below the
		// subtrahend, and perhaps of bytes after the first such; the first is asked for.
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

// key is the key at i, and where its value starts.
func (s jsonScanner) key(i int) (key []byte, value int) {
	key, i = s.str(i)
	if i = s.skipSpace(i); !s.at(i, ':') {
		return nil, s.fail()
	}
	return key, s.skipSpace(i + 1)
}

// keys are those of an object, as they are written up to the value, in the order in which
// workers write them: most of the time that a reply takes goes into finding out which key
// comes, unless the right one is expected.
type keyList []string

// member is which of the keys is at i, and where its value starts: the one that is
// expected, or else any of them, or -1 for another.
func (s jsonScanner) matchKey(i int, of keyList, expected int) (which, value int) {
	if uint(expected) < uint(len(of)) {
		if key := of[expected]; i+len(key) <= len(s) && string(s[i:i+len(key)]) == key {
			return expected, s.skipSpace(i + len(key))
		}
	}
	key, i := s.key(i)
	for which, k := range of {
		if len(k) == len(key)+len(`"":`) && k[1:len(k)-2] == string(key) {
			return which, i
		}
	}
	for _, c := range key {
		if c >= 'A' && c <= 'Z' {
			return -1, s.fail() // encoding/json would take "Worker_ID" for worker_id
		}
	}
	return -1, i
}

// maxSkip is how deep what is passed over may be nested.
const maxSkip = 8

// skip passes over any value whose nesting is not deeper than depth.
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

// skipText passes over the rest of a string, which may be what an error said.
func (s jsonScanner) skipString(i int) int {
	for {
		i = s.skipPlain(i)
		switch {
		case s.at(i, '"'):
			return i + 1
		case s.at(i, '\\') && i+1 < len(s) && strings.IndexByte(`"\/bfnrt`, s[i+1]) >= 0:
			i += 2
		case i < len(s) && s[i] >= 0x80:
			i++ // encoding/json too passes over bytes that are not even UTF-8
		default:
			return s.fail()
		}
	}
}

func (s jsonScanner) literal(i int, word string) int {
	if end := i + len(word); end <= len(s) && string(s[i:end]) == word {
		return end
	}
	return s.fail()
}

// number passes over a number.
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

// uint reads a whole number.
func (s jsonScanner) uint(i int) (n uint64, end int) {
	start := i
	for uint(i) < uint(len(s)) && s[i]-'0' <= 9 {
		n = n*10 + uint64(s[i]-'0')
		i++
	}
	digits := i - start
	wrapped := digits > 20 || digits == 20 && (s[start] > '1' || n < 1e19) // at 2^64
	if digits == 0 || wrapped || digits > 1 && s[start] == '0' {
		return 0, s.fail()
	}
	return n, i
}

// count and fraction read what a worker may leave out, or send as null. A value that
// was read before is not overwritten: which of two counts is for encoding/json to say.
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
