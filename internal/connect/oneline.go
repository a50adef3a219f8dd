package connect

import "strings"

// OneLine returns a value on one line, short enough for an error message.
func OneLine(value []byte) string {
	s := JoinLines(value)
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// JoinLines returns a value on one line, with single spaces between its words.
func JoinLines(value []byte) string { return strings.Join(strings.Fields(string(value)), " ") }
