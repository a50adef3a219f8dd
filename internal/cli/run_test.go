package cli

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stuckWriter is a standard error that is never read.
type stuckWriter chan struct{}

func (s stuckWriter) Write(b []byte) (int, error) { <-s; return len(b), nil }

// fullWriter is an output on a full disk.
type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func noEnv(string) string { return "" }

func parseNothing() (bool, error) { return false, nil }

func TestRunEndsWithStuckLog(t *testing.T) {
	fails := errors.New("cannot go on")
	for name, c := range map[string]struct {
		env   func(string) string
		parse func() (bool, error)
		run   func(*slog.Logger) error
		code  int
	}{
		"in the end":           {noEnv, parseNothing, func(*slog.Logger) error { return nil }, 0},
		"with an error":        {noEnv, parseNothing, func(*slog.Logger) error { return fails }, 1},
		"with a wrong flag":    {noEnv, func() (bool, error) { return false, fails }, nil, 2},
		"with a wrong DYN_LOG": {func(string) string { return "a=b=c" }, parseNothing, func(*slog.Logger) error { return nil }, 0},
		"DYN_LOG=off":          {func(string) string { return "off" }, parseNothing, func(*slog.Logger) error { return fails }, 1},
	} {
		for _, of := range []func(stuckWriter) io.Writer{
			func(s stuckWriter) io.Writer { return s },
			func(stuckWriter) io.Writer { return fullWriter{} },
			func(stuckWriter) io.Writer { return io.Discard },
		} {
			synctest.Test(t, func(t *testing.T) {
				s := make(stuckWriter)
				defer close(s) // so that the writing goroutine does not leak
				start, stderr := time.Now(), of(s)
				code := Run("prog", c.env, stderr, c.parse, func(log *slog.Logger) error {
					for range 10_000 {
						log.Info("a line")
					}
					return c.run(log)
				})
				want := time.Duration(0)
				if stderr == io.Writer(s) {
					want = time.Second
				}
				if took := time.Since(start); code != c.code || took != want {
					t.Errorf("%s, %T: code %d after %v, want %d after %v", name, stderr, code, took, c.code, want)
				}
			})
		}
	}
}

func TestRunFlushesLog(t *testing.T) {
	for env, want := range map[string]string{"": "ERROR prog: cannot go on", "off": "prog: cannot go on"} {
		var out bytes.Buffer
		code := Run("prog", func(string) string { return env }, &out, parseNothing, func(log *slog.Logger) error {
			for range 1000 {
				log.Info("a line")
			}
			return errors.New("cannot\ngo on")
		})
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if n := map[string]int{"": 1001, "off": 1}[env]; code != 1 || len(lines) != n || !strings.HasSuffix(lines[len(lines)-1], want) {
			t.Errorf("DYN_LOG=%s: code %d and %d lines, the last %q; want 1, and %d that end with %q", env, code, len(lines), lines[len(lines)-1], n, want)
		}
	}
}

func TestRunReportsUnprintableHelp(t *testing.T) {
	for _, arg := range []string{"--help", "--version", "--help-man"} {
		var log bytes.Buffer
		code := Run("prog", noEnv, &log, func() (bool, error) { return New("prog", "A program.", fullWriter{}).Parse([]string{arg}) }, nil)
		if want := "prog: print to standard output: no space left on device\n"; code != 1 || log.String() != want {
			t.Errorf("%s: code %d and %q, want 1 and %q", arg, code, &log, want)
		}
	}
}
