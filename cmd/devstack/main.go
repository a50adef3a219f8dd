// Command devstack is a whole Dynamo fleet to play with, in one process: a NATS
// server and an etcd, mock workers, and the metrics program. Programs and real
// Dynamo workers in other shells find it with no configuration.
//
//	go run ./cmd/devstack
//	go run ./cmd/devstack --release mixed # mock workers of every release and event plane
//
// It exits with 0 after SIGINT or SIGTERM, with 1 if what it needs is refused, and with 2 if
// something is wrong with its flags.
package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"

	"dynamo-metrics/internal/cli"
)

func main() {
	os.Exit(run(cli.Signals(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	var f flags
	return cli.Run("devstack", getenv, stderr,
		func() (ended bool, err error) { f, ended, err = parse(args, getenv, stdout); return ended, err },
		func(log *slog.Logger) error {
			s := &stack{flags: f, getenv: withoutServers(getenv), stdout: stdout, stderr: stderr, log: log}
			return s.run(ctx)
		})
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
