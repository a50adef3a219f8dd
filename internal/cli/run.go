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
	exitError = 1 // the world refuses what the program needs
	exitUsage = 2 // what is wrong shows in flags, files and environment, before anything starts
)

// lastLines is how long the end of a program waits for the log to be written.
const logFlushTimeout = time.Second

// Run is the life of a program: parse reads the flags and all that they name, and looks for what
// cannot work; then it runs with a log on stderr. It returns the exit code. An error is one line, whatever it is made of. The program never
// waits for stderr: at the end all of it has been written, or a second has gone by.
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
			fail(err) // DYN_LOG=off is no reason to end without a word
		}
		log.Error(OneLine(err))
		return exitError
	}
	return exitOK
}

// sameSignal is for how long after the first signal others are taken for the same: terminals and
// supervisors send it to a whole group, and then to the program itself.
const repeatedSignalWindow = time.Second

// Signals is a context that SIGINT and SIGTERM end. One that comes a second later ends the
// program at once. SIGPIPE does not: a write to a pipe whose reader has gone is an error like any
// other.
func Signals() context.Context { return signals(repeatedSignalWindow) }

func signals(same time.Duration) context.Context {
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { time.AfterFunc(same, stop) })
	return ctx
}

// OneLine is an error's text without line breaks.
func OneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
