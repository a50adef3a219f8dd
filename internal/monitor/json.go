package monitor

import (
	"encoding/json"
	"math"
	"strconv"

	"dynamo-metrics/internal/fleet"
)

// doc is JSON that is being written. What is absent is left out: it is never 0 or null.
// By hand, since the rows of ten thousand workers are written once a second.
type jsonWriter struct{ b []byte }

// next puts a comma before all values but the first.
func (d *jsonWriter) comma() {
	if n := len(d.b); n > 0 {
		switch d.b[n-1] {
		case '{', '[', ':', ' ':
		default:
			d.b = append(d.b, ',')
		}
	}
}

// open begins an object or a list.
func (d *jsonWriter) open(bracket byte) {
	d.comma()
	d.b = append(d.b, bracket)
}

func (d *jsonWriter) close(bracket byte) { d.b = append(d.b, bracket) }

// field begins a field of an object. Names are of this package, and need no escapes.
func (d *jsonWriter) field(name string) {
	d.comma()
	d.b = append(append(append(d.b, '"'), name...), `":`...)
}

// string is a value, or an element of a list.
func (d *jsonWriter) string(s string) {
	d.comma()
	d.b = appendQuoted(d.b, s)
}

// float is a value, or an element of a list, rounded to so many parts of one. One that
// is not finite is null, in a list, where its place must be kept.
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

// number is a field with a number rounded to so many parts of one.
func (d *jsonWriter) number(name string, v number, parts float64) {
	if v.OK && !math.IsNaN(v.V) && !math.IsInf(v.V, 0) {
		d.field(name)
		d.float(v.V, parts)
	}
}

// fraction has four decimals.
func (d *jsonWriter) fraction(name string, v number) { d.number(name, v, 1e4) }

// bool is a field.
func (d *jsonWriter) bool(name string, v bool) {
	d.field(name)
	d.b = strconv.AppendBool(d.b, v)
}

// appendQuoted is a string as JSON has it. Nearly all are plain.
func appendQuoted(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // of a string: it cannot fail
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
