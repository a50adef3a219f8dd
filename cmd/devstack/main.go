// Command devstack is a whole Dynamo fleet to play with, in one process: a NATS
// server and an etcd, mock workers, and the metrics program. Programs and real
// Dynamo workers in other shells find it with no configuration.
//
//	go run ./cmd/devstack
//
// It exits with 0 after SIGINT or SIGTERM, with 1 if it cannot go on, and with 2 if
// a flag has a value that it must not have.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"dynamo-metrics/internal/tracing"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	f, ended, err := parse(args, getenv, stdout)
	if ended {
		return 0
	}
	terminal, _ := stderr.(*os.File)
	var log *slog.Logger
	if err == nil {
		log, err = tracing.New(stderr, getenv, terminal != nil && tracing.Terminal(terminal), "devstack")
	}
	if err != nil {
		fmt.Fprintln(stderr, "devstack: "+strings.Join(strings.Fields(err.Error()), " "))
		return 2
	}
	s := &stack{flags: f, getenv: withoutServers(getenv), stdout: stdout, stderr: stderr, log: log}
	if err := s.run(ctx); err != nil {
		log.Error(err.Error())
		return 1
	}
	return 0
}

// withoutServers is the environment without what it says of other servers and of
// how to get into them: ours are where the flags say, and open to everybody.
func withoutServers(getenv func(string) string) func(string) string {
	return func(name string) string {
		if strings.HasPrefix(name, "NATS_") || strings.HasPrefix(name, "ETCD_") {
			return ""
		}
		return getenv(name)
	}
}
