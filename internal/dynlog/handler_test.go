package dynlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dynamo-metrics/internal/testutil"
)

var testTime = time.Date(2025, 2, 26, 18, 45, 5, 467026999, time.UTC)

// fakeEnv returns a getenv function over name, value pairs.
func fakeEnv(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// newTestLogger returns a logger with the target metrics, and the buffer that it writes to.
func newTestLogger(t *testing.T, color bool, env ...string) (*slog.Logger, *bytes.Buffer) {
	t.Helper()
	var b bytes.Buffer
	l := New(&b, fakeEnv(env...), color, "metrics")
	return l, &b
}

// logRecord logs at testTime, if the logger's level is enabled.
func logRecord(l *slog.Logger, level slog.Level, message string, args ...any) {
	if !l.Enabled(context.Background(), level) {
		return
	}
	r := slog.NewRecord(testTime, level, message, 0)
	r.Add(args...)
	_ = l.Handler().Handle(context.Background(), r)
}

func TestTargetSurvivesFieldsAndGroups(t *testing.T) {
	l, b := newTestLogger(t, false, "DYN_LOG", "error,nats=debug")
	nats := Target(l.With("a", 1).WithGroup("g"), "nats").With("b", 2).WithGroup("h")
	logRecord(nats, slog.LevelDebug, "connected", "c", 3)
	logRecord(l, slog.LevelWarn, "not at error")
	logRecord(Target(nats, "metrics"), slog.LevelWarn, "nor here")
	testutil.Equal(t, "line", b.String(), "2025-02-26T18:45:05.467026Z DEBUG nats: connected a=1 g.b=2 g.h.c=3\n")
}

func TestTargetOfOtherHandlerBecomesField(t *testing.T) {
	var b bytes.Buffer
	Target(slog.New(slog.NewJSONHandler(&b, nil)), "nats").Info("hello")
	if want := `"target":"nats"`; !strings.Contains(b.String(), want) {
		t.Errorf("got %s, want it to contain %s", b.String(), want)
	}
}

func TestHandlerChildrenDoNotShareFields(t *testing.T) {
	// Some of these lengths leave spare capacity after the parent's fields.
	for n := range 64 {
		l, b := newTestLogger(t, false)
		parent := l.With("parent", strings.Repeat("x", n))
		first := parent.With("c", 1)
		parent.With("c", 2)
		logRecord(first, slog.LevelInfo, "hello")
		if !strings.HasSuffix(b.String(), " c=1\n") {
			t.Fatalf("got %q, want c=1", b.String())
		}
	}
}

// countingWriter counts calls of Write and keeps what was written.
type countingWriter struct {
	bytes.Buffer
	writes int
}

func (c *countingWriter) Write(p []byte) (int, error) {
	c.writes++
	return c.Buffer.Write(p)
}

func TestHandlerWritesWholeLinesConcurrently(t *testing.T) {
	var c countingWriter
	l := New(&c, fakeEnv(), false, "metrics")
	var wg sync.WaitGroup
	for g := range 8 {
		child := Target(l, "nats").With("g", g)
		wg.Go(func() {
			for range 100 {
				logRecord(child, slog.LevelInfo, "hello", "with", "a field")
				logRecord(l, slog.LevelInfo, "hello", "with", "a field")
			}
		})
	}
	wg.Wait()
	if c.writes != 1600 {
		t.Errorf("got %d writes, want 1600", c.writes)
	}
	for line := range strings.Lines(c.String()) {
		if !strings.HasPrefix(line, "2025-") || !strings.HasSuffix(line, "with=\"a field\"\n") {
			t.Fatalf("got a torn line %q", line)
		}
	}
}

// loggingError logs while it is being logged.
type loggingError struct{ l *slog.Logger }

func (c loggingError) Error() string { c.l.Info("inner"); return "outer" }

func TestHandlerAllowsLoggingWithinValues(t *testing.T) {
	l, b := newTestLogger(t, false)
	l.Info("hello", "error", loggingError{l})
	if got := strings.Count(b.String(), "\n"); got != 2 {
		t.Errorf("got %d lines, want 2: %q", got, b.String())
	}
}

type failingWriter struct{ io.Writer }

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestHandlerIgnoresWriteErrors(t *testing.T) {
	l := New(failingWriter{}, fakeEnv(), false, "metrics")
	if err := l.Handler().Handle(t.Context(), slog.NewRecord(testTime, slog.LevelInfo, "hello", 0)); err != nil {
		t.Errorf("got %v, want nothing", err)
	}
}

func TestTerminalIsFalseForFiles(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if Terminal(f) || Terminal(nil) {
		t.Error("got a terminal, want none")
	}
}

func TestTimeInLocalZoneHasOffset(t *testing.T) {
	for want, zone := range map[string]*time.Location{
		"2025-02-26T18:45:05.467026Z":      time.UTC,
		"2025-02-26T19:45:05.467026+01:00": time.FixedZone("CET", 3600),
		"2025-02-26T13:15:05.467026-05:30": time.FixedZone("", -5*3600-1800),
		"2025-02-26T18:45:05.467026+00:00": time.FixedZone("GMT", 0),
	} {
		h := &handler{zone: zone}
		testutil.Equal(t, "h.appendTime(nil, when)", string(h.appendTime(nil, testTime)), want)
	}
}

func TestTimeZoneFollowsEnvironment(t *testing.T) {
	for value, want := range map[string]*time.Location{
		"": time.UTC, "0": time.UTC, "false": time.UTC, "y": time.UTC,
		"1": time.Local, "true": time.Local, "On": time.Local, "YES": time.Local,
	} {
		l, _ := newTestLogger(t, false, "DYN_LOG_USE_LOCAL_TZ", value)
		if got := l.Handler().(*handler).zone; got != want {
			t.Errorf("DYN_LOG_USE_LOCAL_TZ=%q: got %v, want %v", value, got, want)
		}
	}
}
