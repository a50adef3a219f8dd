package program

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"dynamo-metrics/internal/cli"
	"dynamo-metrics/internal/collect"
	"dynamo-metrics/internal/connect"
	"dynamo-metrics/internal/expose"
	"dynamo-metrics/internal/fleet"
	"dynamo-metrics/internal/kube"
	"dynamo-metrics/internal/wire"

	"github.com/prometheus/common/model"
)

// none is the value of --etcd-endpoints for a fleet of static workers, and of
// --nats-server for one that does without NATS.
const none = "none"

// The backends of discovery.
const (
	byEtcd       = "etcd"
	byFiles      = "file"
	byKubernetes = "kubernetes"
)

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
	kubernetes   kubernetes
	brokerURL    string
	brokers      []string // addresses of ZMQ brokers
	maxWorkers   int
	standby      bool
	scrapes      scrapes

	address string // host:port to listen on; empty: nowhere
	web     *expose.WebConfig
	pprof   bool

	push    bool
	gateway expose.Gateway // but for its URL
	pushURL string
	unused  []string // flags that say nothing in this mode
}

// flags are those values that need others to be understood.
type flags struct {
	component, endpoint             string
	host                            string
	port, metricsPort               int
	pushURL, webConfig              string
	hasComponent, hasEndpoint       bool
	hasHost, hasPort, hasMetricPort bool
	hasPushURL, hasNATS             bool
}

