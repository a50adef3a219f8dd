package dynlog

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

func TestJSONLKeysAreInOriginalOrder(t *testing.T) {
	l, b := newTestLogger(t, true, "DYN_LOGGING_JSONL", "1")
	logRecord(l.With("a", 1).WithGroup("g"), slog.LevelWarn, "hello \"you\"\n", "b", "two words")
	testutil.Equal(t, "line", b.String(), `{"time":"2025-02-26T18:45:05.467026Z","level":"WARN","target":"metrics",`+
		`"message":"hello \"you\"\n","a":1,"g.b":"two words"}`+"\n")
}

type point struct{ X, Y float64 }

type panickingJSON struct{}

func (panickingJSON) MarshalJSON() ([]byte, error) { panic("boom") }

func TestJSONLValues(t *testing.T) {
	for want, arg := range map[string]slog.Attr{
		`"n":7587884888253033398`:            slog.Uint64("n", 7587884888253033398),
		`"yes":true`:                         slog.Bool("yes", true),
		`"f":0.5`:                            slog.Float64("f", 0.5),
		`"f":1e-09`:                          slog.Float64("f", 1e-9),
		`"f":"NaN"`:                          slog.Float64("f", math.NaN()),
		`"f":"-Inf"`:                         slog.Float64("f", math.Inf(-1)),
		`"p":{"X":1,"Y":2}`:                  slog.Any("p", point{1, 2}),
		`"p":"{X:NaN Y:2}"`:                  slog.Any("p", point{math.NaN(), 2}),
		`"took":"1.5s"`:                      slog.Duration("took", 1500*time.Millisecond),
		`"at":"2025-02-26T18:45:05.467026Z"`: slog.Time("at", testTime),
		`"error":"no <route>"`:               slog.Any("error", errors.New("no <route>")),
		`"v":"hidden"`:                       slog.Any("v", secret{}),
		`"data":"{}"`:                        slog.Any("data", []byte("{}")),
		`"none":null`:                        slog.Any("none", nil),
		`"s":"\ufffd"`:                       slog.String("s", "\xff"),
		`"x":"{}"`:                           slog.Any("x", panickingJSON{}),
		`"g.a":1,"g.h.b":2`:                  slog.Group("g", "a", 1, slog.Group("h", "b", 2)),
		`"fields.level":"ERROR"`:             slog.String("level", "ERROR"),
		`"g.level":"ERROR"`:                  slog.Group("g", "level", "ERROR"),
	} {
		l, b := newTestLogger(t, false, "DYN_LOGGING_JSONL", "yes")
		logRecord(l, slog.LevelInfo, "hello", arg)
		testutil.Equal(t, "line", b.String(), `{"time":"2025-02-26T18:45:05.467026Z","level":"INFO","target":"metrics","message":"hello",`+want+"}\n")
		if !json.Valid(b.Bytes()) {
			t.Errorf("got %s, want JSON", b.String())
		}
	}
}
