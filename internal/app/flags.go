package app

import (
	"io"
	"path/filepath"
	"time"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/kube"
)

// maxInterval is the longest interval of a periodic task. A larger value was probably meant in
// another unit.
const maxInterval = time.Hour

// flags are the values whose meaning depends on other flags.
type flags struct {
	component, endpoint string
	host                string
	port, metricsPort   int
	pushURL, webConfig  string
	zmqBroker           string
	isSet               func(flag string) bool
}

// parse reads the command line. It reports true if help or version was requested, and printed to
// stdout.
func parse(args []string, getenv func(string) string, stdout io.Writer) (o Options, ended bool, err error) {
	var f flags
	o.Getenv = getenv
	a := cli.New("metrics", "Serves or pushes the metrics of every worker of a Dynamo fleet."+subcommandsHelp(), stdout)
	a.Subcommands, f.isSet = subcommandNames(), a.IsSet

	o.addWatchFlags(a, &f, getenv)
	o.addOutputFlags(a, &f)
	o.addServerFlags(a, &f, getenv)
	o.Scrape.addFlags(a)
	a.Flag("max-workers", "Largest number of workers to track.").Default("65536").
		SetValue(cli.Number("max-workers", &o.MaxWorkers, 1, 100_000_000))
	a.Flag("web.config.file", "exporter-toolkit configuration for TLS and basic auth.").StringVar(&f.webConfig)
	a.Flag("debug.pprof", "Serve profiles of the program on /debug/pprof/.").BoolVar(&o.Profiles)

	if ended, err = a.Parse(args); ended || err != nil {
		return o, ended, err
	}
	if o.Discovery == DiscoveryKubernetes && !a.IsSet("nats-server") && getenv("NATS_SERVER") == "" {
		o.NATS = None // Dynamo's operator sets the variable if it has installed NATS
	}
	if err = o.complete(f); err == nil {
		o.Warnings, err = a.CheckRequirements(o.requirements(f))
	}
	if err == nil {
		err = o.validate(f, getenv)
	}
	return o, false, err
}

// addWatchFlags adds the flags that select what to watch.
func (o *Options) addWatchFlags(a *cli.App, f *flags, getenv func(string) string) {
	a.Flag("namespace", "The Dynamo namespace to watch, or a prefix with a trailing * (DYN_NAMESPACE).").
		Default(cli.OrDefault(getenv("DYN_NAMESPACE"), "dynamo")).
		SetValue(cli.Namespaces("namespace", (*string)(&o.Namespaces)))
	a.Flag("component", "The component to watch (default: all components of the namespace).").
		SetValue(cli.Component("component", &f.component, "without the flag all are watched"))
	a.Flag("endpoint", "The endpoint of the component to watch (default: all endpoints).").
		SetValue(cli.Component("endpoint", &f.endpoint, "without the flag all are watched"))
	a.Flag("poll-interval", "Interval between polls of the workers, in seconds or as a duration; from 10ms to 1h.").
		Default("2").SetValue(cli.Duration("poll-interval", &o.PollInterval, 10*time.Millisecond, maxInterval))
}

