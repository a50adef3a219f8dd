package app

import (
	"io"
	"path/filepath"
	"time"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/expose"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/wire"
)

// none is the value of --etcd-endpoints for a fleet of static workers, and of
// --nats-server for one that does without NATS.
const none = "none"

// The backends of discovery.
const (
	discoveryEtcd       = "etcd"
	discoveryFiles      = "file"
	discoveryKubernetes = "kubernetes"
)

// mostInterval is the longest time between two of what is done again and again. What is longer was
// meant in another unit.
const maxInterval = time.Hour

// config is what the command line and the environment say.
type config struct {
	namespaces   wire.Namespaces
	target       fleet.Target
	pollInterval time.Duration
	modelName    string
	nats, etcd   string
	natsTLS      connect.NATSTLS
	discovery    string // one of the backends
	files        string // the directory of file discovery
	kubernetes   kubernetesConfig
	brokerURL    string
	brokers      []string // addresses of ZMQ brokers
	maxWorkers   int
	standby      bool
	scrape       scrapeConfig

	address string // host:port to listen on; empty: nowhere
	web     *expose.WebConfig
	pprof   bool

	push        bool
	pushgateway expose.Gateway
	pushURL     string

	warnings []string // flags that say nothing in this mode
}

// flags are those values that need others to be understood.
type flags struct {
	component, endpoint string
	host                string
	port, metricsPort   int
	pushURL, webConfig  string
	isSet               func(flag string) bool
}