// parse reads the command line. It reports true if help or version was asked for,
// and given on stdout.
func parse(args []string, getenv func(string) string, stdout io.Writer) (c config, ended bool, err error) {
	var f flags
	a := cli.New("metrics", "Serves or pushes the metrics of a Dynamo fleet, worker by worker."+printersHelp(), stdout)

	a.Flag("namespace", "The Dynamo namespace to watch, or with a trailing * all whose names begin so (DYN_NAMESPACE).").
		Default(cli.Or(getenv("DYN_NAMESPACE"), "dynamo")).
		SetValue(cli.Namespaces("namespace", (*string)(&c.namespaces)))
	a.Flag("component", "The component to watch; without it, all of the namespace.").
		IsSetByUser(&f.hasComponent).SetValue(cli.Name("component", &f.component, "/"))
	a.Flag("endpoint", "The endpoint of the component to watch; without it, all of them.").
		IsSetByUser(&f.hasEndpoint).SetValue(cli.Name("endpoint", &f.endpoint, ""))
	a.Flag("poll-interval", "How often to ask the workers, in seconds or as a duration; at least 10ms.").
		Default("2").SetValue(cli.Duration("poll-interval", &c.pollInterval, 10*time.Millisecond))
	a.Flag("metrics-port", "Port to serve metrics on.").Default("9091").
		IsSetByUser(&f.hasMetricPort).SetValue(cli.Number("metrics-port", &f.metricsPort, 0, 65535))
	a.Flag("port", "The later original's name of --metrics-port; with --push and without --push-url, the Pushgateway's port.").Default("9091").
		IsSetByUser(&f.hasPort).SetValue(cli.Number("port", &f.port, 0, 65535))
	a.Flag("host", "Address to serve on; with --push and without --push-url, the Pushgateway's.").Default("0.0.0.0").
		IsSetByUser(&f.hasHost).SetValue(cli.Name("host", &f.host, " /"))
	a.Flag("push", "Push to a Pushgateway instead of serving; with --metrics-port, serve too.").BoolVar(&c.push)
	a.Flag("push-url", "The Pushgateway, with or without path and userinfo.").Default("http://localhost:9091").
		IsSetByUser(&f.hasPushURL).SetValue(cli.Address("push-url", &f.pushURL))
	a.Flag("push-interval", "How often to push, in seconds or as a duration; at least 1s.").
		Default("15").SetValue(cli.Duration("push-interval", &c.gateway.Interval, time.Second))
	a.Flag("push-job", "The job label of what is pushed.").Default("dynamo_push_metrics").
		SetValue(cli.Name("push-job", &c.gateway.Job, ""))
	a.Flag("push-grouping", "A further label of the grouping key, name=value; may be repeated.").
		SetValue(&groupings{labels: &c.gateway.Grouping})
	a.Flag("push-delete-on-exit", "Delete the pushed group at shutdown.").BoolVar(&c.gateway.DeleteOnExit)
	a.Flag("model-name", "Kept in the instance's key and in llm_worker_info.").
		SetValue(cli.Text("model-name", &c.modelName))
	a.Flag("nats-server", "NATS servers, a comma list; none for a fleet whose events are ZeroMQ, and by default with --discovery kubernetes (NATS_SERVER).").
		Default(cli.Or(getenv("NATS_SERVER"), "nats://localhost:4222")).
		IsSetByUser(&f.hasNATS).
		PlaceHolder(cli.Redact(cli.Or(getenv("NATS_SERVER"), "nats://localhost:4222"))).
		SetValue(cli.Address("nats-server", &c.nats))
	a.Flag("nats-tls-ca", "File of the authorities that sign the NATS servers' certificates; the system's without it.").
		PlaceHolder("FILE").StringVar(&c.natsTLS.CA)
	a.Flag("nats-tls-cert", "File of the certificate that NATS knows us by; needs --nats-tls-key, too.").
		PlaceHolder("FILE").StringVar(&c.natsTLS.Cert)
	a.Flag("nats-tls-key", "File of that certificate's key.").
		PlaceHolder("FILE").StringVar(&c.natsTLS.Key)
	a.Flag("etcd-endpoints", "etcd endpoints, a comma list; none for a fleet of static workers (ETCD_ENDPOINTS).").
		Default(cli.Or(getenv("ETCD_ENDPOINTS"), "http://localhost:2379")).
		PlaceHolder(cli.Redact(cli.Or(getenv("ETCD_ENDPOINTS"), "http://localhost:2379"))).
		SetValue(cli.Address("etcd-endpoints", &c.etcd))
	a.Flag("discovery", "Where workers register: etcd, file or kubernetes (DYN_DISCOVERY_BACKEND).").
		Default(cli.Or(getenv("DYN_DISCOVERY_BACKEND"), byEtcd)).
		SetValue(cli.OneOf("discovery", &c.discovery, byEtcd, byFiles, byKubernetes))
	a.Flag("kubernetes-namespace", "The Kubernetes namespace of --discovery kubernetes; the program's own without it (POD_NAMESPACE).").
		Default(cli.Or(getenv("POD_NAMESPACE"), cli.Or(kube.OwnNamespace(kube.ServiceAccount), "default"))).
		SetValue(cli.Name("kubernetes-namespace", &c.kubernetes.namespace, " /"))
	a.Flag("kubernetes-api", "The API server outside of the cluster, such as http://localhost:8001 of kubectl proxy.").
		SetValue(cli.Address("kubernetes-api", &c.kubernetes.api))
	a.Flag("file-kv", "The directory of --discovery file (DYN_FILE_KV).").
		Default(cli.Or(getenv("DYN_FILE_KV"), filepath.Join(cli.Or(getenv("TMPDIR"), "/tmp"), "dynamo_store_kv"))).
		SetValue(cli.Path("file-kv", &c.files))
	a.Flag("zmq-broker", "ZeroMQ broker of the events, in the form xsub=tcp://host:port , xpub=tcp://host:port (DYN_ZMQ_BROKER_URL).").
		Default(getenv("DYN_ZMQ_BROKER_URL")).StringVar(&c.brokerURL)
	a.Flag("standby", "Wait where another instance holds the namespace, and take over when it is gone.").BoolVar(&c.standby)
	c.scrapes.flags(a)
	a.Flag("max-workers", "Bound on tracked workers.").Default("65536").
		SetValue(cli.Number("max-workers", &c.maxWorkers, 1, 100_000_000))
	a.Flag("web.config.file", "exporter-toolkit configuration for TLS and basic auth.").StringVar(&f.webConfig)
	a.Flag("debug.pprof", "Serve profiles of the program on /debug/pprof/.").BoolVar(&c.pprof)

	if ended, err = a.Parse(args); ended || err != nil {
		return c, ended, err
	}
	if c.discovery == byKubernetes && !f.hasNATS && getenv("NATS_SERVER") == "" {
		c.nats = none // where the operator has installed one, it sets the variable
	}
	if err := c.kubernetes.check(c.discovery == byKubernetes, getenv); err != nil {
		return c, false, err
	}
	return c, false, c.complete(f)
}

