package dynlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
)

// appendObject appends the record as one JSON object, without the newline.
func (h *handler) appendObject(b []byte, r slog.Record) []byte {
	b = append(b, '{')
	if !r.Time.IsZero() {
		b = append(b, `"time":"`...)
		b = append(h.appendTime(b, r.Time), `",`...)
	}
	name, _ := levelName(r.Level)
	b = append(b, `"level":"`+strings.TrimLeft(name, " ")+`","target":`...)
	b = appendJSON(b, h.target)
	b = append(b, `,"message":`...)
	b = appendJSON(b, r.Message)
	b = h.appendFields(b, r)
	return append(b, '}')
}

// appendMember appends a comma, the key and the value.
func (h *handler) appendMember(b []byte, key string, v slog.Value) []byte {
	switch key {
	case "time", "level", "target", "message":
		// Most JSON parsers keep the last of two equal keys, so that a field could replace a key
		// of the record itself.
		key = "fields." + key
	}
	b = append(b, ',')
	b = appendJSON(b, key)
	b = append(b, ':')
	if isJSONLiteral(v) {
		return append(b, v.String()...)
	}
	if v.Kind() == slog.KindAny && !prefersText(v.Any()) {
		return appendJSON(b, v.Any())
	}
	return appendJSON(b, h.text(v))
}

// isJSONLiteral reports whether the value's String method returns a JSON literal.
func isJSONLiteral(v slog.Value) bool {
	switch v.Kind() {
	case slog.KindBool, slog.KindInt64, slog.KindUint64:
		return true
	case slog.KindFloat64:
		return !math.IsNaN(v.Float64()) && !math.IsInf(v.Float64(), 0)
	}
	return false
}

// prefersText reports whether the text of v is more useful than its JSON: encoding/json writes
// most errors as "{}", and bytes as base64.
func prefersText(v any) bool {
	switch v.(type) {
	case error, []byte:
		return true
	}
	return false
}

// appendJSON appends v as JSON, or its text if encoding/json fails on it, for example on a
// channel or a nested NaN.
func appendJSON(b []byte, v any) []byte {
	encoded, err := encode(v)
	if err != nil {
		encoded, _ = encode(fmt.Sprintf("%+v", v)) // a string cannot fail
	}
	return append(b, encoded...)
}

// encode returns the panic of a MarshalJSON method as an error, because a log line must not end
// the program.
func encode(v any) (encoded []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	err = e.Encode(v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}
