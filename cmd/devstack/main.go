// Command devstack runs everything that is needed to try metrics out in one process: a NATS
// server, an etcd, mock workers, and the metrics program. Programs and real Dynamo workers in
// other shells find the servers without configuration.
//
//	go run ./cmd/devstack
//	go run ./cmd/devstack --release mixed # mock workers of every release and event plane
//
// The exit code is 0 after SIGINT or SIGTERM, 1 after a fault such as a port in use, and 2
// if a flag is wrong.
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

// withoutServers returns the environment without the variables about NATS and etcd. The servers
// of the stack are at the addresses in the flags, and require no credentials.
func withoutServers(getenv func(string) string) func(string) string {
	return func(name string) string {
		if strings.HasPrefix(name, "NATS_") || strings.HasPrefix(name, "ETCD_") {
			return ""
		}
		return getenv(name)
	}
}
