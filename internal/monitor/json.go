package monitor

import (
	"encoding/json"
	"math"
	"strconv"

	"dynamo-metrics/internal/fleet"
)

// jsonWriter appends JSON to a buffer. An absent value is left out: it is never 0 or null. It
// does not use encoding/json because the rows of ten thousand workers are written once a second.
type jsonWriter struct{ b []byte }

// comma puts a comma before every value but the first.
func (d *jsonWriter) comma() {
	if n := len(d.b); n > 0 {
		switch d.b[n-1] {
		case '{', '[', ':', ' ':
		default:
			d.b = append(d.b, ',')
		}
	}
}

// open begins an object or an array.
func (d *jsonWriter) open(bracket byte) {
	d.comma()
	d.b = append(d.b, bracket)
}

func (d *jsonWriter) close(bracket byte) { d.b = append(d.b, bracket) }

// field begins a field of an object. Names are constants of this package and need no escapes.
func (d *jsonWriter) field(name string) {
	d.comma()
	d.b = append(append(append(d.b, '"'), name...), `":`...)
}

// string writes a value, or an element of an array.
func (d *jsonWriter) string(s string) {
	d.comma()
	d.b = appendQuoted(d.b, s)
}

// float writes a value, or an element of an array, rounded to 1/parts. A value that is not finite
// becomes null, because an array must keep its place.
func (d *jsonWriter) float(v, parts float64) {
	d.comma()
	if math.IsNaN(v) || math.IsInf(v, 0) {
		d.b = append(d.b, "null"...)
		return
	}
	d.b = strconv.AppendFloat(d.b, math.Round(v*parts)/parts, 'f', -1, 64)
}

func (d *jsonWriter) text(name, s string) {
	if s != "" {
		d.field(name)
		d.string(s)
	}
}

func (d *jsonWriter) int(name string, n int64) {
	d.field(name)
	d.b = strconv.AppendInt(d.b, n, 10)
}

func (d *jsonWriter) uint(name string, n fleet.Opt[uint64]) {
	if n.OK {
		d.field(name)
		d.b = strconv.AppendUint(d.b, n.V, 10)
	}
}

// number writes a field with a number rounded to 1/parts.
func (d *jsonWriter) number(name string, v number, parts float64) {
	if v.OK && !math.IsNaN(v.V) && !math.IsInf(v.V, 0) {
		d.field(name)
		d.float(v.V, parts)
	}
}

// fraction writes a field with four decimals.
func (d *jsonWriter) fraction(name string, v number) { d.number(name, v, 1e4) }

// bool writes a field.
func (d *jsonWriter) bool(name string, v bool) {
	d.field(name)
	d.b = strconv.AppendBool(d.b, v)
}

// appendQuoted appends a JSON string. Nearly all strings are plain ASCII.
func appendQuoted(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string cannot fail
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