// addOutputFlags adds the flags of the listener and of the Pushgateway.
func (o *Options) addOutputFlags(a *cli.App, f *flags) {
	a.Flag("metrics-port", "Port of the metrics endpoint, the web page and the API.").Default("9091").
		SetValue(cli.Number("metrics-port", &f.metricsPort, 0, 65535))
	a.Flag("port", "The name of --metrics-port in later releases of the original; with --push and without --push-url, the Pushgateway's port.").Default("9091").
		SetValue(cli.Number("port", &f.port, 0, 65535))
	a.Flag("host", "Address to listen on; with --push and without --push-url, the Pushgateway's.").Default("0.0.0.0").
		SetValue(cli.Host("host", &f.host, "port"))
	a.Flag("push", "Push to a Pushgateway instead of serving; with --metrics-port, do both.").BoolVar(&o.Push)
	a.Flag("push-url", "URL of the Pushgateway; may have a path and userinfo.").Default("http://localhost:9091").
		SetValue(cli.Address("push-url", &f.pushURL))
	a.Flag("push-interval", "Interval between pushes, in seconds or as a duration; from 1s to 1h.").
		Default("15").SetValue(cli.Duration("push-interval", &o.Pushgateway.Interval, time.Second, maxInterval))
	a.Flag("push-job", "The job label of the pushed metrics.").Default("dynamo_push_metrics").
		SetValue(cli.Name("push-job", &o.Pushgateway.Job, ""))
	a.Flag("push-grouping", "Additional label of the grouping key, name=value; may be repeated.").
		SetValue(&groupingFlag{labels: &o.Pushgateway.Grouping})
	a.Flag("push-delete-on-exit", "Delete the pushed group at shutdown.").BoolVar(&o.Pushgateway.DeleteOnExit)
	a.Flag("model-name", "Model name for the instance's key, and for llm_worker_info of workers without a model card.").
		SetValue(cli.Text("model-name", &o.ModelName))
}

// addServerFlags adds the flags of the servers and registries that the program reads.
func (o *Options) addServerFlags(a *cli.App, f *flags, getenv func(string) string) {
	a.ServersFlag("nats-server", "NATS servers, separated by commas; none for a fleet whose events use ZeroMQ, and the default with --discovery kubernetes (NATS_SERVER).",
		cli.OrDefault(getenv("NATS_SERVER"), "nats://localhost:4222"), &o.NATS)
	o.NATSTLS = connect.NATSTLSFromEnv(getenv)
	a.NATSTLSFlags(&o.NATSTLS.CA, &o.NATSTLS.Cert, &o.NATSTLS.Key)
	a.ServersFlag("etcd-endpoints", "etcd endpoints, separated by commas; none for a fleet of static workers (ETCD_ENDPOINTS).",
		cli.OrDefault(getenv("ETCD_ENDPOINTS"), "http://localhost:2379"), &o.Etcd)
	a.Flag("discovery", "Where workers register: etcd, file or kubernetes (DYN_DISCOVERY_BACKEND).").
		Default(cli.OrDefault(getenv("DYN_DISCOVERY_BACKEND"), DiscoveryEtcd)).
		SetValue(cli.OneOf("discovery", &o.Discovery, DiscoveryEtcd, DiscoveryFiles, DiscoveryKubernetes))
	a.Flag("kubernetes-namespace", "The Kubernetes namespace of --discovery kubernetes; by default the program's own (POD_NAMESPACE).").
		Default(cli.OrDefault(getenv("POD_NAMESPACE"), cli.OrDefault(kube.PodNamespace(kube.ServiceAccountDir), "default"))).
		SetValue(cli.Name("kubernetes-namespace", &o.Kubernetes.Namespace, " /*"))
	a.Flag("kubernetes-api", "The API server when running outside the cluster, such as http://localhost:8001 of kubectl proxy.").
		SetValue(cli.Address("kubernetes-api", &o.Kubernetes.API))
	a.Flag("file-kv", "The directory of --discovery file (DYN_FILE_KV).").
		Default(cli.OrDefault(getenv("DYN_FILE_KV"), filepath.Join(cli.OrDefault(getenv("TMPDIR"), "/tmp"), "dynamo_store_kv"))).
		SetValue(cli.Path("file-kv", &o.Files))
	a.Flag("zmq-broker", "ZeroMQ broker for events, in the form xsub=tcp://host:port , xpub=tcp://host:port (DYN_ZMQ_BROKER_URL).").
		Default(getenv("DYN_ZMQ_BROKER_URL")).StringVar(&f.zmqBroker)
	a.Flag("standby", "Wait while another instance holds the namespace, and take over when it is gone.").BoolVar(&o.Standby)
}
