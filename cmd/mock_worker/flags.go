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

// noNATS takes the place of the NATS servers.
const noNATS = "none"

// flags is what the command line and the environment say.
type flags struct {
	workers    mock.Config
	static     bool
	nats, etcd string
	natsTLS    connect.NATSTLS
}

// parse reads the command line. It reports true if help or version was asked for,
// and given on stdout.
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
	a.Flag("workers", "How many workers, each under an id of its own.").Default("1").
		SetValue(cli.Number("workers", &c.Workers, 1, 10_000))
	a.Flag("release", "Dynamo release to imitate.").Default(mock.Latest).
		SetValue(cli.OneOf("release", &c.Release, mock.Releases()...))
	a.Flag("event-plane", "What events travel on, nats or zmq; without it the release's own default.").
		SetValue(cli.OneOf("event-plane", &c.EventPlane, mock.NATS, mock.ZMQ))
	a.Flag("host", "Where ZMQ subscribers find the workers.").Default("127.0.0.1").
		SetValue(cli.Host("host", &c.Host, ""))
	a.Flag("seed", "Of everything random but ids; 0: another one each time.").Default("0").
		SetValue(cli.Number("seed", &seed, 0, math.MaxInt))
	a.Flag("event-interval", "Between two hit-rate events or traces of requests, in seconds or as a duration; up to 1h; 0: no events.").Default("1").
		SetValue(cli.Duration("event-interval", &c.EventInterval, 0, time.Hour))
	a.Flag("correlated", "Load moves smoothly, and hit-rate events carry the workers' own ids.").BoolVar(&c.Correlated)
	a.Flag("static", "Static workers: no etcd, no ids.").BoolVar(&f.static)
	a.Flag("nats-server", "NATS servers, a comma list (NATS_SERVER); none: no NATS, where ZMQ is all that the workers need.").
		Default(cli.OrDefault(getenv("NATS_SERVER"), "nats://localhost:4222")).
		PlaceHolder(cli.Redact(cli.OrDefault(getenv("NATS_SERVER"), "nats://localhost:4222"))).
		SetValue(cli.Address("nats-server", &f.nats))
	f.natsTLS = connect.NATSTLSFromEnv(getenv)
	a.NATSTLSFlags(&f.natsTLS.CA, &f.natsTLS.Cert, &f.natsTLS.Key)
	a.Flag("etcd-endpoints", "etcd endpoints, a comma list (ETCD_ENDPOINTS).").
		Default(cli.OrDefault(getenv("ETCD_ENDPOINTS"), "http://localhost:2379")).
		PlaceHolder(cli.Redact(cli.OrDefault(getenv("ETCD_ENDPOINTS"), "http://localhost:2379"))).
		SetValue(cli.Address("etcd-endpoints", &f.etcd))

	if ended, err = a.Parse(args); ended || err != nil {
		return f, ended, err
	}
	c.Seed = uint64(seed)
	if err = f.validate(getenv); err == nil {
		_, err = a.CheckRequirements(f.dependencies())
	}
	return f, false, err
}

// needs are the flags that do nothing without another.
func (f *flags) dependencies() []cli.Requirement {
	return []cli.Requirement{
		{Flags: "host", Met: f.workers.HasZMQ(), Needs: "--event-plane zmq: on NATS no address is needed"},
		{Flags: "nats-tls-ca nats-tls-cert nats-tls-key", Met: f.nats != noNATS, Needs: "--nats-server, which says that there is none"},
		{Flags: "etcd-endpoints", Met: !f.static, Needs: "workers that are not --static"},
	}
}

// check looks for what cannot work, in all that flags and environment name: files, too.
func (f *flags) validate(getenv func(string) string) error {
	c, nats, etcd := f.workers, f.nats, f.etcd
	if c.EventInterval > 0 && c.EventInterval < time.Millisecond {
		return cli.FlagError("event-interval", c.EventInterval.String(), "0 for no events, or at least 1ms")
	}
	if err := c.Check(); err != nil {
		return fmt.Errorf("--%w", err) // the settings have the names of the flags
	}
	if nats == noNATS && c.NeedsNATS() {
		return cli.FlagError("nats-server", nats, "servers: only workers with --event-plane zmq do without")
	}
	if f.static && c.NeedsEtcd() {
		return cli.FlagError("static", "true", "no such flag with release "+c.Release+": its events carry the id that etcd gives")
	}
	if nats == noNATS {
		nats = ""
	}
	if f.static {
		etcd = ""
	}
	return connect.Check(nats, f.natsTLS, etcd, getenv)
}
