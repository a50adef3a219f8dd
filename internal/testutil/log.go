package testutil

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// Log collects what a program logs. Tests may read it while the program is running.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

// NewLog returns a logger, and the Log that it writes to.
func NewLog() (*slog.Logger, *Log) {
	l := new(Log)
	return slog.New(slog.NewTextHandler(l, nil)), l
}

// NewDebugLog returns a logger of all levels whose lines have no time, and the Log that it writes
// to.
func NewDebugLog() (*slog.Logger, *Log) {
	l := new(Log)
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})), l
}

func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// String returns everything that has been logged.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Count returns how often s has been logged.
func (l *Log) Count(s string) int { return strings.Count(l.String(), s) }

// Lines returns the lines that contain all of these parts; nil if there are none.
func (l *Log) Lines(parts ...string) (found []string) {
	for line := range strings.Lines(l.String()) {
		line = strings.TrimSuffix(line, "\n")
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			found = append(found, line)
		}
	}
	return found
}

// HasCount returns a check for Until that s has been logged exactly this many times.
func (l *Log) HasCount(s string, times int) func() error {
	return func() error {
		if got := l.Count(s); got != times {
			return fmt.Errorf("%q is logged %d times, want %d:\n%s", s, got, times, l)
		}
		return nil
	}
}
