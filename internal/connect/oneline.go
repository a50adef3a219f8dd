package connect

import "strings"

// oneLine is what a key's value says, fit for an error message.
func OneLine(value []byte) string {
	s := JoinLines(value)
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

func JoinLines(value []byte) string { return strings.Join(strings.Fields(string(value)), " ") }
