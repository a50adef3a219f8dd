package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/devstack"
	"dynamo-metrics/internal/mock"
)

// The addresses to listen on. Metrics listens on all addresses, because Prometheus may run in a
// container.
const (
	serverHost  = "127.0.0.1"
	metricsHost = "0.0.0.0"
)

// flags are the settings from the command line and the environment.
type flags struct {
	namespace            string
	workers              int // the total
	release, plane       string
	fleet                []mock.Config
	noMetrics, noWorkers bool
	nats, etcd, metrics  int // ports; 0: any free one
	dataDir              string
}

// parse reads the command line. It reports true if help or the version was requested and
// has been written to stdout.
func parse(args []string, getenv func(string) string, stdout io.Writer) (f flags, ended bool, err error) {
	a := cli.New("devstack", "Runs NATS, etcd, mock workers and metrics in one process.", stdout)
	a.Flag("namespace", "Dynamo namespace of the workers (DYN_NAMESPACE).").
		Default(cli.OrDefault(getenv("DYN_NAMESPACE"), "dynamo")).
		SetValue(cli.Namespace("namespace", &f.namespace))
	a.Flag("workers", "Number of mock workers.").Default("3").
		SetValue(cli.Number("workers", &f.workers, 1, 10_000))
	a.Flag("release", "Dynamo release that the mock workers imitate; mixed: every release and event plane, with at least one worker of each.").
		Default(mock.DefaultRelease).
		SetValue(cli.OneOf("release", &f.release, append(mock.Releases(), mixed)...))
	a.Flag("event-plane", "Event plane of the workers, nats or zmq; by default that of the release.").
		SetValue(cli.OneOf("event-plane", &f.plane, mock.NATS, mock.ZMQ))
	a.Flag("no-workers", "Do not run mock workers.").BoolVar(&f.noWorkers)
	a.Flag("no-metrics", "Do not run metrics.").BoolVar(&f.noMetrics)
	a.Flag("nats-port", "Port of NATS; 0: any free one.").Default("4222").
		SetValue(cli.Number("nats-port", &f.nats, 0, 65535))
	a.Flag("etcd-port", "Port of etcd; 0: any free one.").Default("2379").
		SetValue(cli.Number("etcd-port", &f.etcd, 0, 65535))
	a.Flag("metrics-port", "Port of metrics; 0: any free one.").Default("9091").
		SetValue(cli.Number("metrics-port", &f.metrics, 0, 65535))
	a.Flag("data-dir", "Directory of the servers' data; by default a temporary one, which is removed at the end.").StringVar(&f.dataDir)
	if ended, err = a.Parse(args); ended || err != nil {
		return f, ended, err
	}
	if err = f.planWorkers(); err == nil {
		err = f.checkPorts()
	}
	if err == nil {
		_, err = a.CheckRequirements([]cli.Requirement{
			{Flags: "workers release event-plane", Met: !f.noWorkers, Needs: "mock workers: do not set it together with --no-workers"},
			{Flags: "metrics-port", Met: !f.noMetrics, Needs: "metrics: do not set it together with --no-metrics"},
		})
	}
	return f, false, err
}

// mixed is a value of --release that selects all releases.
const mixed = "mixed"

// planWorkers decides which mock workers to run.
func (f *flags) planWorkers() error {
	c := mock.Config{
		Namespace: f.namespace, Component: endpoint.Component, Endpoint: endpoint.Name,
		Workers: f.workers, Correlated: true, EventInterval: time.Second,
	}
	if f.release == mixed {
		if f.plane != "" {
			return fmt.Errorf("--event-plane %s: do not set it together with --release mixed, which has workers on both event planes", f.plane)
		}
		f.fleet = mock.Mixed(c)
		f.workers = max(f.workers, len(f.fleet))
		return nil
	}
	c.Release, c.EventPlane = f.release, f.plane
	f.fleet = []mock.Config{c}
	if err := c.Check(); err != nil {
		return fmt.Errorf("--%w", err) // the settings have the names of the flags
	}
	return nil
}

// port is a port to listen on.
type port struct {
	flag, host string
	number     int
}

// ports returns all ports to listen on.
func (f flags) ports() []port {
	all := []port{{"nats-port", serverHost, f.nats}, {"etcd-port", serverHost, f.etcd}, {"metrics-port", metricsHost, f.metrics}}
	if f.noMetrics {
		all = all[:2]
	}
	return all
}

// checkPorts returns an error if two flags name the same port.
func (f flags) checkPorts() error {
	taken := map[int]string{}
	for _, p := range f.ports() {
		if other := taken[p.number]; other != "" && p.number != 0 {
			return fmt.Errorf("--%s %d is the port of --%s, too: choose another one", p.flag, p.number, other)
		}
		taken[p.number] = p.flag
	}
	return nil
}

// tryPorts checks that all ports are free before anything starts.
func (f flags) tryPorts() error {
	for _, p := range f.ports() {
		_, err := devstack.FreePort(p.host, p.number)
		var inUse *devstack.InUseError
		if errors.As(err, &inUse) {
			return fmt.Errorf("%w: choose another port with --%s", err, p.flag)
		}
		if err != nil {
			return fmt.Errorf("--%s: %w", p.flag, err)
		}
	}
	return nil
}
