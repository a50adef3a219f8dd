// Command mock_worker runs mock workers: they register in etcd and answer stats
// polls like the workers of a Dynamo release, with made-up load, and publish made-up
// KV hit-rate events. No GPU is needed, and several may run at once.
//
//	mock_worker                          # one worker on dynamo/backend/generate
//	mock_worker --workers 8 --correlated # eight whose load looks alive on a dashboard
//	mock_worker --release 0.1.1          # speaks as that release did
//
// It exits with 0 after SIGINT or SIGTERM, when its workers are deregistered, with 1
// if it cannot go on, and with 2 if a flag has a value that it must not have.
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

	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/mock"
	"dynamo-metrics/internal/tracing"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
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
		log, err = tracing.New(stderr, getenv, terminal != nil && tracing.Terminal(terminal), "mock_worker")
	}
	if err != nil {
		fmt.Fprintln(stderr, "mock_worker: "+strings.Join(strings.Fields(err.Error()), " "))
		return 2
	}
	if err := work(ctx, f, getenv, log); err != nil {
		log.Error(err.Error())
		return 1
	}
	return 0
}

// work runs the workers until ctx ends.
func work(ctx context.Context, f flags, getenv func(string) string, log *slog.Logger) error {
	nc, err := connect.NATS(ctx, f.nats, getenv, tracing.Target(log, "nats"), nil, nats.Name("mock_worker"))
	if err != nil || nc == nil {
		return err
	}
	defer nc.Close()
	var ec *clientv3.Client
	if !f.static {
		if ec, err = connect.Etcd(ctx, f.etcd, getenv, tracing.Target(log, "etcd")); err != nil || ec == nil {
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
