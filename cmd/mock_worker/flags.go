package main

import (
	"fmt"
	"io"
	"math"
	"time"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/mock"
)

// noNATS is the value of --nats-server that disables NATS.
const noNATS = "none"

// flags has the settings of the command line and the environment.
type flags struct {
	workers    mock.Config
	static     bool
	nats, etcd string
	natsTLS    connect.NATSTLS
}

// parse reads the command line. Ended is true if it printed the help or the version on
// stdout.
func parse(args []string, getenv func(string) string, stdout io.Writer) (f flags, ended bool, err error) {
	c := &f.workers
	var seed int
	a := cli.New("mock_worker", "Runs mock workers of an NVIDIA Dynamo fleet.", stdout)
	a.Flag("namespace", "Dynamo namespace of the workers (DYN_NAMESPACE).").
		Default(cli.OrDefault(getenv("DYN_NAMESPACE"), "dynamo")).
		SetValue(cli.Namespace("namespace", &c.Namespace))
	a.Flag("component", "Component of the workers.").Default("backend").
		SetValue(cli.Component("component", &c.Component, ""))
	a.Flag("endpoint", "Endpoint of the workers.").Default("generate").
		SetValue(cli.Component("endpoint", &c.Endpoint, ""))
	a.Flag("workers", "Number of workers, each with its own id.").Default("1").
		SetValue(cli.Number("workers", &c.Workers, 1, 10_000))
	a.Flag("release", "Dynamo release to imitate.").Default(mock.DefaultRelease).
		SetValue(cli.OneOf("release", &c.Release, mock.Releases()...))
	a.Flag("event-plane", "Transport of events, nats or zmq; by default that of the release.").
		SetValue(cli.OneOf("event-plane", &c.EventPlane, mock.NATS, mock.ZMQ))
	a.Flag("host", "Address of the workers for ZMQ subscribers.").Default("127.0.0.1").
		SetValue(cli.Host("host", &c.Host, ""))
	a.Flag("seed", "Seed of all random values but ids; 0: a new one each time.").Default("0").
		SetValue(cli.Number("seed", &seed, 0, math.MaxInt))
	a.Flag("event-interval", "Time between two hit-rate events or request traces, in seconds or as a duration; up to 1h; 0: no events.").Default("1").
		SetValue(cli.Duration("event-interval", &c.EventInterval, 0, time.Hour))
	a.Flag("correlated", "Change the load smoothly, and send hit-rate events with the workers' own ids.").BoolVar(&c.Correlated)
	a.Flag("static", "Run static workers, without etcd and without ids.").BoolVar(&f.static)
	a.ServersFlag("nats-server", "NATS servers, separated by commas (NATS_SERVER); none: no NATS, for workers that need only ZMQ.",
		cli.OrDefault(getenv("NATS_SERVER"), "nats://localhost:4222"), &f.nats)
	f.natsTLS = connect.NATSTLSFromEnv(getenv)
	a.NATSTLSFlags(&f.natsTLS.CA, &f.natsTLS.Cert, &f.natsTLS.Key)
	a.ServersFlag("etcd-endpoints", "etcd endpoints, separated by commas (ETCD_ENDPOINTS).",
		cli.OrDefault(getenv("ETCD_ENDPOINTS"), "http://localhost:2379"), &f.etcd)

	if ended, err = a.Parse(args); ended || err != nil {
		return f, ended, err
	}
	c.Seed = uint64(seed)
	if err = f.validate(getenv); err == nil {
		_, err = a.CheckRequirements(f.dependencies())
	}
	return f, false, err
}

// dependencies returns the flags that have no effect without another setting.
func (f *flags) dependencies() []cli.Requirement {
	return []cli.Requirement{
		{Flags: "host", Met: f.workers.HasZMQ(), Needs: "--event-plane zmq: on NATS no address is needed"},
		{Flags: "nats-tls-ca nats-tls-cert nats-tls-key", Met: f.nats != noNATS, Needs: "--nats-server, which is none"},
		{Flags: "etcd-endpoints", Met: !f.static, Needs: "workers that are not --static"},
	}
}

// validate returns an error if a setting cannot work. It also checks the files that the flags
// and the environment name.
func (f *flags) validate(getenv func(string) string) error {
	c, nats, etcd := f.workers, f.nats, f.etcd
	if c.EventInterval > 0 && c.EventInterval < time.Millisecond {
		return cli.FlagError("event-interval", c.EventInterval.String(), "0 for no events, or at least 1ms")
	}
	if err := c.Check(); err != nil {
		return fmt.Errorf("--%w", err) // the settings have the names of the flags
	}
	if nats == noNATS && c.NeedsNATS() {
		return cli.FlagError("nats-server", nats, "servers: only workers with --event-plane zmq need no NATS")
	}
	if f.static && c.NeedsEtcd() {
		return fmt.Errorf("--static: do not set it together with --release %s, whose events have the id that etcd assigns", c.Release)
	}
	if nats == noNATS {
		nats = ""
	}
	if f.static {
		etcd = ""
	}
	return connect.Check(nats, f.natsTLS, etcd, getenv)
}
