package dynlog

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The styles are tracing-subscriber's.
const (
	dim    = "2"
	italic = "3"
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "34"
	purple = "35"
)

// levelName returns the level padded to five columns, and its colour. Levels between slog's own
// count as the next lower one, as they do in the filter.
func levelName(l slog.Level) (name, style string) {
	switch {
	case l >= slog.LevelError:
		return "ERROR", red
	case l >= slog.LevelWarn:
		return " WARN", yellow
	case l >= slog.LevelInfo:
		return " INFO", green
	case l >= slog.LevelDebug:
		return "DEBUG", blue
	}
	return "TRACE", purple
}

// appendLine appends the record in the original's form, without the newline.
func (h *handler) appendLine(b []byte, r slog.Record) []byte {
	if !r.Time.IsZero() {
		b = h.paint(b, dim, string(h.appendTime(nil, r.Time)))
		b = append(b, ' ')
	}
	name, style := levelName(r.Level)
	b = h.paint(b, style, name)
	b = append(b, ' ')
	b = h.paint(b, dim, escape(h.target))
	b = h.paint(b, dim, ":")
	if r.Message != "" {
		b = append(b, ' ')
		b = append(b, escape(r.Message)...)
	}
	return h.appendFields(b, r)
}

func (h *handler) appendField(b []byte, key string, v slog.Value) []byte {
	b = append(b, ' ')
	b = h.paint(b, italic, quoteIfNeeded(key))
	b = h.paint(b, dim, "=")
	return append(b, quoteIfNeeded(h.text(v))...)
}

func (h *handler) paint(b []byte, style, s string) []byte {
	if !h.color {
		return append(b, s...)
	}
	b = append(b, "\x1b["+style+"m"...)
	b = append(b, s...)
	return append(b, "\x1b[0m"...)
}

// text returns the value as text. The fmt verbs also handle an Error or String method that
// panics, and nil pointers with such methods.
func (h *handler) text(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return string(h.appendTime(nil, v.Time()))
	case slog.KindAny:
		if b, ok := v.Any().([]byte); ok {
			return string(b)
		}
		return fmt.Sprintf("%+v", v.Any())
	}
	return v.String()
}

// quoteIfNeeded quotes s if it would be unclear without quotes where s ends.
func quoteIfNeeded(s string) string {
	if s == "" || strings.ContainsAny(s, ` "`) || strings.ContainsFunc(s, unprintable) || !utf8.ValidString(s) {
		return strconv.Quote(s)
	}
	return s
}

// escape escapes the characters that could break the line or control a terminal, as Go does in a
// string. The original escapes control sequences in messages, too, but not newlines.
func escape(s string) string {
	if !strings.ContainsFunc(s, unprintable) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unprintable(r):
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unprintable reports whether r is not printable: control characters, line and paragraph
// separators, and bidirectional marks.
func unprintable(r rune) bool {
	return !strconv.IsPrint(r)
}
