package dynlog

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/slogtest"
)

func TestSlogRulesJSONL(t *testing.T) {
	testSlogRules(t, func(t *testing.T, line string) map[string]any {
		var flat map[string]any
		if err := json.Unmarshal([]byte(line), &flat); err != nil {
			t.Fatal(err)
		}
		return flat
	}, "DYN_LOGGING_JSONL", "1")
}

// The messages of slogtest are single words, so the line can be parsed again.
var (
	lineForm  = regexp.MustCompile(`^(?:(\S+Z) )?([A-Z ]{5}) metrics: (\w+)((?: \S+=(?:"(?:[^"\\]|\\.)*"|\S+))*)$`)
	fieldForm = regexp.MustCompile(` (\S+)=("(?:[^"\\]|\\.)*"|\S+)`)
)

func TestSlogRulesLine(t *testing.T) {
	testSlogRules(t, func(t *testing.T, line string) map[string]any {
		m := lineForm.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("got %q, want a line", line)
		}
		flat := map[string]any{"level": m[2], "message": m[3]}
		if m[1] != "" {
			flat["time"] = m[1]
		}
		for _, field := range fieldForm.FindAllStringSubmatch(m[4], -1) {
			flat[field[1]] = field[2]
			if s, err := strconv.Unquote(field[2]); err == nil {
				flat[field[1]] = s
			}
		}
		return flat
	})
}

func testSlogRules(t *testing.T, parse func(t *testing.T, line string) map[string]any, env ...string) {
	var b *bytes.Buffer
	handler := func(t *testing.T) slog.Handler {
		var l *slog.Logger
		l, b = newTestLogger(t, false, env...)
		return l.Handler()
	}
	slogtest.Run(t, handler, func(t *testing.T) map[string]any {
		return nested(parse(t, strings.TrimSuffix(b.String(), "\n")))
	})
}

// nested turns dotted keys into the nested maps that slogtest expects, and renames the message
// key to slog's.
func nested(flat map[string]any) map[string]any {
	flat[slog.MessageKey] = flat["message"]
	delete(flat, "message")
	deep := map[string]any{}
	for key, value := range flat {
		m, path := deep, strings.Split(key, ".")
		for _, group := range path[:len(path)-1] {
			if m[group] == nil {
				m[group] = map[string]any{}
			}
			m = m[group].(map[string]any)
		}
		m[path[len(path)-1]] = value
	}
	return deep
}
