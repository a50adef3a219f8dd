package dynlog

import (
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"dynamo-metrics/internal/testutil"
)

func TestLineLevelHasFiveColumns(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelError + 4: "2025-02-26T18:45:05.467026Z ERROR metrics: hello\n",
		slog.LevelError:     "2025-02-26T18:45:05.467026Z ERROR metrics: hello\n",
		slog.LevelWarn:      "2025-02-26T18:45:05.467026Z  WARN metrics: hello\n",
		slog.LevelInfo + 1:  "2025-02-26T18:45:05.467026Z  INFO metrics: hello\n",
		slog.LevelInfo:      "2025-02-26T18:45:05.467026Z  INFO metrics: hello\n",
		slog.LevelDebug:     "2025-02-26T18:45:05.467026Z DEBUG metrics: hello\n",
		LevelTrace:          "2025-02-26T18:45:05.467026Z TRACE metrics: hello\n",
	} {
		l, b := newTestLogger(t, false, "DYN_LOG", "trace")
		logRecord(l, level, "hello")
		testutil.Equal(t, "line", b.String(), want)
	}
}

func TestLineMatchesOriginal(t *testing.T) {
	l, b := newTestLogger(t, false)
	logRecord(l, slog.LevelInfo, "Creating unique instance of Metrics at dynamo/components/metrics/instance")
	testutil.Equal(t, "line", b.String(), "2025-02-26T18:45:05.467026Z  INFO metrics: Creating unique instance of Metrics at dynamo/components/metrics/instance\n")
}

func TestLineTimeHasSixDigits(t *testing.T) {
	h := &handler{zone: time.UTC}
	testutil.Equal(t, "appendTime", string(h.appendTime(nil, time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC))), "2025-01-02T03:04:05.000000Z")
}

type secret struct{}

func (secret) LogValue() slog.Value { return slog.StringValue("hidden") }

type panickingError struct{}

func (*panickingError) Error() string { panic("boom") }

func TestLineFields(t *testing.T) {
	for want, arg := range map[string]slog.Attr{
		` n=7587884888253033398`:          slog.Uint64("n", 7587884888253033398),
		` n=-1`:                           slog.Int("n", -1),
		` f=0.5`:                          slog.Float64("f", 0.5),
		` yes=true`:                       slog.Bool("yes", true),
		` took=1.5s`:                      slog.Duration("took", 1500*time.Millisecond),
		` at=2025-02-26T18:45:05.467026Z`: slog.Time("at", testTime.In(time.FixedZone("", 7200))),
		` error="no route: dial"`:         slog.Any("error", errors.New("no route: dial")),
		` error="a\nb"`:                   slog.Any("error", errors.Join(errors.New("a"), errors.New("b"))),
		` error=<nil>`:                    slog.Any("error", (*panickingError)(nil)),
		` v=hidden`:                       slog.Any("v", secret{}),
		` data="{\"a\":1}"`:               slog.Any("data", []byte(`{"a":1}`)),
		` none=<nil>`:                     slog.Any("none", nil),
		` empty=""`:                       slog.String("empty", ""),
		` url=http://h/?a=b&c`:            slog.String("url", "http://h/?a=b&c"),
		` s="two words"`:                  slog.String("s", "two words"),
		` s="\"q\""`:                      slog.String("s", `"q"`),
		` s="\xff"`:                       slog.String("s", "\xff"),
		` s=größe`:                        slog.String("s", "größe"),
		` "a key"=1`:                      slog.Int("a key", 1),
		` g.a=1 g.h.b=2`:                  slog.Group("g", "a", 1, slog.Group("h", "b", 2)),
		` a=1`:                            slog.Group("", "a", 1),
		``:                                slog.Group("g"),
	} {
		l, b := newTestLogger(t, false)
		logRecord(l, slog.LevelInfo, "hello", arg)
		testutil.Equal(t, "line", b.String(), "2025-02-26T18:45:05.467026Z  INFO metrics: hello"+want+"\n")
	}
}

