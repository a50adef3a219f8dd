package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"dynamo-metrics/internal/app"
	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/dynlog"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/mock"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// endpoint is the endpoint of the mock workers, the default of mock_worker.
var endpoint = fleet.Endpoint{Component: "backend", Name: "generate"}

// stack is everything that runs, with its settings and addresses.
type stack struct {
	flags
	getenv         func(string) string
	stdout, stderr io.Writer
	log            *slog.Logger

	temporary bool
	natsURL   string
	etcdURL   string
}

// run runs the stack until ctx ends. The servers end last, so that their clients can
// deregister.
func (s *stack) run(ctx context.Context) error {
	if err := s.tryPorts(); err != nil {
		return err
	}
	if s.dataDir == "" {
		dir, err := os.MkdirTemp("", "devstack-")
		if err != nil {
			return fmt.Errorf("make a temporary directory: %w", err)
		}
		defer os.RemoveAll(dir)
		s.dataDir, s.temporary = dir, true
	}
	natsServer, err := devstack.NATS(devstack.NATSConfig{Host: serverHost, Port: s.nats, Dir: filepath.Join(s.dataDir, "nats")})
	if err != nil {
		return err
	}
	defer natsServer.Close()
	etcdServer, err := devstack.Etcd(devstack.EtcdConfig{Host: serverHost, Port: s.etcd, Dir: filepath.Join(s.dataDir, "etcd")})
	if err != nil {
		return err
	}
	defer etcdServer.Close()
	s.natsURL, s.etcdURL = natsServer.URL(), etcdServer.Endpoint()
	return s.runClients(ctx)
}

// runClients runs the clients of the servers.
func (s *stack) runClients(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	registered := make(chan struct{}, s.workers) // one for each worker
	if !s.noWorkers {
		g.Go(func() error { return s.runWorkers(ctx, registered) })
	}
	g.Go(func() error {
		// Metrics starts when all workers are registered, so that it never shows only some of
		// them.
		if !s.noWorkers && !receive(ctx, registered, s.workers) {
			return nil
		}
		if !s.noMetrics {
			var err error
			if s.metrics, err = devstack.FreePort(metricsHost, s.metrics); err != nil {
				return err
			}
			g.Go(func() error { return s.runMetrics(ctx) })
			if !listening(ctx, net.JoinHostPort(serverHost, strconv.Itoa(s.metrics))) {
				return nil
			}
		}
		s.printWelcome()
		<-ctx.Done()
		return nil
	})
	return g.Wait()
}

func (s *stack) runWorkers(ctx context.Context, registered chan<- struct{}) error {
	log := dynlog.Target(s.log, "mock_worker")
	quiet := slog.New(slog.DiscardHandler) // connections to our own servers are not worth a line in the log
	nc, err := connect.DialNATS(ctx, s.natsURL, s.getenv, quiet, nil, nats.Name("mock_worker"))
	if err != nil || nc == nil {
		return err
	}
	defer nc.Close()
	ec, err := connect.DialEtcd(ctx, s.etcdURL, s.getenv, quiet)
	if err != nil || ec == nil {
		return err
	}
	defer ec.Close()
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range s.fleet {
		c.Log = log
		c.OnRegistered = func(int, fleet.Instance) {
			select {
			case registered <- struct{}{}:
			default: // registered again, after a lost lease
			}
		}
		g.Go(func() error { return mock.Run(ctx, nc, ec, c) })
	}
	return g.Wait()
}

func (s *stack) runMetrics(ctx context.Context) error {
	args := []string{
		"--namespace", s.namespace, "--nats-server", s.natsURL, "--etcd-endpoints", s.etcdURL,
		"--host", metricsHost, "--metrics-port", strconv.Itoa(s.metrics),
	}
	if code := app.Main(ctx, args, s.getenv, io.Discard, s.stderr); code != 0 {
		return fmt.Errorf("metrics ended with code %d", code)
	}
	return nil
}

// receive receives n values from c. It reports false if ctx ended first.
func receive(ctx context.Context, c <-chan struct{}, n int) bool {
	for range n {
		select {
		case <-c:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// listening waits until a server listens on address. It reports false if ctx ended first.
func listening(ctx context.Context, address string) bool {
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close() == nil
		}
		if !backoff.Wait(ctx, 10*time.Millisecond) {
			return false
		}
	}
}
