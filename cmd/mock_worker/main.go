// Command mock_worker runs mock workers. They register in etcd (unless --static), report
// made-up load like the workers of a Dynamo release, in replies to stats polls or in events,
// and publish made-up KV hit-rate events, or request traces for 1.6.1. They need no GPU, and
// several mock_workers may run together.
//
//	mock_worker                          # one worker at dynamo/backend/generate
//	mock_worker --workers 8 --correlated # eight workers with realistic load
//	mock_worker --release 0.1.1          # a worker of that release
//	mock_worker --release 1.6.1          # a worker that publishes over ZMQ
//
// It exits with 0 after SIGINT or SIGTERM, when its workers are deregistered. It exits with
// 1 if NATS or etcd rejects its credentials or the workers fail, and with 2 if its flags, the
// files that they name, or its environment are invalid.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/dynlog"
	"dynamo-metrics/internal/mock"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	os.Exit(run(cli.Signals(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	var f flags
	return cli.Run("mock_worker", getenv, stderr,
		func() (ended bool, err error) { f, ended, err = parse(args, getenv, stdout); return ended, err },
		func(log *slog.Logger) error { return runWorkers(ctx, f, getenv, log) })
}

// runWorkers runs the workers until ctx ends.
func runWorkers(ctx context.Context, f flags, getenv func(string) string, log *slog.Logger) error {
	var nc *nats.Conn
	var ec *clientv3.Client
	var err error
	if f.nats != noNATS {
		options, err := f.natsTLS.Options()
		if err != nil {
			return err
		}
		nc, err = connect.DialNATS(ctx, f.nats, getenv, dynlog.Target(log, "nats"), nil, append(options, nats.Name("mock_worker"))...)
		if err != nil || nc == nil {
			return err
		}
		defer nc.Close()
	}
	if !f.static {
		if ec, err = connect.DialEtcd(ctx, f.etcd, getenv, dynlog.Target(log, "etcd")); err != nil || ec == nil {
			return err
		}
		defer ec.Close()
	}
	c := f.workers
	log.Info(fmt.Sprintf("Starting Mock Worker on Endpoint: %s/%s/%s", c.Namespace, c.Component, c.Endpoint),
		"workers", c.Workers, "release", c.Release)
	c.Log = log
	return mock.Run(ctx, nc, ec, c)
}