func TestLineSurvivesPanickingError(t *testing.T) {
	l, b := newTestLogger(t, false)
	logRecord(l, slog.LevelInfo, "hello", "error", &panickingError{})
	if !strings.Contains(b.String(), "boom") {
		t.Errorf("got %q, want the panic's text", b.String())
	}
}

func TestLineWithoutMessage(t *testing.T) {
	l, b := newTestLogger(t, false)
	logRecord(l, slog.LevelInfo, "", "a", 1)
	testutil.Equal(t, "line", b.String(), "2025-02-26T18:45:05.467026Z  INFO metrics: a=1\n")
}

func TestLineEscapesControlCharacters(t *testing.T) {
	for message, want := range map[string]string{
		"a\n2025-01-01T00:00:00.000000Z ERROR metrics: b": `a\n2025-01-01T00:00:00.000000Z ERROR metrics: b`,
		"a\r\tb":            `a\r\tb`,
		"\x1b[31mred":       `\x1b[31mred`,
		"\u009b31mred":      `\u009b31mred`,
		"a\u2028b\u202ec":   `a\u2028b\u202ec`,
		"\xff\x00":          `\xff\x00`,
		"it's \"fine\" ü �": "it's \"fine\" ü �",
	} {
		l, b := newTestLogger(t, false)
		logRecord(Target(l, message), slog.LevelInfo, message)
		testutil.Equal(t, "line", b.String(), "2025-02-26T18:45:05.467026Z  INFO "+want+": "+want+"\n")
	}
}

func TestLineColoursMatchOriginal(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelError: "\x1b[31mERROR\x1b[0m",
		slog.LevelWarn:  "\x1b[33m WARN\x1b[0m",
		slog.LevelInfo:  "\x1b[32m INFO\x1b[0m",
		slog.LevelDebug: "\x1b[34mDEBUG\x1b[0m",
		LevelTrace:      "\x1b[35mTRACE\x1b[0m",
	} {
		l, b := newTestLogger(t, true, "DYN_LOG", "trace")
		logRecord(l, level, "hello", "a", 1)
		testutil.Equal(t, "line", b.String(), "\x1b[2m2025-02-26T18:45:05.467026Z\x1b[0m "+want+
			" \x1b[2mmetrics\x1b[0m\x1b[2m:\x1b[0m hello \x1b[3ma\x1b[0m\x1b[2m=\x1b[0m1\n")
	}
}

func TestLineColoursCanBeDisabled(t *testing.T) {
	l, b := newTestLogger(t, true, "DYN_SDK_DISABLE_ANSI_LOGGING", "True")
	logRecord(l, slog.LevelInfo, "hello")
	testutil.Equal(t, "line", b.String(), "2025-02-26T18:45:05.467026Z  INFO metrics: hello\n")
}

var painted = regexp.MustCompile("\x1b\\[[0-9]+m")

// FuzzLine asserts that any record, in any format, is exactly one line without control
// characters.
func FuzzLine(f *testing.F) {
	f.Add("hello", "key", "value", "metrics")
	f.Add("a\nb", "k\n", "\x1b[2J", "t\r")
	f.Add("\xff\u2028", "", "\u009b", "")
	f.Add("x", "message", "\x00", "a b")
	f.Fuzz(func(t *testing.T, message, key, value, target string) {
		for _, env := range [][]string{nil, {"DYN_LOGGING_JSONL", "1"}} {
			l, b := newTestLogger(t, true, env...)
			l = Target(l, target).With(key, value).WithGroup(key)
			logRecord(l, slog.LevelInfo, message, key, value, "bytes", []byte(value), "list", []string{value})
			line, ended := strings.CutSuffix(b.String(), "\n")
			if !ended || !utf8.ValidString(line) {
				t.Fatalf("got %q, want one line of UTF-8", b.String())
			}
			if env != nil && !json.Valid([]byte(line)) {
				t.Fatalf("got %q, want JSON", line)
			}
			if env == nil {
				line = painted.ReplaceAllString(line, "")
			}
			if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || env == nil && unicode.IsControl(r) }) {
				t.Fatalf("got a control character in %q", line)
			}
		}
	})
}
