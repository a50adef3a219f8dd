package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/wire"

	"github.com/alecthomas/kingpin/v2"
	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// loader puts load on an instance that is already running.
type loader struct {
	namespace  string
	nats, etcd string
	workerN    int
	rate       rate
	duration   time.Duration
	getenv     func(string) string
}

// flags defines the flags that all loaders have.
func (l *loader) flags(c *kingpin.CmdClause, getenv func(string) string) {
	l.getenv = getenv
	c.Flag("namespace", "Dynamo namespace that is watched (DYN_NAMESPACE).").
		Default(cli.OrDefault(getenv("DYN_NAMESPACE"), "dynamo")).
		SetValue(cli.Namespace("namespace", &l.namespace))
	c.Flag("workers", "Number of workers.").Default("1000").
		SetValue(cli.Number("workers", &l.workerN, 1, 1_000_000))
	c.Flag("nats-server", "NATS servers, a comma list (NATS_SERVER).").
		Default(cli.OrDefault(getenv("NATS_SERVER"), "nats://localhost:4222")).
		SetValue(cli.Name("nats-server", &l.nats, ""))
}

// maxDuration is the upper bound of flags for durations.
const maxDuration = 1000 * time.Hour

// rate is a number of events a second. 0 means as many as possible.
type rate int

const fullRate = "full"

// Set implements kingpin.Value.
func (r *rate) Set(s string) error {
	if s == fullRate {
		*r = 0
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > math.MaxInt32 {
		return cli.FlagError("rate", s, "events a second, or full")
	}
	*r = rate(n)
	return nil
}

// String implements kingpin.Value.
func (r *rate) String() string {
	if *r == 0 {
		return fullRate
	}
	return strconv.Itoa(int(*r))
}

// loaderTimeout limits how long a server may take to respond. It is short because people
// run loaders interactively.
const loaderTimeout = 5 * time.Second

// connect connects to NATS, and logs when the connection is lost and restored.
func (l loader) connect(ctx context.Context, log *slog.Logger) (*nats.Conn, error) {
	connecting, stop := context.WithTimeout(ctx, loaderTimeout)
	defer stop()
	status := func(connected bool) {
		switch {
		case connected:
			log.Info("Connected to NATS")
		case ctx.Err() == nil:
			log.Warn("Lost the connection to NATS; retrying")
		}
	}
	return connect.DialNATS(connecting, l.nats, l.getenv, quiet, status, nats.Name("bench"))
}

// hits publishes events and logs their number.
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
	log.Info(fmt.Sprintf("Published %s hit-rate events, %s", count(n), perSecond(n, time.Since(begin))))
	return err
}

// workers runs workers until ctx ends.
func (l loader) workers(ctx context.Context, log *slog.Logger) error {
	client, err := l.registry(ctx)
	if err != nil || client == nil {
		return err
	}
	defer client.Close()
	nc, err := l.connect(ctx, log)
	if err != nil || nc == nil {
		return err
	}
	defer nc.Close()
	c, err := startFakeWorkers(ctx, nc, client, l.namespace, l.workerN)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	log.Info(fmt.Sprintf("%s workers on %s/%s/%s", count(l.workerN), l.namespace, component, fakeWorkerEndpoints[0]))
	select {
	case <-ctx.Done():
		c.leave()
		log.Info(fmt.Sprintf("%s workers have deregistered", count(l.workerN)))
		return nil
	case <-c.leaseLost:
		c.leave()
		return fmt.Errorf("the workers are no longer registered: etcd has not renewed their lease in %d s", fakeWorkersTTL)
	}
}

// registry returns a client of an etcd that responds and has no workers of another load. Both
// loads would have the same keys, which would be deleted when either of them ends. If ctx ends
// first, client and error are nil.
func (l loader) registry(ctx context.Context) (*clientv3.Client, error) {
	connecting, stop := context.WithTimeout(ctx, loaderTimeout)
	defer stop()
	client, err := connect.DialEtcd(connecting, l.etcd, l.getenv, quiet)
	if err != nil || client == nil {
		return nil, err
	}
	first := wire.LayoutInstances.Key(l.namespace, instances(0)[0])
	existing, err := client.Get(connecting, first)
	switch {
	case ctx.Err() != nil:
		err = nil
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("etcd at %s: no answer in %v", strings.Join(client.Endpoints(), ","), loaderTimeout)
	case err != nil:
		err = fmt.Errorf("etcd at %s: %w", strings.Join(client.Endpoints(), ","), err)
	case existing.Count > 0:
		err = fmt.Errorf("namespace %s already has a load of workers: end that load, or choose another --namespace", l.namespace)
	default:
		return client, nil
	}
	client.Close()
	return nil, err
}
