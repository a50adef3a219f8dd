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
		Default(cli.Or(getenv("DYN_NAMESPACE"), "dynamo")).
		SetValue(cli.Namespace("namespace", &c.Namespace))
	a.Flag("component", "Component of the workers.").Default("backend").
		SetValue(cli.Name("component", &c.Component, "/"))
	a.Flag("endpoint", "Endpoint of the workers.").Default("generate").
		SetValue(cli.Name("endpoint", &c.Endpoint, ""))
	a.Flag("workers", "How many workers, each under an id of its own.").Default("1").
		SetValue(cli.Number("workers", &c.Workers, 1, 10_000))
	a.Flag("release", "Dynamo release to imitate.").Default(mock.Latest).
		SetValue(cli.OneOf("release", &c.Release, mock.Releases()...))
	a.Flag("event-plane", "What events travel on, nats or zmq; without it the release's own default.").
		SetValue(cli.OneOf("event-plane", &c.EventPlane, mock.NATS, mock.ZMQ))
	a.Flag("host", "Where ZMQ subscribers find the workers.").Default("127.0.0.1").
		SetValue(cli.Name("host", &c.Host, "/ "))
	a.Flag("seed", "Of everything random but ids; 0: another one each time.").Default("0").
		SetValue(cli.Number("seed", &seed, 0, math.MaxInt))
	a.Flag("event-interval", "Between two hit-rate events or traces of requests, in seconds or as a duration; 0: no events.").Default("1").
		SetValue(cli.Duration("event-interval", &c.EventInterval, 0))
	a.Flag("correlated", "Load moves smoothly, and hit-rate events carry the workers' own ids.").BoolVar(&c.Correlated)
	a.Flag("static", "Static workers: no etcd, no ids.").BoolVar(&f.static)
	a.Flag("nats-server", "NATS servers, a comma list (NATS_SERVER); none: no NATS, where ZMQ is all that the workers need.").
		Default(cli.Or(getenv("NATS_SERVER"), "nats://localhost:4222")).
		PlaceHolder(cli.Redact(cli.Or(getenv("NATS_SERVER"), "nats://localhost:4222"))).
		SetValue(cli.Address("nats-server", &f.nats))
	a.Flag("nats-tls-ca", "File of the authorities that sign the NATS servers' certificates; the system's without it.").
		PlaceHolder("FILE").StringVar(&f.natsTLS.CA)
	a.Flag("nats-tls-cert", "File of the certificate that NATS knows us by; needs --nats-tls-key, too.").
		PlaceHolder("FILE").StringVar(&f.natsTLS.Cert)
	a.Flag("nats-tls-key", "File of that certificate's key.").
		PlaceHolder("FILE").StringVar(&f.natsTLS.Key)
	a.Flag("etcd-endpoints", "etcd endpoints, a comma list (ETCD_ENDPOINTS).").
		Default(cli.Or(getenv("ETCD_ENDPOINTS"), "http://localhost:2379")).
		PlaceHolder(cli.Redact(cli.Or(getenv("ETCD_ENDPOINTS"), "http://localhost:2379"))).
		SetValue(cli.Address("etcd-endpoints", &f.etcd))

	if ended, err = a.Parse(args); ended || err != nil {
		return f, ended, err
	}
	if c.EventInterval > 0 && c.EventInterval < time.Millisecond {
		return f, false, cli.Error("event-interval", c.EventInterval.String(), "0 for no events, or at least 1ms")
	}
	c.Seed = uint64(seed)
	if err := c.Check(); err != nil {
		return f, false, fmt.Errorf("--%w", err) // the settings have the names of the flags
	}
	if f.nats == noNATS && c.NeedsNATS() {
		return f, false, cli.Error("nats-server", f.nats, "servers: only workers with --event-plane zmq do without")
	}
	servers := f.nats
	if servers == noNATS {
		servers = ""
	}
	if err := f.natsTLS.Check(servers); err != nil {
		return f, false, err
	}
	if f.static && c.NeedsEtcd() {
		return f, false, cli.Error("static", "true", "no such flag with release "+c.Release+": its events carry the id that etcd gives")
	}
	return f, false, nil
}