// parse reads the command line. It reports true if help or version was asked for,
// and given on stdout.
func parse(args []string, getenv func(string) string, stdout io.Writer) (c config, ended bool, err error) {
	var f flags
	a := cli.New("metrics", "Serves or pushes the metrics of a Dynamo fleet, worker by worker."+subcommandsHelp(), stdout)
	a.Subcommands, f.isSet = subcommandNames(), a.IsSet

	a.Flag("namespace", "The Dynamo namespace to watch, or with a trailing * all whose names begin so (DYN_NAMESPACE).").
		Default(cli.OrDefault(getenv("DYN_NAMESPACE"), "dynamo")).
		SetValue(cli.Namespaces("namespace", (*string)(&c.namespaces)))
	a.Flag("component", "The component to watch; without it, all of the namespace.").
		SetValue(cli.Component("component", &f.component, "without the flag all are watched"))
	a.Flag("endpoint", "The endpoint of the component to watch; without it, all of them.").
		SetValue(cli.Component("endpoint", &f.endpoint, "without the flag all are watched"))
	a.Flag("poll-interval", "How often to ask the workers, in seconds or as a duration; from 10ms to 1h.").
		Default("2").SetValue(cli.Duration("poll-interval", &c.pollInterval, 10*time.Millisecond, maxInterval))
	a.Flag("metrics-port", "Port to serve metrics on.").Default("9091").
		SetValue(cli.Number("metrics-port", &f.metricsPort, 0, 65535))
	a.Flag("port", "The later original's name of --metrics-port; with --push and without --push-url, the Pushgateway's port.").Default("9091").
		SetValue(cli.Number("port", &f.port, 0, 65535))
	a.Flag("host", "Address to serve on; with --push and without --push-url, the Pushgateway's.").Default("0.0.0.0").
		SetValue(cli.Host("host", &f.host, "port"))
	a.Flag("push", "Push to a Pushgateway instead of serving; with --metrics-port, serve too.").BoolVar(&c.push)
	a.Flag("push-url", "The Pushgateway, with or without path and userinfo.").Default("http://localhost:9091").
		SetValue(cli.Address("push-url", &f.pushURL))
	a.Flag("push-interval", "How often to push, in seconds or as a duration; from 1s to 1h.").
		Default("15").SetValue(cli.Duration("push-interval", &c.pushgateway.Interval, time.Second, maxInterval))
	a.Flag("push-job", "The job label of what is pushed.").Default("dynamo_push_metrics").
		SetValue(cli.Name("push-job", &c.pushgateway.Job, ""))
	a.Flag("push-grouping", "A further label of the grouping key, name=value; may be repeated.").
		SetValue(&groupingFlag{labels: &c.pushgateway.Grouping})
	a.Flag("push-delete-on-exit", "Delete the pushed group at shutdown.").BoolVar(&c.pushgateway.DeleteOnExit)
	a.Flag("model-name", "Kept in the instance's key and in llm_worker_info.").
		SetValue(cli.Text("model-name", &c.modelName))
	a.Flag("nats-server", "NATS servers, a comma list; none for a fleet whose events are ZeroMQ, and by default with --discovery kubernetes (NATS_SERVER).").
		Default(cli.OrDefault(getenv("NATS_SERVER"), "nats://localhost:4222")).
		PlaceHolder(cli.Redact(cli.OrDefault(getenv("NATS_SERVER"), "nats://localhost:4222"))).
		SetValue(cli.Address("nats-server", &c.nats))
	c.natsTLS = connect.NATSTLSFromEnv(getenv)
	a.NATSTLSFlags(&c.natsTLS.CA, &c.natsTLS.Cert, &c.natsTLS.Key)
	a.Flag("etcd-endpoints", "etcd endpoints, a comma list; none for a fleet of static workers (ETCD_ENDPOINTS).").
		Default(cli.OrDefault(getenv("ETCD_ENDPOINTS"), "http://localhost:2379")).
		PlaceHolder(cli.Redact(cli.OrDefault(getenv("ETCD_ENDPOINTS"), "http://localhost:2379"))).
		SetValue(cli.Address("etcd-endpoints", &c.etcd))
	a.Flag("discovery", "Where workers register: etcd, file or kubernetes (DYN_DISCOVERY_BACKEND).").
		Default(cli.OrDefault(getenv("DYN_DISCOVERY_BACKEND"), discoveryEtcd)).
		SetValue(cli.OneOf("discovery", &c.discovery, discoveryEtcd, discoveryFiles, discoveryKubernetes))
	a.Flag("kubernetes-namespace", "The Kubernetes namespace of --discovery kubernetes; the program's own without it (POD_NAMESPACE).").
		Default(cli.OrDefault(getenv("POD_NAMESPACE"), cli.OrDefault(kube.PodNamespace(kube.ServiceAccountDir), "default"))).
		SetValue(cli.Name("kubernetes-namespace", &c.kubernetes.namespace, " /*"))
	a.Flag("kubernetes-api", "The API server outside of the cluster, such as http://localhost:8001 of kubectl proxy.").
		SetValue(cli.Address("kubernetes-api", &c.kubernetes.api))
	a.Flag("file-kv", "The directory of --discovery file (DYN_FILE_KV).").
		Default(cli.OrDefault(getenv("DYN_FILE_KV"), filepath.Join(cli.OrDefault(getenv("TMPDIR"), "/tmp"), "dynamo_store_kv"))).
		SetValue(cli.Path("file-kv", &c.files))
	a.Flag("zmq-broker", "ZeroMQ broker of the events, in the form xsub=tcp://host:port , xpub=tcp://host:port (DYN_ZMQ_BROKER_URL).").
		Default(getenv("DYN_ZMQ_BROKER_URL")).StringVar(&c.brokerURL)
	a.Flag("standby", "Wait where another instance holds the namespace, and take over when it is gone.").BoolVar(&c.standby)
	c.scrape.addFlags(a)
	a.Flag("max-workers", "Bound on tracked workers.").Default("65536").
		SetValue(cli.Number("max-workers", &c.maxWorkers, 1, 100_000_000))
	a.Flag("web.config.file", "exporter-toolkit configuration for TLS and basic auth.").StringVar(&f.webConfig)
	a.Flag("debug.pprof", "Serve profiles of the program on /debug/pprof/.").BoolVar(&c.pprof)

	if ended, err = a.Parse(args); ended || err != nil {
		return c, ended, err
	}
	if c.discovery == discoveryKubernetes && !a.IsSet("nats-server") && getenv("NATS_SERVER") == "" {
		c.nats = none // where the operator has installed one, it sets the variable
	}
	if err = c.complete(f); err == nil {
		c.warnings, err = a.CheckRequirements(c.requirements(f))
	}
	if err == nil {
		err = c.validate(f, getenv)
	}
	return c, false, err
}

// etcdServers are where workers register; empty if elsewhere or nowhere.
func (c config) etcdServers() string {
	if c.etcd == none || c.discovery != discoveryEtcd {
		return ""
	}
	return c.etcd
}

// natsServers are those to connect to; empty if there are none.
func (c config) natsServers() string {
	if c.nats == none {
		return ""
	}
	return c.nats
}

// hasRegistry reports whether workers register anywhere.
func (c config) hasRegistry() bool { return c.discovery != discoveryEtcd || c.etcd != none }

// hasUniqueInstance reports whether there is a place that one program of a namespace holds.
func (c config) hasUniqueInstance() bool {
	return c.discovery == discoveryKubernetes || c.etcdServers() != ""
}
