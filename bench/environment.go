package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"dynamo-metrics/internal/backoff"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/devstack"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// waitTimeout limits each wait for a condition that must become true.
const waitTimeout = time.Minute

// environment has what all measures need: the programs, the servers, and connections to
// them.
type environment struct {
	options
	table table

	dir     string // where the programs are built
	natsURL string
	server  *process // the NATS server
	etcd    *devstack.EtcdServer
	nats    *nats.Conn
	client  *clientv3.Client
}

// newEnvironment builds the programs and starts the servers. NATS is a separate process, so that
// its CPU time is not counted with ours. etcd runs in this process, because it has almost nothing
// to do.
func newEnvironment(ctx context.Context, o options) (s *environment, err error) {
	s = &environment{options: o, table: table{quick: o.quick}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, err
	}
	for _, pkg := range []string{"dynamo-metrics/cmd/metrics", "github.com/nats-io/nats-server/v2"} {
		build := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", s.dir, pkg)
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	if s.etcd, err = devstack.Etcd(devstack.EtcdConfig{Dir: filepath.Join(s.dir, "etcd")}); err != nil {
		return nil, err
	}
	port, err := devstack.FreePort("127.0.0.1", 0)
	if err != nil {
		return nil, err
	}
	s.natsURL = fmt.Sprintf("nats://127.0.0.1:%d", port)
	if s.server, err = start(ctx, nil, filepath.Join(s.dir, "nats-server"), "-a", "127.0.0.1", "-p", strconv.Itoa(port)); err != nil {
		return nil, err
	}
	if s.nats, err = s.connect(ctx); err != nil {
		return nil, err
	}
	s.client, err = connect.DialEtcd(ctx, s.etcd.Endpoint(), noEnv, quiet)
	if err == nil && s.client == nil {
		err = ctx.Err()
	}
	return s, err
}

func (s *environment) close() {
	if s.client != nil {
		s.client.Close()
	}
	if s.nats != nil {
		s.nats.Close()
	}
	if s.server != nil {
		s.server.kill()
	}
	if s.etcd != nil {
		s.etcd.Close()
	}
	os.RemoveAll(s.dir)
}

var quiet = slog.New(slog.DiscardHandler)

func noEnv(string) string { return "" }

// connect opens another connection to NATS.
func (s *environment) connect(ctx context.Context) (*nats.Conn, error) {
	var nc *nats.Conn
	err := until(ctx, time.Millisecond, func() (err error) {
		if s.server.hasEnded() {
			return fmt.Errorf("nats-server ended: %s", s.server.lastLine())
		}
		nc, err = nats.Connect(s.natsURL)
		return err
	})
	return nc, err
}

// until runs check until it returns nil. After waitTimeout, it returns check's last error.
func until(ctx context.Context, pause time.Duration, check func() error) error {
	deadline := time.Now().Add(waitTimeout)
	for {
		err := check()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still after %v: %w", waitTimeout, err)
		}
		if !backoff.Wait(ctx, pause) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// instance is a running metrics program, or a substitute for it.
type instance struct {
	*process
	url         string
	started     time.Time
	largestBody atomic.Int64 // the largest response body so far, in bytes
}

// startMetrics starts the program in a namespace and returns when the program is ready.
func (s *environment) startMetrics(ctx context.Context, namespace string, args ...string) (*instance, error) {
	port, err := devstack.FreePort("127.0.0.1", 0)
	if err != nil {
		return nil, err
	}
	args = append([]string{"--namespace", namespace, "--host", "127.0.0.1", "--metrics-port", strconv.Itoa(port)}, args...)
	env := []string{"NATS_SERVER=" + s.natsURL, "ETCD_ENDPOINTS=" + s.etcd.Endpoint(), "DYN_LOG=warn"}
	m := &instance{url: "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), started: time.Now()}
	if m.process, err = start(ctx, env, filepath.Join(s.dir, "metrics"), args...); err != nil {
		return nil, err
	}
	return m, m.waitUntilReady(ctx)
}

// waitUntilReady waits until the instance is ready, and kills it if it does not become
// ready.
func (m *instance) waitUntilReady(ctx context.Context) error {
	err := until(ctx, time.Millisecond, func() error {
		if m.hasEnded() {
			return nil // waiting longer is pointless
		}
		_, err := m.get(ctx, "/-/ready?strict=true")
		return err
	})
	if m.hasEnded() {
		err = errEnded
	}
	if err != nil {
		m.terminate()
		err = fmt.Errorf("%s is not ready: %w: %s", filepath.Base(m.cmd.Path), err, m.lastLine())
	}
	return err
}

var errEnded = errors.New("the process has ended")

// failure returns the error that the instance has ended, or that one of the goroutines has
// panicked. It returns nil while the instance runs.
func (m *instance) failure() error {
	switch line := m.panicLine(); {
	case line != "":
		return errors.New(line)
	case m.hasEnded():
		return fmt.Errorf("%w: %s", errEnded, m.lastLine())
	}
	return nil
}

// get returns the body of a response, whose status must be 200.
func (m *instance) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := uncompressed.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	b := bytes.NewBuffer(make([]byte, 0, m.largestBody.Load()+bytes.MinRead)) // growing the buffer step by step would make much garbage
	_, err = b.ReadFrom(answer.Body)
	m.largestBody.Store(max(m.largestBody.Load(), int64(b.Len())))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %.200s", path, answer.Status, b)
	}
	return b.Bytes(), err
}

// uncompressed is an HTTP client that does not request compression.
var uncompressed = &http.Client{Transport: &http.Transport{DisableCompression: true}}

// scrape returns what the instance serves on /metrics.
func (m *instance) scrape(ctx context.Context) (metricsText, error) {
	b, err := m.get(ctx, "/metrics")
	return metricsText(b), err
}

// waitForSeries waits until /metrics has n series whose text begins with start.
func (m *instance) waitForSeries(ctx context.Context, start string, n int) error {
	return until(ctx, 50*time.Millisecond, func() error {
		p, err := m.scrape(ctx)
		if err != nil {
			return err
		}
		if got, _ := p.sum(start); got != n {
			return fmt.Errorf("%d series of %s, want %d", got, start, n)
		}
		return nil
	})
}
