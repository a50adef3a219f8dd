package testutil

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// Log keeps what a program writes, to be read while it is written.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

// NewLog is a log, and what it writes.
func NewLog() (*slog.Logger, *Log) {
	l := new(Log)
	return slog.New(slog.NewTextHandler(l, nil)), l
}

func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// String is all that has been written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Count is how often s has been written.
func (l *Log) Count(s string) int { return strings.Count(l.String(), s) }

// Says is a check, as for Until, that s has been written so many times.
func (l *Log) HasCount(s string, times int) func() error {
	return func() error {
		if got := l.Count(s); got != times {
			return fmt.Errorf("%q is written %d times, want %d:\n%s", s, got, times, l)
		}
		return nil
	}
}
