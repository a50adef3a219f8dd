package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"time"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/tracing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/nats-io/nats.go"
)

// loader loads an instance that runs somewhere.
type loader struct {
	namespace  string
	nats, etcd string
	workerN    int
	rate       rate
	duration   time.Duration
	getenv     func(string) string
}

// flags are those of every loader.
func (l *loader) flags(c *kingpin.CmdClause, getenv func(string) string) {
	l.getenv = getenv
	c.Flag("namespace", "Dynamo namespace that is watched (DYN_NAMESPACE).").
		Default(cli.Or(getenv("DYN_NAMESPACE"), "dynamo")).
		SetValue(cli.Namespace("namespace", &l.namespace))
	c.Flag("workers", "How many workers.").Default("1000").
		SetValue(cli.Number("workers", &l.workerN, 1, 1_000_000))
	c.Flag("nats-server", "NATS servers, a comma list (NATS_SERVER).").
		Default(cli.Or(getenv("NATS_SERVER"), "nats://localhost:4222")).
		SetValue(cli.Name("nats-server", &l.nats, ""))
}

// rate is a number of events a second; 0: as many as go.
type rate int

const full = "full"

// Set implements kingpin.Value.
func (r *rate) Set(s string) error {
	if s == full {
		*r = 0
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > math.MaxInt32 {
		return cli.Error("rate", s, "events a second, or full")
	}
	*r = rate(n)
	return nil
}

// String implements kingpin.Value.
func (r *rate) String() string {
	if *r == 0 {
		return full
	}
	return strconv.Itoa(int(*r))
}

func (l loader) connect(ctx context.Context, log *slog.Logger) (*nats.Conn, error) {
	return connect.NATS(ctx, l.nats, l.getenv, tracing.Target(log, "nats"), nil, nats.Name("bench"))
}

// hits publishes events and says how many.
func (l loader) hits(ctx context.Context, log *slog.Logger) error {
	nc, err := l.connect(ctx, log)
	if err != nil || nc == nil {
		return err
	}
	defer nc.Close()
	loading, stop := context.WithTimeout(ctx, l.duration)
	defer stop()
	begin := time.Now()
	n, err := flood(loading, nc, l.namespace, hitEvents(l.workerN), int(l.rate))
	if err != nil {
		return err
	}
	log.Info(fmt.Sprintf("Published %s hit-rate events, %s", count(n), perSecond(n, time.Since(begin))))
	return nil
}

// workers runs workers until ctx ends.
func (l loader) workers(ctx context.Context, log *slog.Logger) error {
	nc, err := l.connect(ctx, log)
	if err != nil || nc == nil {
		return err
	}
	defer nc.Close()
	client, err := connect.Etcd(ctx, l.etcd, l.getenv, tracing.Target(log, "etcd"))
	if err != nil || client == nil {
		return err
	}
	defer client.Close()
	c, err := gather(ctx, nc, client, l.namespace, l.workerN)
	if err != nil {
		return err
	}
	defer c.leave()
	log.Info(fmt.Sprintf("%s workers on %s/%s/%s", count(l.workerN), l.namespace, component, crowdEndpoints[0]))
	<-ctx.Done()
	return nil
}
