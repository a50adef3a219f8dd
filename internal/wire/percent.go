package wire

import (
	"strings"
)

// escape percent-encodes every byte of s but letters, digits and the bytes in keep.
func escape(s, keep string) string {
	plain := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(keep, c) >= 0
	}
	n := 0
	for i := range len(s) {
		if !plain(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// unescape is the inverse of escape for any keep. It reports false if a percent sign is not
// followed by two digits as escape writes them.
func unescape(s string) (string, bool) {
	percent := strings.IndexByte(s, '%')
	if percent < 0 {
		return s, true
	}
	b := append(make([]byte, 0, len(s)), s[:percent]...)
	for i := percent; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		high, okHigh := hexDigit(s[i+1])
		low, okLow := hexDigit(s[i+2])
		if !okHigh || !okLow {
			return "", false
		}
		b = append(b, high<<4|low)
		i += 2
	}
	return string(b), true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
