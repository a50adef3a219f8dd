package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"dynamo-metrics/internal/dynlog"
)

// The exit codes of all programs.
const (
	exitOK    = 0
	exitError = 1 // a server or the system refuses what the program needs
	exitUsage = 2 // an error in flags, files or environment, found before anything starts
)

// logFlushTimeout is how long a program that ends waits for its log to be written.
const logFlushTimeout = time.Second

// Run runs a program and returns its exit code. First parse reads the flags and everything that
// they name, and finds errors in them. Then run gets a logger that writes to stderr. An error is
// printed as one line. The program never blocks on stderr. At its end it waits for the log, for
// at most a second.
func Run(name string, getenv func(string) string, stderr io.Writer,
	parse func() (ended bool, err error), run func(log *slog.Logger) error) int {
	out := dynlog.NewOutput(stderr)
	go out.Run()
	defer out.Close(logFlushTimeout)
	fail := func(err error) { fmt.Fprintln(out, name+": "+OneLine(err)) }

	ended, err := parse()
	switch {
	case ended && err != nil:
		fail(err)
		return exitError
	case ended:
		return exitOK
	case err != nil:
		fail(err)
		return exitUsage
	}
	terminal, _ := stderr.(*os.File)
	log := dynlog.New(out, getenv, terminal != nil && dynlog.Terminal(terminal), name)
	if err := run(log); err != nil {
		if !log.Enabled(context.Background(), slog.LevelError) {
			fail(err) // an error is printed even with DYN_LOG=off
		}
		log.Error(OneLine(err))
		return exitError
	}
	return exitOK
}

// repeatedSignalWindow is how long after the first signal further signals count as the same one.
// Terminals and supervisors first signal the whole process group, and then the program itself.
const repeatedSignalWindow = time.Second

// Signals returns a context that SIGINT and SIGTERM end. A second signal, more than a second
// later, ends the program immediately. SIGPIPE is ignored: a write to a closed pipe is an error
// like any other.
func Signals() context.Context { return signals(repeatedSignalWindow) }

func signals(same time.Duration) context.Context {
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { time.AfterFunc(same, stop) })
	return ctx
}

// OneLine returns an error's text without line breaks.
func OneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