// etcdServers are where workers register; empty if elsewhere or nowhere.
func (c config) etcdServers() string {
	if c.etcd == none || c.discovery != byEtcd {
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
func (c config) hasRegistry() bool { return c.discovery != byEtcd || c.etcd != none }

// hasUniqueInstance reports whether there is a place that one program of a namespace holds.
func (c config) hasUniqueInstance() bool { return c.discovery == byKubernetes || c.etcdServers() != "" }

// complete understands the flags that depend on each other.
func (c *config) complete(f flags) error {
	if f.hasEndpoint && !f.hasComponent {
		return fmt.Errorf("--endpoint %q: needs --component, which says whose endpoint it is", f.endpoint)
	}
	c.target = fleet.Target{Component: f.component, Name: f.endpoint}
	if c.namespaces.Several() {
		c.target.Namespace = string(c.namespaces)
	}
	if !c.hasRegistry() && c.namespaces.Several() {
		return fmt.Errorf("--etcd-endpoints %q: needs one --namespace, since nothing says which there are that begin with %q", none, c.namespaces)
	}
	if !c.hasRegistry() && !f.hasComponent {
		return fmt.Errorf("--etcd-endpoints %q: needs --component, since nothing else says which there are", none)
	}
	if !c.hasRegistry() && c.nats == none {
		return fmt.Errorf("--nats-server %q: needs a registry, since without both nothing can be learnt: leave --etcd-endpoints %q out", none, none)
	}
	if c.standby && !c.hasUniqueInstance() {
		return errors.New("--standby: needs etcd or Kubernetes, where the unique instance is registered: leave it out with --discovery file and --etcd-endpoints none")
	}
	err := c.natsTLS.Check(c.natsServers())
	if err == nil {
		err = c.scrapes.check()
	}
	if err != nil {
		return err
	}
	if c.brokers, err = collect.ParseBrokers(c.brokerURL); err != nil {
		return fmt.Errorf("--zmq-broker %q: %w", c.brokerURL, err)
	}
	if f.hasPort && f.hasMetricPort && f.port != f.metricsPort {
		return fmt.Errorf("--port \"%d\": want the same as --metrics-port (%d), or only one of the two", f.port, f.metricsPort)
	}
	if c.web, err = expose.ReadWebConfig(f.webConfig); err != nil {
		return fmt.Errorf("--web.config.file %q: want an exporter-toolkit configuration: %w", f.webConfig, err)
	}
	if c.push && f.hasPort && f.port == 0 && !f.hasPushURL && !f.hasMetricPort {
		return cli.Error("port", "0", "the Pushgateway's port")
	}
	c.listen(f)
	if c.pprof && c.address == "" {
		return errors.New("--debug.pprof: needs --metrics-port, since with --push alone nothing is served")
	}
	c.pushURL = pushURL(f)
	return nil
}

// listen decides where to serve: with --push nowhere, since the Pushgateway has
// the port, unless --metrics-port says so.
func (c *config) listen(f flags) {
	port := f.metricsPort
	if f.hasPort {
		port = f.port
	}
	if !c.push || f.hasMetricPort {
		c.address = net.JoinHostPort(strings.Trim(f.host, "[]"), strconv.Itoa(port))
	}
	if c.push && f.hasPushURL && !f.hasMetricPort {
		for name, given := range map[string]bool{"--host": f.hasHost, "--port": f.hasPort} {
			if given {
				c.unused = append(c.unused, name)
			}
		}
	}
}

// pushURL is the Pushgateway's: in the later original's form, --host and --port were.
func pushURL(f flags) string {
	if f.hasPushURL || f.hasMetricPort || !f.hasHost && !f.hasPort {
		return f.pushURL
	}
	host := strings.Trim(f.host, "[]")
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(f.port))
}

// parseGateway is the Pushgateway with its URL understood.
func (c *config) parseGateway(log *slog.Logger) (expose.Gateway, error) {
	if !c.push {
		return expose.Gateway{}, nil
	}
	for _, flag := range c.unused {
		log.Warn(flag + " is ignored: --push-url names the Pushgateway, and nothing is served without --metrics-port")
	}
	s := c.pushURL
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || !validPort(u.Port()) || u.RawQuery != "" || u.Fragment != "" {
		return expose.Gateway{}, fmt.Errorf("--push-url %q: malformed: want http(s)://[user:password@]host[:port][/path]", cli.Redact(s))
	}
	g := c.gateway
	g.URL = u
	return g, nil
}

// validPort reports whether a URL's port can be one; none at all can.
func validPort(s string) bool {
	n, err := strconv.Atoi(s)
	return s == "" || err == nil && n >= 1 && n <= 65535
}

// groupings is the value of --push-grouping.
type groupings struct{ labels *map[string]string }

func (g *groupings) Set(s string) error {
	name, value, found := strings.Cut(s, "=")
	if !found || !model.LegacyValidation.IsValidLabelName(name) || strings.HasPrefix(name, "__") || value == "" {
		return cli.Error("push-grouping", s, "name=value, where name can be a label's")
	}
	if expose.HasLabel(name) {
		return cli.Error("push-grouping", s, "a label that no metric has")
	}
	if *g.labels == nil {
		*g.labels = make(map[string]string)
	}
	if _, again := (*g.labels)[name]; again {
		return cli.Error("push-grouping", s, "each label once")
	}
	(*g.labels)[name] = value
	return nil
}

func (g *groupings) String() string { return "" }

// IsCumulative lets kingpin take the flag more than once.
func (g *groupings) IsCumulative() bool { return true }
